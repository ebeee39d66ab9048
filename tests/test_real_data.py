"""Real rows and a real pretrained model, where TRAINER_TEST_DATA names their folder."""

import json
import os
from pathlib import Path

import pytest

from trainer.commands import train

FOLDER = Path(os.environ.get("TRAINER_TEST_DATA", "/nonexistent"))
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="TRAINER_TEST_DATA names no folder with real data"
)


@pytest.mark.parametrize(("mode", "gain"), [("full", 0.08), ("qlora", 0.03)])
def test_stories_learns_sst2(mode, gain, write_recipe, tmp_path):
    recipe = write_recipe(
        {
            "model": {"name_or_path": str(FOLDER / "models/stories260K")},
            "tuning": {"mode": mode},
            "task": {"name": "classification", "labels": ["negative", "positive"]},
            "data": {
                "source": {
                    "files": {
                        "train": str(FOLDER / "sst2/train.tsv"),
                        "test": str(FOLDER / "sst2/dev.tsv"),
                    }
                },
                "columns": {"text": "sentence", "label": "label"},
                "split": {"validation": {"ratio": 0.2, "seed": 1}},
                "max_rows": 10_000,
            },
            "optimizer": {"learning_rate": 1e-3 if mode == "full" else 2e-3},
            "schedule": {"epochs": 2, "warmup_ratio": 0.1},
            "tracking": {"trackers": []},
        }
    )
    assert train(str(recipe), (), tmp_path / "run", "auto") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    before, after = results["baseline"]["validation"], results["best"]["metrics"]["validation"]
    assert sum(one["support"] for one in after["per_class"].values()) == 2000
    assert after["accuracy"] > before["accuracy"] + gain
    assert after["loss"] < before["loss"]
