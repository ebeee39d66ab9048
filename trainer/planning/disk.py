"""The disk space of a run before it starts: checkpoints, model, prepared data and download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoints.disk_space import CheckpointSize, KeptCheckpoints, kept_checkpoints
from trainer.files.plain import read_json
from trainer.planning.lengths import Lengths
from trainer.recipe.model import Model
from trainer.recipe.schema import Recipe

BYTES_PER_TOKEN = 8
"""Of prepared data that is not in the cache: a token and one more number of four bytes each."""
PUBLISHED_BYTES = {
    "bert-base-uncased": 4,
    "bigscience/bloom-560m": 2,
    "meta-llama/Llama-3.2-1B": 2,
    "microsoft/phi-2": 2,
}
"""Bytes of a weight in the published files of models whose architecture ships."""
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes that a run takes on disks; exports by `trainer export` and trackers are not counted."""

    checkpoint: CheckpointSize
    """Of one checkpoint."""
    kept: KeptCheckpoints
    """How many checkpoints there are at the same time, at most."""
    model: int
    """Of the exported model/."""
    prepared: int | None
    """Of the tokenised splits in the cache; None if the number of examples is unknown."""
    download: int | None
    """Of the weights that are not in the hub's cache yet; None if it is unknown."""
    notes: tuple[str, ...]
    """What is estimated or unknown, a sentence each."""

    @property
    def run_directory(self) -> int:
        """Bytes in the run directory, besides lines of metrics and answers."""
        return self.kept.bytes(self.checkpoint) + self.model

    @property
    def total(self) -> int:
        """Bytes of everything that is known."""
        return self.run_directory + (self.prepared or 0) + (self.download or 0)

    def as_dict(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "run_directory": self.run_directory,
            "checkpoint": self.checkpoint.total,
            "checkpoint_weights": self.checkpoint.weights,
            "resumable_checkpoints": self.kept.resumable,
            "light_checkpoints": self.kept.light,
            "model": self.model,
            "prepared": self.prepared,
            "download": self.download,
            "notes": list(self.notes),
        }


def planned_disk(
    recipe: Recipe,
    lengths: Lengths,
    checkpoint: CheckpointSize,
    *,
    num_parameters: int,
    itemsize: int,
) -> Disk:
    """Returns the disk space of a run.

    `num_parameters` counts the weights of the whole model however they are stored, and `itemsize`
    is the bytes of one in the precision of the run.
    """
    notes: list[str] = []
    prepared = lengths.prepared_bytes
    if prepared is None and lengths.tokens_per_epoch is not None:
        evaluated = (lengths.num_evaluated or 0) * lengths.longest_evaluated
        prepared = BYTES_PER_TOKEN * (lengths.tokens_per_epoch + evaluated)
        notes.append(f"prepared data is estimated with {BYTES_PER_TOKEN} bytes a token")
    elif prepared is None:
        notes.append("the size of the prepared data is unknown until its rows are in the cache")
    download = download_bytes(recipe.model, num_parameters)
    if download is None:
        notes.append("the size of the weights to download is unknown")
    if recipe.data.source.hub is not None and prepared is None:
        notes.append("the rows of the hub are not counted")
    return Disk(
        checkpoint=checkpoint,
        kept=kept_checkpoints(recipe.checkpoint, _num_epochs(recipe, lengths)),
        model=num_parameters * (4 if recipe.tuning.mode == "full" else itemsize),
        prepared=prepared,
        download=download,
        notes=tuple(notes),
    )


def download_bytes(model: Model, num_parameters: int) -> int | None:
    """Returns the bytes of the weights that a run would download: 0 if they are on this machine,
    None if the type of the published weights is unknown.

    Reads the hub's cache and asks no network.
    """
    name = model.name_or_path
    if model.initialization == "random" or name is None or Path(name).is_dir():
        return 0
    if any(_cached(name, file, model.revision) for file in WEIGHTS):
        return 0
    itemsize = PUBLISHED_BYTES.get(name) or _published_itemsize(name, model.revision)
    return None if itemsize is None else itemsize * num_parameters


def _published_itemsize(name: str, revision: str | None) -> int | None:
    config = _cached(name, "config.json", revision)
    try:
        numbers = None if config is None else read_json(config)
    except (OSError, ValueError):
        return None
    if not isinstance(numbers, dict):
        return None
    return DTYPE_BYTES.get(str(numbers.get("dtype") or numbers.get("torch_dtype")))


def _cached(name: str, file: str, revision: str | None) -> Path | None:
    """Returns a file of a hub model in the hub's cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, file, revision=revision)
    except HFValidationError:  # the name cannot be one of the hub
        return None
    return Path(path) if isinstance(path, str) else None


def _num_epochs(recipe: Recipe, lengths: Lengths) -> int:
    """Returns the epochs of the run, begun ones included; 1 if only its steps are known."""
    if recipe.schedule.epochs is not None:
        return recipe.schedule.epochs
    if lengths.num_steps is None or lengths.steps_per_epoch is None:
        return 1
    return -(-lengths.num_steps // lengths.steps_per_epoch)
