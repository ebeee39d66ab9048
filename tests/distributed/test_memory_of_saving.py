"""A rank saves and resumes a sharded model with little more memory than its own shard."""

import json

import pytest
from support.launches import launch_command, run_to_its_end
from support.paths import PROGRAMS

MB = 2**20
pytestmark = pytest.mark.distributed
SCRIPT = PROGRAMS / "measured_saves.py"


@pytest.mark.slow
def test_under_zero3_a_save_needs_two_files_and_a_tensor(
    reviews_recipe, write_recipe, tmp_path, monkeypatch
):
    """Weights and moments take 410 MB, half on each of two ranks; files have 8 MB."""
    reviews_recipe["model"]["architecture"] |= {
        "hidden_size": 768,
        "num_hidden_layers": 5,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    reviews_recipe["schedule"] = {"steps": 4}
    reviews_recipe["checkpoint"] |= {"every_steps": 1, "keep_last": 4}
    reviews_recipe["evaluation"]["baseline"] = False
    recipe = write_recipe(reviews_recipe)
    monkeypatch.setenv("MEASURED", str(tmp_path))
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "100000")  # returns freed memory at once
    for run, options in (
        ("first", ()),
        ("second", ("--resume", str(tmp_path / "first" / "checkpoints" / "step-00000002"))),
    ):
        command = launch_command(
            *("train", str(recipe), "--run-dir", str(tmp_path / run), *options), config="zero3"
        )
        at = command.index("trainer")
        done = run_to_its_end([*command[: at - 1], str(SCRIPT), *command[at + 1 :]], tmp_path / run)
        assert done.status()["state"] == "done", done.output
        files = list((tmp_path / run / "checkpoints" / "step-00000004").iterdir())
        assert sum(file.stat().st_size for file in files) > 400 * MB
        for rank in (0, 1):
            grown = json.loads((tmp_path / f"rank-{rank}.json").read_text())
            print(run, rank, {name: f"{size / MB:.0f} MB" for name, size in grown.items()})
            assert grown["save"] < 40 * MB
            moments = 2 / 3 * 410 * MB / 2  # its share, which is allocated while it is read
            assert grown.get("load", 0) < moments + 40 * MB
