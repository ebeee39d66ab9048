"""The parameters of a built model by module and by part, with the arithmetic of each number."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from trainer.models.parameters import num_weights
from trainer.models.structure import backbone_weights, head_modules, plain_model
from trainer.planning.outline import outline

ADAPTERS = (".lora_", ".trainable_tokens_")
"""What is in the name of every parameter of an adapter."""


def breakdown(model: nn.Module, mode: str) -> dict[str, Any]:
    """Returns the parameters of a model under adapters or without, as plain JSON values.

    `modules` holds a row for each module, repeated layers folded into one with the counts of one
    repeat. `backbone`, `head` and `adapters` hold the `total` and the `trainable` parameters of
    each part and add up to the model's; `notes` says so in words. `vocabulary` is the number of
    tokens that the model knows, if it reads tokens. `mode` is the tuning mode.
    """
    plain = plain_model(model)
    parts = _parts(plain)
    names = [name for name, _ in plain.named_parameters()]
    vocabulary = getattr(plain.config.get_text_config(), "vocab_size", None)
    absent = backbone_weights(plain) if not any("pooler" in name for name in names) else ()
    return {
        **parts,
        **({} if vocabulary is None else {"vocabulary": vocabulary}),
        "modules": module_rows(plain),
        "notes": [_sum(parts), *notes_on_counts(mode, names, absent)],
    }


def module_rows(model: nn.Module, *, full: bool = False) -> list[dict[str, Any]]:
    """Returns a record of each module with weights, followed by those of its children.

    A repeated module has the counts of one repeat. `arithmetic` multiplies out the shapes of the
    module's own weights, such as "30,522 x 384"; it is empty if only its children have weights.
    """
    return [
        {
            "name": row.name,
            "type": row.module.kind,
            "repeats": row.repeats,
            "shapes": {weight.name: list(weight.shape) for weight in row.module.weights},
            "parameters": row.module.parameters,
            "trainable": row.module.trainable,
            "arithmetic": " + ".join(_product(weight.shape) for weight in row.module.weights),
        }
        for row in outline(model, full=full)
    ]


def notes_on_counts(mode: str, names: Iterable[str], absent: Iterable[str]) -> list[str]:
    """Returns what a reader of a model's counts should know, a sentence each.

    `names` are those of its parameters, and `absent` those that its backbone has by itself and the
    model lacks.
    """
    notes: list[str] = []
    if mode == "qlora":
        notes.append(
            "stored counts two 4-bit weights as one element; total is the number of weights; the "
            "scales of 4-bit blocks, about 0.13 bits a weight, are not counted"
        )
    if any(".modules_to_save." in name for name in names):
        notes.append("the head counts twice: the frozen original, and the copy that is trained")
    if any("pooler" in name for name in absent):
        notes.append("the model has no pooler: its head reads every token")
    return notes


def _parts(model: Any) -> dict[str, dict[str, int]]:
    """Returns total and trainable parameters of backbone, head and adapters; a tied weight counts
    in the first module that has it."""
    parts = {name: {"total": 0, "trainable": 0} for name in ("backbone", "head", "adapters")}
    head = head_modules(model)
    for name, parameter in model.named_parameters():
        kind = "head" if name.partition(".")[0] in head else "backbone"
        part = parts["adapters" if any(mark in name for mark in ADAPTERS) else kind]
        part["total"] += num_weights(parameter)
        part["trainable"] += parameter.numel() * parameter.requires_grad
    return parts


def _sum(parts: dict[str, dict[str, int]]) -> str:
    totals = {name: part["total"] for name, part in parts.items() if part["total"]}
    terms = " + ".join(f"{total:,} ({name})" for name, total in totals.items())
    return f"{sum(totals.values()):,} parameters = {terms}"


def _product(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in shape) or "1"
