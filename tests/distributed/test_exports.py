"""What a run exports gives the logits that it measured: for each task, tuning mode and engine.

The run itself compares them, in a fresh process; a combination that it refuses says why.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.export_families import save_base
from support.launches import Finished
from support.tiny_models import MODES

import trainer

TASKS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "classification": ("bert", "AutoModelForMaskedLM", {}, {"builtin": "reviews"}),
    "question_answering": ("bert", "AutoModelForMaskedLM", {}, {"builtin": "passages"}),
    "masked_lm": ("bert", "AutoModelForMaskedLM", {}, {"builtin": "documents"}),
    "causal_lm": (
        "llama",
        "AutoModelForCausalLM",
        {
            "prompt": "{instruction} {input} ",
            "completion": "{output}",
            "generation": {"num_examples": 0},
        },
        {"builtin": "instructions"},
    ),
}
"""Family and class of the base, settings of the task, and source of the rows."""
ENGINES = {"one process": None, "DDP": "cpu-2", "ZeRO-3": "cpu-2-zero3", "FSDP2": "fsdp2"}
"""Launch configuration of each; that of FSDP2 runs on CPUs here."""
FEW = (
    ("masked_lm", "full", "FSDP2"),
    ("causal_lm", "qlora", "ZeRO-3"),
    ("classification", "lora", "DDP"),
)
BOUNDS = {**dict.fromkeys(MODES, 1e-4), "full": 1e-5, "head_only": 1e-5, "int8_lora": 0.25}
"""Of the logits of model/: of merged adapters from the second on, and int8 as its root mean
square."""


def recipe_of(task: str, mode: str, base: Path) -> dict[str, Any]:
    _, _, settings, source = TASKS[task]
    return {
        "model": {"name_or_path": str(base)},
        "tuning": {"mode": mode},
        "task": {"name": task, **settings},
        "data": {"source": {**source, "num_rows": 40}},
        "batch": {"global_batch_size": 8, "micro_batch_size": 4, "max_seq_length": 256},
        "optimizer": {"learning_rate": 1e-2},
        "schedule": {"name": "constant", "steps": 3},
        "precision": "fp32",
        "evaluation": {"baseline": False},
        "tracking": {"trackers": []},
    }


def refusal(task: str, mode: str, engine: str) -> str | None:
    """Returns how the sentence begins by which a combination is refused."""
    if mode == "head_only" and task in ("causal_lm", "masked_lm"):
        return "tuning.mode: head_only needs a head that belongs to the task"
    if engine == "FSDP2" and mode in ("qlora", "int8_lora"):
        return "tuning.mode"
    return None


def cells() -> list[Any]:
    every = [(t, m, e) for t in TASKS for m in MODES for e in ENGINES]
    return [pytest.param(*cell, marks=() if cell in FEW else pytest.mark.slow) for cell in every]


@pytest.mark.distributed
@pytest.mark.parametrize(("task", "mode", "engine"), cells())
def test_the_exported_model_is_the_measured_one(
    task: str,
    mode: str,
    engine: str,
    write_recipe: Any,
    train_here: Callable[..., Finished],
    train_on_two_ranks: Callable[..., Finished],
    tmp_path: Path,
) -> None:
    kind, auto_model = TASKS[task][:2]
    base = save_base(kind, tmp_path / "base", auto_model, max_position_embeddings=512)
    recipe, config = write_recipe(recipe_of(task, mode, base)), ENGINES[engine]
    expected = refusal(task, mode, engine)
    if config is None:
        if expected is not None:
            with pytest.raises(Exception, match=expected):
                train_here(recipe, tmp_path / "run")
            return
        done = train_here(recipe, tmp_path / "run")
    else:
        done = train_on_two_ranks(recipe, tmp_path / "run", config=config)
    status = done.status()
    if expected is not None:
        assert status["message"].startswith(expected), status
        assert status["exit_code"] == 2
        return
    assert status["state"] == "done", done.output
    export = done.results()["export"]
    assert export["verified"], export["why_not"]
    assert export["model"]["difference"] <= BOUNDS[mode]
    assert (export["adapter"] is None) == (mode in ("full", "head_only"))
    shown = {part: export[part]["difference"] for part in ("model", "adapter") if export[part]}
    print(task, mode, engine, shown)  # the table, with -s
    if export["adapter"] is not None and mode != "int8_lora":
        assert export["adapter"]["difference"] <= 1e-5
    if (task, mode, engine) in FEW:  # one process exports the checkpoint of another engine
        dest = trainer.load(done.directory).export(tmp_path / "dest", checkpoint=3, merge=True)
        record = json.loads((dest / "export.json").read_text())
        assert record["verified"], record["why_not"]
        assert record["model"]["difference"] <= BOUNDS[mode]
