"""Runs that began before newer keys existed go on and are measured as they began."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainer.cli.app import main
from trainer.files.durable import write_json
from trainer.process.run_directory import BEFORE
from trainer.process.status import read_status


def losses(directory: Path) -> dict[int, float]:
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return {one["step"]: one["loss"] for one in lines if one["split"] == "train"}


def run(*words: Any, code: int = 0) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code == code


@pytest.fixture
def recipe(reviews_recipe: dict[str, Any], write_recipe: Any, tmp_path: Path) -> Path:
    """A recipe on rows that hold special tokens, of which [MASK] and [SEP] change what is read."""
    texts = ["good [MASK] day", "bad [SEP] day", "good food", "bad [UNK] food"] * 8
    rows = [{"text": text, "label": text.split()[0]} for text in texts]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    reviews_recipe["data"]["source"] = {"files": {"train": str(tmp_path / "train.jsonl")}}
    reviews_recipe["task"]["labels"] = ["good", "bad"]
    reviews_recipe["model"]["tokenizer"]["vocab_size"] = 80
    reviews_recipe["batch"] = {"global_batch_size": 8, "max_seq_length": 16}
    reviews_recipe["schedule"] = {"steps": 8}
    reviews_recipe["checkpoint"] |= {"every_steps": 4, "keep_last": 9}
    reviews_recipe["tracking"]["log_every_steps"] = 1
    return write_recipe(reviews_recipe)


def test_an_older_run_resumes_as_it_began(recipe: Path, tmp_path: Path) -> None:
    older = [word for key in BEFORE for word in ("--set", f"{key}={_word(BEFORE[key])}")]
    run("train", recipe, "--run-dir", tmp_path / "whole", *older)
    run("train", recipe, "--run-dir", tmp_path / "new")
    whole = losses(tmp_path / "whole")
    assert losses(tmp_path / "new") != whole  # or the rows would show nothing

    directory = tmp_path / "older"
    run("train", recipe, "--run-dir", directory, *older)
    for step in (directory / "checkpoints").glob("step-00000008"):
        step.rename(tmp_path / "later")
    config = yaml.safe_load((directory / "config.yaml").read_text())
    for key in BEFORE:
        *sections, leaf = key.split(".")
        section = config
        for name in sections:
            section = section[name]
        del section[leaf]
    assert config["tuning"] == {"mode": "full"}
    config["tuning"] |= {"r": 16, "alpha": 32, "dropout": 0.05, "target_modules": "all-linear"}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(directory / "status.json", {**read_status(directory), "state": "stopped"})
    run("train", recipe, "--run-dir", directory, "--set", "data.special_tokens=literal", code=2)
    run("train", recipe, "--run-dir", directory)
    assert losses(directory) == whole
    run("evaluate", directory)


def _word(value: Any) -> str:
    return "null" if value is None else str(value)
