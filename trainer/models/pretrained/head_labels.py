"""Matches the rows of a pretrained classification head with the labels of the task."""

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch

from trainer.errors import ConfigError
from trainer.models.pretrained.model_folder import shown
from trainer.wording import listed

OTHER_TASKS = ("ForTokenClassification", "ForMultipleChoice")
"""Classes of transformers whose head is named like that of a text classifier."""


def is_of_another_task(stored: Any) -> bool:
    """Returns whether the head of a stored model classifies tokens or choices, not texts."""
    classes = [str(one) for one in getattr(stored, "architectures", None) or []]
    return any(one.endswith(OTHER_TASKS) for one in classes) and not any(
        one.endswith("ForSequenceClassification") for one in classes
    )


def stored_labels(stored: Any) -> list[str]:
    """Returns the labels of a configuration in the order of its head's rows; empty without."""
    by_row = getattr(stored, "id2label", None)
    by_row = dict(by_row) if isinstance(by_row, dict) else {}
    return (
        [str(by_row[row]) for row in sorted(by_row)]
        if set(by_row) == set(range(len(by_row)))
        else []
    )


def order_of_rows(
    stored: Any, labels: Sequence[str], name: str, *, by_position: bool
) -> tuple[list[int] | None, list[str]]:
    """Returns the row of a head for each label, None if the order is the same, and notes.

    Labels are compared by name, first with their case and then without. Names that mean nothing
    (LABEL_0, or numbers from 0, in the model or in the data) are matched by position, as all names
    are with `by_position`. Raises ConfigError, with both lists, if the names differ.
    """
    known, notes = stored_labels(stored), list[str]()
    if getattr(stored, "problem_type", None) in ("regression", "multi_label_classification"):
        notes.append(
            f"the head of {shown(name)} was trained for {stored.problem_type}; it "
            f"continues as a classifier with one label per example"
        )
    if by_position:
        return None, notes
    for plain in (str, str.casefold):
        rows = {plain(label).strip(): row for row, label in enumerate(known)}
        wanted = [plain(label).strip() for label in labels]
        if len(rows) == len(known) and len(set(wanted)) == len(wanted) and set(rows) == set(wanted):
            order = [rows[label] for label in wanted]
            if order == list(range(len(order))):
                return None, notes
            notes.append(
                f"the head of {shown(name)} knows the labels as {listed(known)}; its rows were "
                f"put into the order {listed(labels)}"
            )
            return order, notes
    if _say_nothing(known) or _say_nothing(labels):
        notes.append(
            f"labels by position: the head of {shown(name)} calls them {listed(known)}, the task "
            f"{listed(labels)}"
        )
        return None, notes
    theirs = listed(known) or "an id2label that does not number them from 0"
    raise ConfigError(
        f"task.labels: {listed(labels)} are not those of the head of {shown(name)}: {theirs}",
        key="task.labels",
        hint="set task.labels to these, model.fresh_head: true for a new head, or "
        "model.head_labels: position if only the names differ",
    )


@torch.no_grad()
def arrange_rows(model: Any, auto: Any, order: list[int]) -> None:
    """Reorders the rows of a classification head, in every weight that depends on num_labels."""
    for name, axis in rows_of_labels(model.config, auto):
        weight = model.get_parameter(name)
        index = torch.tensor(order, device=weight.device)
        weight.data = weight.data.index_select(axis, index)


def rows_of_labels(model_config: Any, auto: Any) -> list[tuple[str, int]]:
    """Returns the weights that have a row for each label, by name, with the axis of the rows."""
    shapes: list[dict[str, torch.Size]] = []
    for count in (model_config.num_labels, model_config.num_labels + 1):
        other = copy.deepcopy(model_config)
        other.num_labels = count
        if hasattr(other, "quantization_config"):
            del other.quantization_config
        with torch.device("meta"):
            built = auto.from_config(other, trust_remote_code=False)
        shapes.append({name: one.shape for name, one in built.named_parameters()})
    return [
        (name, axis)
        for name, shape in shapes[0].items()
        for axis, (few, many) in enumerate(zip(shape, shapes[1][name], strict=True))
        if few != many
    ]


@torch.no_grad()
def renew(model: Any, head: Sequence[str], seed: int) -> None:
    """Draws new weights for the modules `head` of a loaded model, as transformers does."""
    torch.manual_seed(seed)
    for name in head:
        module = model.get_submodule(name)
        for part in (*module.modules(), *module.parameters()):
            vars(part).pop("_is_hf_initialized", None)  # which would spare loaded weights
        module.apply(model._init_weights)


def _say_nothing(labels: Sequence[str]) -> bool:
    """Returns whether names mean nothing: LABEL_0, LABEL_1 or 0, 1, in this order."""
    return bool(labels) and all(
        re.fullmatch(rf"(?:label|class)?[ _-]?0*{row}", label.strip(), re.IGNORECASE)
        for row, label in enumerate(labels)
    )
