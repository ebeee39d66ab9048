"""What a report reads of results.json, as every version of this package wrote it."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import RunDirectoryError


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Model(_Part):
    name_or_path: str | None = None
    initialization: str


class _Tuning(_Part):
    mode: str


class _Task(_Part):
    name: str


class _Evaluation(_Part):
    metric: str
    mode: str


class _Data(_Part):
    source: dict[str, Any]


class _Recipe(_Part):
    model: _Model
    tuning: _Tuning
    task: _Task
    evaluation: _Evaluation
    optimizer: dict[str, Any]
    data: _Data = _Data(source={})
    batch: dict[str, Any] = {}


class _Counts(_Part):
    total: int
    trainable: int
    stored: int


class _ClassScores(_Part):
    support: int
    predicted: int


class _Metrics(_Part):
    per_class: dict[str, _ClassScores] = {}


class _Evaluated(_Part):
    epoch: int
    step: int
    train_loss: float | None
    validation: _Metrics
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int


class _Measured(_Part):
    step: int
    metrics: dict[str, _Metrics]


class _Seconds(_Part):
    total: float
    per_epoch: list[float] = []
    evaluation: float = 0.0


class _PlannedMemory(_Part):
    planned: int | None
    measured: int | None


class _PlannedSeconds(_Part):
    planned: tuple[float, float] | None = Field(strict=False)
    measured: float


class _Plan(_Part):
    memory: _PlannedMemory
    seconds: _PlannedSeconds


class _Results(_Part):
    recipe: _Recipe
    parameters: _Counts
    baseline: dict[str, _Metrics]
    baseline_is: str
    zero_shot: dict[str, _Metrics] | None = None
    epochs: list[_Evaluated]
    best: _Measured
    final: _Measured
    model: Literal["best", "final"]
    seconds: _Seconds
    peak_memory_bytes: int
    plan: _Plan | None = None
    processes: int
    precision: str
    skipped_steps: int
    scales: dict[str, str]
    warnings: list[str]


def check_results(file: Path, results: dict[str, Any]) -> None:
    """Raises RunDirectoryError, which names the first wrong key, unless a run, by any version, can
    have written these results to `file`."""
    try:
        _Results.model_validate(results)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise RunDirectoryError(
            f"{file} has no {key} as a run writes it",
            key=str(file),
            value=key,
            hint="restore it, or train the run again",
        ) from error
