"""Matches the rows of a pretrained classification head with the task's labels."""

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch

from trainer.errors import ConfigError
from trainer.models.pretrained.model_folder import shown
from trainer.wording import listed

OTHER_TASKS = ("ForTokenClassification", "ForMultipleChoice")
"""Suffixes of transformers classes whose head has the same module name as a text classifier's."""


def is_of_another_task(stored: Any) -> bool:
    """Returns whether the head of a stored model classifies tokens or choices instead of texts."""
    classes = [str(name) for name in getattr(stored, "architectures", None) or []]
    return any(name.endswith(OTHER_TASKS) for name in classes) and not any(
        name.endswith("ForSequenceClassification") for name in classes
    )


def stored_labels(stored: Any) -> list[str]:
    """Returns the labels in a configuration, in the order of the head's rows.

    Empty if its id2label is absent or does not number them from 0.
    """
    by_row = getattr(stored, "id2label", None)
    by_row = dict(by_row) if isinstance(by_row, dict) else {}
    if set(by_row) != set(range(len(by_row))):
        return []
    return [str(by_row[row]) for row in range(len(by_row))]


def order_of_rows(
    stored: Any, labels: Sequence[str], name: str, *, by_position: bool
) -> tuple[list[int] | None, list[str]]:
    """Returns the head's row for each of the `labels`, None if they are in order, and notes.

    Labels are matched by name, first with case and then without. Generic names, such as LABEL_0 or
    0 for the first, are matched by position, whether the model or the task uses them. With
    `by_position` all names are. Raises ConfigError, with both lists, if the names differ.
    """
    known, notes = stored_labels(stored), list[str]()
    if getattr(stored, "problem_type", None) in ("regression", "multi_label_classification"):
        notes.append(
            f"the head of {shown(name)} was trained for {stored.problem_type}; it is trained "
            f"further as a classifier with one label per example"
        )
    if by_position:
        return None, notes
    for normalize in (str, str.casefold):
        rows = {normalize(label).strip(): row for row, label in enumerate(known)}
        wanted = [normalize(label).strip() for label in labels]
        if len(rows) == len(known) and len(set(wanted)) == len(wanted) and set(rows) == set(wanted):
            order = [rows[label] for label in wanted]
            if order == list(range(len(order))):
                return None, notes
            notes.append(
                f"the labels of the head of {shown(name)} are {listed(known)}; its rows were "
                f"reordered to {listed(labels)}"
            )
            return order, notes
    if _are_generic(known) or _are_generic(labels):
        notes.append(
            f"labels were matched by position: those of the head of {shown(name)} are "
            f"{listed(known)}, those of the task {listed(labels)}"
        )
        return None, notes
    expected = listed(known) or "its id2label does not number them from 0"
    change = "set task.labels to these, " if known else ""
    raise ConfigError(
        f"task.labels: {listed(labels)} are not those of the head of {shown(name)}: {expected}",
        key="task.labels",
        value=list(labels),
        hint=f"{change}set model.fresh_head: true for a new head, or "
        "model.head_labels: position if only the names differ",
    )


@torch.no_grad()
def arrange_rows(model: Any, auto: Any, order: list[int]) -> None:
    """Reorders a classification head, in every weight with one row per label: row i becomes the
    former row `order[i]`."""
    for name, axis in rows_of_labels(model.config, auto):
        weight = model.get_parameter(name)
        index = torch.tensor(order, device=weight.device)
        weight.data = weight.data.index_select(axis, index)


def rows_of_labels(model_config: Any, auto: Any) -> list[tuple[str, int]]:
    """Returns the names of the weights with one row per label, and the axis of the rows in each.

    They are found by comparing with the shapes of a model that has one label more.
    """
    shapes: list[dict[str, torch.Size]] = []
    for num_labels in (model_config.num_labels, model_config.num_labels + 1):
        config = copy.deepcopy(model_config)
        config.num_labels = num_labels
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.device("meta"):
            model = auto.from_config(config, trust_remote_code=False)
        shapes.append({name: weight.shape for name, weight in model.named_parameters()})
    return [
        (name, axis)
        for name, shape in shapes[0].items()
        for axis, (size, size_with_one_more) in enumerate(zip(shape, shapes[1][name], strict=True))
        if size != size_with_one_more
    ]


@torch.no_grad()
def renew(model: Any, shapes: Any, head: Sequence[str], seed: int) -> None:
    """Draws new weights for the modules `head` of a loaded model, by transformers' own rules.

    `shapes` is the same model, possibly on the meta device, whose head has the task's size.
    """
    for name in head:
        # transformers 5.17 gives a quantised model the checkpoint's head even if its size differs.
        for key, weight in shapes.get_submodule(name).named_parameters(prefix=name):
            drawn = model.get_parameter(key)
            if drawn.shape != weight.shape:
                drawn.data = drawn.new_empty(weight.shape)
    torch.manual_seed(seed)
    for name in head:
        module = model.get_submodule(name)
        for part in (*module.modules(), *module.parameters()):
            vars(part).pop("_is_hf_initialized", None)  # _init_weights skips what has this mark
        module.apply(model._init_weights)


def _are_generic(labels: Sequence[str]) -> bool:
    """Returns whether labels only number the classes: LABEL_0, LABEL_1, … or 0, 1, …"""
    return bool(labels) and all(
        re.fullmatch(rf"(?:label|class)?[ _-]?0*{row}", label.strip(), re.IGNORECASE)
        for row, label in enumerate(labels)
    )
