"""The schema of results.json, version 2: what each field means, for readers and for programs."""

import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trainer.tasks.finding import Severity

VERSION = 2
"""Version of results.json. It grows when a field changes its meaning or goes; new ones may come."""

Metrics = dict[str, Any]
"""Name of a metric to its value; `per_class` maps labels to their scores."""
Split = Literal["validation", "test"]
Column = Literal["majority", "baseline", "zero_shot", "best", "final"]


class Part(BaseModel):
    """Base of all parts: unknown fields are refused, so that every field is documented here."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Module(Part):
    name: str
    """Path in the model; 0-15 stands for sixteen modules."""
    type: str
    """Class of the module."""
    repeats: int
    """Number of modules in this line; the counts are those of one."""
    parameters: int
    """Number of weights."""
    trainable: int
    """Number of weights that are trained."""
    shapes: dict[str, list[int]]
    """Shape of each of the module's own weights."""
    arithmetic: str
    """These shapes multiplied out, such as "30,522 x 384"; empty if only children have weights."""


class PartCounts(Part):
    total: int
    trainable: int


class Parameters(Part):
    total: int
    """Number of weights in the model as trained, however they are stored."""
    trainable: int
    """Number of weights that are trained."""
    stored: int
    """Number of elements in memory; two 4-bit weights are one element."""
    backbone: PartCounts
    """Weights of the model without head and adapters; the three parts add up to the model."""
    head: PartCounts
    adapters: PartCounts
    vocabulary: int | None = None
    """Tokens that the model knows; absent if it reads no tokens."""
    modules: list[Module]
    """A line for each module with weights; equal layers are one line."""
    notes: list[str]
    """The sum in words, and why the counts differ from what another tool reports."""


class Overlap(Part):
    exact: int
    """Rows that also occur in the train split."""
    normalised: int
    """The same, if only letters and digits count, in any case."""


class DataSplit(Part):
    rows: int
    """Rows of the source."""
    examples: int
    """Examples made from the rows: windows, blocks or packed sequences where there are any."""
    tokens: int
    """Tokens of all examples, without padding."""
    num_truncated: int
    """Examples that were cut to batch.max_seq_length."""
    longest: int
    """Tokens of the longest example before it was cut."""
    num_skipped: int
    """Rows that were left out because they could not be used."""
    sha256: str | None
    """Digest of the columns read."""
    overlap_with_train: Overlap | None = None
    """Absent for train, and without columns to compare."""


class Learned(Part):
    without_gradient: list[str] | None = None
    """Trainable parameters whose gradient was always 0, with * for all layers; absent with SGD,
    whose state does not tell."""
    zero_adapters: list[str]
    """Adapters whose matrix B is still zero, so that they change nothing."""


class Evaluation(Part):
    epoch: int
    step: int
    train_loss: float | None
    """Mean training loss since the evaluation before."""
    validation: Metrics
    seconds: float
    """Training time since the evaluation before."""
    tokens_per_second: float
    peak_memory_bytes: int
    """Peak memory of the main process since the evaluation before."""


class Measured(Part):
    step: int
    epoch: int
    metrics: dict[str, Metrics]
    """Metrics by split."""


class Seconds(Part):
    total: float
    per_epoch: list[float]
    """Training time of each epoch."""
    evaluation: float


class Interval(Part):
    value: float | None
    low: float | None
    """Lower end of the 95 % interval; null if it is unknown."""
    high: float | None
    method: Literal["Wilson", "bootstrap"] | None


class Comparison(Part):
    metric: str
    before: Column
    after: Column
    difference: float
    """After minus before, in the scale of the metric."""
    low: float | None
    """Lower end of the 95 % interval of the difference."""
    high: float | None
    p: float
    p_adjusted: float
    """p after Holm's correction for all tests of the split."""
    method: str
    """exact McNemar, paired bootstrap or sacrebleu paired bootstrap."""
    num_examples: int
    won: int | None
    """Examples that are right only after; null if examples are not right or wrong."""
    lost: int | None


class SplitStatistics(Part):
    num_examples: int | None
    """Answers; null if the task keeps none."""
    clustered_by: str | None
    """`group` if questions share articles or passages, which are then resampled whole."""
    num_clusters: int | None
    """Number of these articles or passages."""
    majority_is: str | None
    """What the column `majority` answers to everything: `always 'LABEL'` or `never answering`."""
    metrics: dict[str, dict[Column, Interval]]
    tests: list[Comparison]
    detectable: dict[str, float]
    """The smallest difference of each metric that this split could show (5 %, power 80 %)."""


