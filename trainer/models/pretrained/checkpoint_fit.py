"""Compares a checkpoint's names, shapes and labels with a model before its weights are loaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainer.errors import ConfigError
from trainer.models.architecture import stored_config
from trainer.models.pretrained import head_labels
from trainer.models.pretrained.model_folder import shown
from trainer.models.pretrained.weights import (
    Backbone,
    Names,
    check_backbone,
    check_head,
    key_mapping_of,
    modules_of,
)
from trainer.models.structure import head_modules
from trainer.recipe.model import Model
from trainer.wording import excerpt

OWN_HEAD = ("AutoModelForSequenceClassification", "AutoModelForQuestionAnswering")
"""Classes whose head belongs to a task, and is not the vocabulary."""


@dataclass(frozen=True)
class Checkpoint:
    """What names and shapes in a checkpoint say about loading it."""

    model: Any
    """On the meta device."""
    names: Names
    key_mapping: dict[str, str] | None
    head: tuple[str, ...]
    renewed: bool
    """Whether a new head is drawn, although the checkpoint may hold one."""
    rows: list[int] | None
    """The row of the head in the checkpoint for each label; None if the order is the same."""
    fresh: tuple[str, ...]
    notes: tuple[str, ...]


def look_at_checkpoint(
    auto: Any,
    model: Model,
    model_config: Any,
    read: Callable[[dict[str, str] | None], tuple[Any, dict[str, Any]]],
    prefixes: Sequence[str],
) -> Checkpoint:
    """Returns what loading needs to know; raises ConfigError for a checkpoint that does not fit.

    `read` loads onto the meta device with a key mapping, and returns the model and transformers'
    loading info; `prefixes` are what the class, the backbone itself and span heads call a backbone.
    """
    name, notes = str(model.name_or_path), list[str]()
    own, *others = prefixes
    # Span heads of Llama and others call it `transformer`, and all their other models `model`.
    same = {rf"^{other}\.": f"{own}." for other in others if own and other and other != own}
    mapping = same or None

    def look() -> tuple[Any, Names]:
        made, info = read(mapping)
        return made, Names.of(info)

    made, names = look()
    head = head_modules(made)
    dotted = dict.fromkeys(f"{one}." for one in prefixes if one)
    backbone = Backbone(made, head, tuple(dotted))
    wrappers, taken_off = key_mapping_of(backbone, names)
    if wrappers:
        mapping = {**wrappers, **same}
        made, names = look()
        backbone = replace(backbone, model=made)
        notes.append(f"the weights of {shown(name)} were saved with {taken_off} in their names")
    check_backbone(backbone, names, name)

    of_head = {key for key, _ in made.named_parameters() if not backbone.holds(key)}
    stored = stored_config(model)
    if hasattr(stored, "auto_map"):
        notes.append(
            f"{shown(name)} brings its own code (auto_map), which is never run: its classes are "
            f"those of transformers"
        )
    classifies = auto.__name__ == "AutoModelForSequenceClassification"
    deciding = of_head
    if classifies:  # the layers before the labels may come from a masked language model
        deciding = {key for key, _ in head_labels.rows_of_labels(made.config, auto)} or of_head
    has_head = not deciding <= names.missing
    renewed = model.fresh_head and auto.__name__ in OWN_HEAD  # not the language model of zero-shot
    if has_head and not renewed and classifies and head_labels.is_of_another_task(stored):
        renewed = True
        kind = excerpt(stored.architectures[0])
        notes.append(
            f"the head of {shown(name)}, a {kind}, is for another task; a new one is drawn"
        )
    rows = None
    if has_head and not renewed:
        _check_head_sizes(names, name, classifies=classifies)
        check_head(backbone, names, name)
        if classifies:
            labels = [str(model_config.id2label[row]) for row in range(model_config.num_labels)]
            rows, said = head_labels.order_of_rows(
                stored, labels, name, by_position=model.head_labels == "position"
            )
            notes += said
    fresh = names.missing | (of_head if renewed else set())
    return Checkpoint(made, names, mapping, head, renewed, rows, modules_of(fresh), tuple(notes))


def _check_head_sizes(names: Names, name: str, *, classifies: bool) -> None:
    """Raises ConfigError for a head of another size, such as one for another number of labels."""
    for key, stored, needed in names.mismatched:
        what = "give as many labels" if classifies else "name a model without this head"
        raise ConfigError(
            f"model.name_or_path: {key} of {shown(name)} is {list(stored)} and this task needs "
            f"{list(needed)}",
            key="model.name_or_path",
            hint=f"{what}, or set model.fresh_head: true for a new head",
        )
