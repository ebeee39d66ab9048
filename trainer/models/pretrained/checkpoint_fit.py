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

WITH_TASK_HEAD = ("AutoModelForSequenceClassification", "AutoModelForQuestionAnswering")
"""Auto classes whose head belongs to the task; that of a language model is the vocabulary."""


@dataclass(frozen=True)
class CheckpointFit:
    """How a checkpoint fits the model that is loaded from it."""

    model: Any
    """The model on the meta device."""
    names: Names
    key_mapping: dict[str, str] | None
    """Patterns of names in the checkpoint, and what replaces them in the model."""
    head: tuple[str, ...]
    """Names of the modules of the head."""
    renewed: bool
    """Whether a new head is drawn even if the checkpoint contains one."""
    rows: list[int] | None
    """The checkpoint's row of the head for each label; None if they are in order."""
    fresh: tuple[str, ...]
    """Names of the modules that have no weights in the checkpoint."""
    notes: tuple[str, ...]


def compare_with_checkpoint(
    auto: Any,
    model: Model,
    model_config: Any,
    read: Callable[[dict[str, str] | None], tuple[Any, dict[str, Any]]],
    prefixes: Sequence[str],
) -> CheckpointFit:
    """Returns how a checkpoint fits; raises ConfigError if it does not.

    `read` loads the model onto the meta device with a key mapping, and returns it with
    transformers' loading info. `prefixes` are the names of the backbone in the class `auto`, in
    checkpoints of the backbone alone, and in models with a span head.
    """
    name, notes = str(model.name_or_path), list[str]()
    own, *others = prefixes
    # A span head of Llama calls its backbone `transformer`; all other Llama classes, `model`.
    renaming = {rf"^{other}\.": f"{own}." for other in others if own and other and other != own}
    key_mapping = renaming or None
    loaded, names = _read_names(read, key_mapping)
    head = head_modules(loaded)
    dotted = dict.fromkeys(f"{prefix}." for prefix in prefixes if prefix)
    backbone = Backbone(loaded, head, tuple(dotted))
    wrappers, removed = key_mapping_of(backbone, names)
    if wrappers:
        key_mapping = {**wrappers, **renaming}
        loaded, names = _read_names(read, key_mapping)
        backbone = replace(backbone, model=loaded)
        notes.append(f"{removed} was removed from the names of the weights of {shown(name)}")
    check_backbone(backbone, names, name)

    head_weights = {key for key, _ in loaded.named_parameters() if not backbone.holds(key)}
    stored = stored_config(model)  # `model_config` already has the values of the task
    if hasattr(stored, "auto_map"):
        notes.append(
            f"{shown(name)} brings its own code (auto_map), which is never run: transformers' own "
            f"classes are used"
        )
    is_classifier = auto.__name__ == "AutoModelForSequenceClassification"
    deciding = head_weights
    if is_classifier:  # layers before the one with the labels exist in masked language models too
        rows_of_labels = head_labels.rows_of_labels(loaded.config, auto)
        deciding = {key for key, _ in rows_of_labels} or head_weights
    has_head = not deciding <= names.missing
    # The language model of zero-shot evaluation keeps its head.
    renewed = model.fresh_head and auto.__name__ in WITH_TASK_HEAD
    if has_head and not renewed and is_classifier and head_labels.is_of_another_task(stored):
        renewed = True
        kind = excerpt(stored.architectures[0])
        notes.append(
            f"the head of {shown(name)}, a {kind}, is for another task; a new head is drawn"
        )
    rows = None
    if has_head and not renewed:
        _check_head_sizes(names, name, is_classifier=is_classifier)
        check_head(backbone, names, name)
        if is_classifier:
            labels = [str(model_config.id2label[row]) for row in range(model_config.num_labels)]
            rows, notes_on_labels = head_labels.order_of_rows(
                stored, labels, name, by_position=model.head_labels == "position"
            )
            notes += notes_on_labels
    fresh = modules_of(names.missing | (head_weights if renewed else set()))
    return CheckpointFit(loaded, names, key_mapping, head, renewed, rows, fresh, tuple(notes))


def _read_names(
    read: Callable[[dict[str, str] | None], tuple[Any, dict[str, Any]]],
    key_mapping: dict[str, str] | None,
) -> tuple[Any, Names]:
    loaded, info = read(key_mapping)
    return loaded, Names.of(info)


def _check_head_sizes(names: Names, name: str, *, is_classifier: bool) -> None:
    """Raises ConfigError if the head has another size, as for another number of labels."""
    for key, stored, needed in names.mismatched:
        fix = "give as many labels" if is_classifier else "name a model without this head"
        raise ConfigError(
            f"model.name_or_path: {key} of {shown(name)} is {list(stored)} and this task needs "
            f"{list(needed)}",
            key="model.name_or_path",
            value=name,
            hint=f"{fix}, or set model.fresh_head: true for a new head",
        )