class Churn(Part):
    fixed: int
    """Wrong before training, right after."""
    broken: int
    """Right before training, wrong after."""
    still_wrong: int
    still_right: int


class Confusion(Part):
    labels: list[str]
    counts: list[list[int]]
    """A row for each right label, a column for each predicted one."""


class Bin(Part):
    low: float
    high: float
    count: int
    confidence: float | None
    """Mean confidence of the answers in the bin."""
    accuracy: float | None
    """Share of them that is right."""


class Reliability(Part):
    bins: list[Bin]
    ece: float
    """Expected calibration error: mean distance of confidence and accuracy (Guo et al. 2017)."""


class FacetValue(Part):
    value: str
    count: int
    right: int
    score: float
    """Mean score of the answers, 0 to 1."""


class ThresholdPoint(Part):
    threshold: float
    exact: float
    f1: float


class Thresholds(Part):
    points: list[ThresholdPoint]
    chosen: float
    """The threshold that `exact_at_threshold` and `f1_at_threshold` use."""
    best: float
    """The threshold with the best F1 on this split."""
    best_exact: float
    """The threshold with the best exact match on this split."""


class Failures(Part):
    churn: Churn | None
    """Null without the predictions of the baseline."""
    confusion: Confusion | None
    reliability: Reliability | None
    facets: dict[str, list[FacetValue]]
    """Answers by a property, such as the question word."""
    thresholds: Thresholds | None
    num_examples_shown: int
    """Lines of predictions/examples-SPLIT.jsonl."""


class Diagnosed(Part):
    code: str
    """Name that stays the same when the message changes."""
    message: str
    advice: str
    """What to try."""
    figures: dict[str, float]
    split: str | None
    severity: Severity


class Results(Part):
    """results.json."""

    version: Literal[2]
    recipe: dict[str, Any]
    """The resolved recipe."""
    summary: str
    """What happened, in a paragraph made of the numbers below."""
    parameters: Parameters
    data: dict[str, DataSplit]
    """What each split held."""
    baseline: dict[str, Metrics]
    """Metrics by split before the first step."""
    baseline_is: Literal["pretrained", "untrained head", "random weights"]
    zero_shot: dict[str, Metrics] | None = None
    """Metrics by split of the prompted pretrained model; absent without task.zero_shot."""
    epochs: list[Evaluation]
    """Every evaluation after the baseline."""
    best: Measured
    """The best step by evaluation.metric on validation."""
    final: Measured
    """The last step."""
    model: Literal["best", "final"]
    """Which of the two model/ holds."""
    statistics: dict[Split, SplitStatistics]
    """What the metrics are worth: intervals, tests, and the smallest difference to be seen."""
    failures: dict[Split, Failures]
    """Which answers of model/ are wrong."""
    diagnosis: list[Diagnosed]
    """Where numbers cannot be right, or mean less than they seem to; the worst first."""
    learned: Learned
    seconds: Seconds
    peak_memory_bytes: int
    """The largest of all processes."""
    processes: int
    precision: Literal["fp32", "bf16", "fp16"]
    skipped_steps: int
    """Steps that fp16 loss scaling left out."""
    scales: dict[str, str]
    """Range of each metric, `0-1` or `0-100`."""
    environment: dict[str, Any]
    """environment.json; its `sessions` are the start and each resumption, with `started`, `step`,
    `command`, `processes`, `host`, `ended` and, with pynvml, `energy_joules`."""
    warnings: list[str]
    """Notes on data and model, and the findings of the diagnosis, as sentences."""
    checksum: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the other fields, by which an edit is noticed."""


def schema_text() -> str:
    """Returns the JSON schema, as results.schema.json holds it."""
    return json.dumps(Results.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def field_table() -> str:
    """Returns a Markdown table of every field, dotted, with its meaning."""
    rows = [f"| `{path}` | {meaning} |" for path, meaning in _fields(Results, "")]
    return "\n".join(["| field | meaning |", "|---|---|", *rows])


def _fields(part: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in part.model_fields.items():
        yield prefix + name, " ".join((field.description or "").split()).replace("|", "\\|")
        for inner, kind in _inside(field.annotation, ""):
            yield from _fields(inner, f"{prefix}{name}{kind}.")


def _inside(annotation: Any, kind: str) -> Iterator[tuple[type[BaseModel], str]]:
    """Yields the parts inside a type, with [] for each list and .* for each mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, kind
        return
    arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
    origin = getattr(annotation, "__origin__", None)
    added = "[]" if origin is list else ".*" if origin is dict else ""
    for argument in arguments:
        yield from _inside(argument, kind + added)
