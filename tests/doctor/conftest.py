"""A recipe of rows that a test chooses."""

import json
from pathlib import Path

import pytest
from support.film_rows import OTHERS, ROWS

from trainer.tasks.recipe import parse_recipe


@pytest.fixture
def recipe_of(reviews_recipe, tmp_path):
    """Makes a recipe of rows for each split: (train, test, key="section.name" values)."""

    def make(train=ROWS, test=OTHERS, **changes):
        files = {}
        for name, rows in {"train": train, "validation": OTHERS, "test": test}.items():
            files[name] = str(tmp_path / f"{name}.jsonl")
            Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = {
            **reviews_recipe,
            "task": {"name": "classification", "labels": ["good", "bad"]},
            "data": {"source": {"files": files}},
        }
        for key, value in changes.items():
            section, _, name = key.partition("__")
            values[section] = {**values[section], name: value} if name else value
        return parse_recipe(values, "the recipe")

    return make
