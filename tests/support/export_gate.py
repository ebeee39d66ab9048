"""One cell of the export gate: a model tuned in one mode, its logits, and its export."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from support.export_families import TEXTS
from support.paths import program
from support.tiny_models import tuning_of
from torch import Tensor, nn

from trainer.errors import TrainerError
from trainer.models.architecture import build_model_config
from trainer.models.export import export_adapter, export_model
from trainer.models.load import Base, ModelSpec, load_model
from trainer.models.positions import num_positions
from trainer.models.tokenizers.own_tokens import new_tokens
from trainer.models.tokenizers.tokenizer import load_tokenizer, num_rows
from trainer.models.tuning import apply_tuning
from trainer.recipe.model import Model
from trainer.report.card.adapter_card import adapter_card
from trainer.tasks.recipe import Recipe

HEADS = {
    "classification": "AutoModelForSequenceClassification",
    "question_answering": "AutoModelForQuestionAnswering",
    "causal_lm": "AutoModelForCausalLM",
    "masked_lm": "AutoModelForMaskedLM",
}
DATA = {"source": {"builtin": "reviews"}}
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Cell:
    """The logits of a tuned model, and the folders to which it was exported."""

    name: str
    auto_model: str
    folder: Path
    adapter: Path | None
    inputs: list[Inputs]
    logits: list[dict[str, Tensor]]


def export_cell(
    base: Path, folder: Path, task: str, mode: str, *, tokenizer: Path | None = None, **tuning: Any
) -> Cell | str:
    """Returns what was measured of a model after tuning, or the sentence by which it was refused.

    What learns is moved at random, as training moves it, so that it matters that it is exported.
    """
    name = None if tokenizer is None else str(tokenizer)
    settings = Model(name_or_path=str(base), tokenizer=name)
    words = load_tokenizer(settings)
    try:
        shape = build_model_config(settings, words)
        if task == "classification":
            shape.num_labels = 3
        loaded = load_model(
            ModelSpec(
                settings,
                shape,
                auto_model=HEADS[task],
                tokenizer_size=num_rows(words),
                mode=mode,
                frozen_dtype=torch.float32,
                seed=1,
            )
        )
        tuned: Any = apply_tuning(
            loaded,
            tuning_of(mode, r=4, alpha=8, **tuning),
            trains_head=task in ("classification", "question_answering"),
            gradient_checkpointing=False,
            new_tokens=new_tokens(settings, words, shape.vocab_size),
        ).eval()
    except TrainerError as error:
        return str(error)
    move(tuned)
    inputs = batches(words)
    measured = [answer(tuned, one) for one in inputs]
    export_model(tuned, words, folder / "model", num_positions=num_positions(shape))
    adapter = None
    if hasattr(tuned, "peft_config"):
        adapter = folder / "adapter"
        export_adapter(tuned, adapter)
        recipe = Recipe.model_validate(
            {
                "model": {"name_or_path": str(base)},
                "tuning": {"mode": mode},
                "task": {"name": task},
                "data": DATA,
            }
        )
        known = Base(shape.vocab_size, loaded.key_mapping)
        card = adapter_card("gate", recipe, tuned, HEADS[task], known)
        (adapter / "README.md").write_text(card, "utf-8")
    for again, before in zip([answer(tuned, one) for one in inputs], measured, strict=True):
        torch.testing.assert_close(again, before, rtol=0, atol=0)  # the export changes nothing
    return Cell(folder.name, HEADS[task], folder / "model", adapter, inputs, measured)


def move(model: nn.Module) -> None:
    """Changes each trained weight by about its own size, in a large model by a tenth of it."""
    random = torch.Generator().manual_seed(5)
    learned = [one for one in model.parameters() if one.requires_grad]
    with torch.no_grad():
        for parameter in learned:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=random))


def batches(tokenizer: Any) -> list[Inputs]:
    """Returns the shortest text, the longest, and all of them padded."""
    texts = sorted(TEXTS, key=len)
    return [
        dict(tokenizer(some, padding=True, return_tensors="pt"))
        for some in (texts[:1], texts[-1:], texts)
    ]


def answer(model: Any, inputs: Inputs) -> dict[str, Tensor]:
    """Returns the logits of one batch, by their names."""
    with torch.no_grad():
        output = model(**inputs)
    return {name: value.float() for name, value in output.items() if "logits" in name}


def load_afresh(cells: Sequence[Cell], folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the logits that a process without this package gets from the exports, by name."""
    jobs = [
        {
            "name": cell.name,
            "auto_model": cell.auto_model,
            "folder": str(cell.folder),
            "adapter": None if cell.adapter is None else str(cell.adapter),
            "inputs": [{k: v.tolist() for k, v in one.items()} for one in cell.inputs],
        }
        for cell in cells
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = program("load_exports", folder / "jobs.json", folder / "out.json")
    subprocess.run(command, check=True, cwd=folder)
    return json.loads((folder / "out.json").read_text())


def distance(cell: Cell, found: list[dict[str, list[Any]]]) -> float:
    """Returns the largest difference of logits at real tokens, over their standard deviation."""
    worst = 0.0
    for inputs, expected, given in zip(cell.inputs, cell.logits, found, strict=True):
        assert expected.keys() == given.keys()
        for name, value in expected.items():
            other = torch.tensor(given[name])
            assert other.shape == value.shape
            per_token = value.dim() > 1 and value.shape[1] == inputs["input_ids"].shape[1]
            real = inputs["attention_mask"].bool() if per_token else slice(None)
            gap = (other[real] - value[real]).abs().max()
            worst = max(worst, float(gap / value[real].std().clamp(min=1e-3)))
    return worst
