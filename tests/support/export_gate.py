"""One cell of the export gate: a model tuned in one mode, its logits, and its export."""

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from support.export_families import TEXTS
from support.paths import program
from support.tiny_models import tuning_of
from torch import Tensor, nn

from trainer.errors import TrainerError
from trainer.exports import fresh_process
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
Logits = dict[str, Tensor]


@dataclass(frozen=True)
class Cell:
    """The logits of a tuned model, and the folders to which it was exported."""

    name: str
    auto_model: str
    folder: Path
    adapter: Path | None
    inputs: list[Inputs]
    logits: list[Logits]
    pad_token_ids: dict[str, int | None]
    texts: list[tuple[str, list[int]]]


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
    return Cell(
        name=folder.name,
        auto_model=HEADS[task],
        folder=folder / "model",
        adapter=adapter,
        inputs=inputs,
        logits=measured,
        pad_token_ids={
            "config.json": tuned.config.pad_token_id,
            "the tokenizer": words.pad_token_id,
        },
        texts=[(text, list(words(text)["input_ids"])) for text in TEXTS],
    )


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


def answer(model: Any, inputs: Inputs) -> Logits:
    """Returns the logits of one batch, by their names."""
    with torch.no_grad():
        output = model(**inputs)
    return {name: value.float() for name, value in output.items() if "logits" in name}


def load_afresh(cells: Sequence[Cell], folder: Path) -> dict[str, tuple[list[str], Logits]]:
    """Returns, by name, what a process without this package finds wrong with the exports, and the
    logits that it gets, by "model.batch.name" and "adapter.batch.name"."""
    out = folder / "answers"
    out.mkdir()
    jobs: list[dict[str, Any]] = []
    for cell in cells:
        inputs = {f"{n}.{k}": v for n, one in enumerate(cell.inputs) for k, v in one.items()}
        inputs |= {f"{n}:positions": real_tokens(one) for n, one in enumerate(cell.inputs)}
        save_file(inputs, out / f"{cell.name}.inputs")
        jobs.append({**job_of(cell), "inputs": str(out / f"{cell.name}.inputs")})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = program("load_exports", fresh_process.__file__, folder / "jobs.json", out)
    subprocess.run(command, check=True, cwd=folder)
    findings = json.loads((out / "findings.json").read_text())
    return {
        name: (
            found["problems"] + found["adapter_problems"],
            load_file(out / f"{name}.safetensors"),
        )
        for name, found in findings.items()
    }


def job_of(cell: Cell) -> dict[str, Any]:
    adapter = None
    if cell.adapter is not None:
        code = re.search(
            r"```python\n(.*?)```", (cell.adapter / "README.md").read_text(), re.DOTALL
        )
        assert code is not None
        adapter = {"folder": str(cell.adapter), "code": code[1]}
    return {
        "name": cell.name,
        "auto_model": cell.auto_model,
        "folder": str(cell.folder),
        "adapter": adapter,
        "registration": None,
        "labels": None,
        "pad_token_ids": cell.pad_token_ids,
        "ends": [],
        "texts": cell.texts,
        "chat_template": None,
        "batches": [
            {
                "arguments": list(inputs),
                "outputs": {k: is_per_token(v, inputs) for k, v in one.items()},
            }
            for inputs, one in zip(cell.inputs, cell.logits, strict=True)
        ],
        "usage": None,
    }


def real_tokens(inputs: Inputs) -> Tensor:
    """Returns the positions in the flattened batch that are not padding."""
    return inputs["attention_mask"].flatten().nonzero().flatten()


def is_per_token(logits: Tensor, inputs: Inputs) -> bool:
    return logits.dim() > 1 and logits.shape[1] == inputs["input_ids"].shape[1]


def distance(cell: Cell, part: str, found: Logits) -> float:
    """Returns the largest difference of logits at real tokens, over their standard deviation."""
    worst = 0.0
    for number, (inputs, expected) in enumerate(zip(cell.inputs, cell.logits, strict=True)):
        for name, value in expected.items():
            other = found[f"{part}.{number}.{name}"]
            if is_per_token(value, inputs):
                value = value.flatten(0, 1)[real_tokens(inputs)]
            assert other.shape == value.shape
            gap = (other - value).abs().max()
            worst = max(worst, float(gap / value.std().clamp(min=1e-3)))
    return worst
