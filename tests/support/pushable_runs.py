"""Directories of finished runs that can be pushed, made without training.

Their recipe, warnings and configurations name places on a machine, which must not leave it.
"""

import json
import random
from pathlib import Path
from typing import Any

from support.sample_run import write_run

from trainer.exports.fingerprints import fingerprints
from trainer.files.plain import sealed
from trainer.recipe.reading import dump_yaml
from trainer.report.card.model_card import write_card
from trainer.tasks.recipe import load_recipe, parse_recipe

HOME = "/home/erika"
"""The home directory that a run's files are full of."""
SECRET = "hf_SomeTokenThatSomebodyPasted"
ADAPTER_CARD = f"""---
base_model: {HOME}/models/tiny
library_name: peft
tags:
- base_model:adapter:{HOME}/models/tiny
---

# run

```python
base = AutoModelForSequenceClassification.from_pretrained('{HOME}/models/tiny')
```

The whole model, with its tokenizer, is in `model/`, next to this folder.
"""


def write_pushable(
    directory: Path,
    *,
    adapters: bool = False,
    shards: int = 1,
    weights: int = 1,
    export: bool | None = None,
    **overrides: Any,
) -> Path:
    """Writes a finished run with model/, and adapter/ if `adapters`, and returns the directory.

    The weights are `shards` files of 300 kB, drawn from the seed `weights`. `export` is what
    results.json says of their verification; None is an older version. `overrides` are sections
    that replace those of the recipe.
    """
    write_run(directory, num_examples=40, num_shown=2)
    values: dict[str, Any] = load_recipe("demo").model_dump(mode="json")
    values["model"] = {"name_or_path": f"{HOME}/models/tiny", "initialization": "pretrained"}
    values["data"]["source"] = {"files": {"train": f"{HOME}/the project/train.csv"}}
    if adapters:
        values["tuning"] = {"mode": "lora"}
    values |= overrides
    recipe = parse_recipe(values, "the recipe")
    (directory / "config.yaml").write_text(dump_yaml(recipe), "utf-8")
    results = json.loads((directory / "results.json").read_text("utf-8"))
    del results["checksum"]
    results["recipe"] = recipe.model_dump(mode="json")
    results["warnings"] = [
        f"{HOME}/the project/train.csv: 3 rows are empty ({SECRET})",
        f"see {directory}/metrics.jsonl and https://erika:password@example.org/x",
    ]
    results["environment"]["host"] = "erikas-machine"
    _write_model(directory / "model", directory.name, results, shards, weights)
    if adapters:
        _write_adapter(directory / "adapter", weights)
    if export is not None:
        results["export"] = _export(directory, adapters, verified=export)
    (directory / "results.json").write_text(json.dumps(sealed(results)), "utf-8")
    return directory


def weight_names(shards: int) -> list[str]:
    if shards == 1:
        return ["model.safetensors"]
    return [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]


def _write_model(folder: Path, name: str, results: Any, shards: int, weights: int) -> None:
    folder.mkdir()
    config = {"model_type": "bert", "_name_or_path": f"{HOME}/models/tiny", "hidden_size": 32}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "tokenizer.json").write_text('{"model": {}}', "utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', "utf-8")
    for number, file in enumerate(weight_names(shards)):
        chance = random.Random(f"{weights} {number} {shards}")
        (folder / file).write_bytes(chance.randbytes(300_000))
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}', "utf-8")
    write_card(folder, name, results)


def _write_adapter(folder: Path, weights: int) -> None:
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": f"{HOME}/models/tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    (folder / "adapter_model.safetensors").write_bytes(random.Random(-weights).randbytes(9_000))
    (folder / "README.md").write_text(ADAPTER_CARD, "utf-8")


def _export(directory: Path, adapters: bool, *, verified: bool) -> Any:
    def part(name: str) -> Any:
        files = fingerprints(directory / name)
        return {"difference": 0.0, "bound": 1e-5, "num_examples": 3, "files": files}

    return {
        "verified": verified,
        "why_not": None if verified else "checkpoint.verify_export is false",
        "model": part("model"),
        "adapter": part("adapter") if adapters else None,
    }
