"""The schema of results.json, version 2: what each field means, for readers and for programs."""

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
    """Number of weights."""
    trainable: int
    """Number of those that are trained."""


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
    """Weights of the task's head."""
    adapters: PartCounts
    """Weights of LoRA's adapters."""
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
    """Examples made from the rows, such as windows, blocks or packed sequences."""
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
    """Epoch, from 1."""
    step: int
    """Optimizer steps taken."""
    train_loss: float | None
    """Mean training loss since the evaluation before."""
    validation: Metrics
    """Metrics of the validation split."""
    seconds: float
    """Training time since the evaluation before."""
    tokens_per_second: float
    """Training tokens, without padding, per second of training."""
    peak_memory_bytes: int
    """Peak memory of the main process since the evaluation before."""


class Measured(Part):
    step: int
    """Optimizer steps taken."""
    epoch: int
    """Epoch, from 1."""
    metrics: dict[str, Metrics]
    """Metrics by split."""


class Seconds(Part):
    total: float
    """Training and evaluation."""
    per_epoch: list[float]
    """Training time of each epoch."""
    evaluation: float
    """All evaluations, the baseline included."""


class Interval(Part):
    value: float | None
    """The metric, in its scale."""
    low: float | None
    """Lower end of the 95 % interval; null if it is unknown."""
    high: float | None
    """Upper end of the interval."""
    method: Literal["Wilson", "bootstrap"] | None
    """How the interval was computed."""


class Comparison(Part):
    metric: str
    """Name of the metric."""
    before: Column
    """Column that it is compared with."""
    after: Column
    """Column of the exported model."""
    difference: float
    """After minus before, in the scale of the metric."""
    low: float | None
    """Lower end of the 95 % interval of the difference."""
    high: float | None
    """Upper end of the interval of the difference."""
    p: float
    """Two-sided p-value of the test."""
    p_adjusted: float
    """p after Holm's correction for all tests of the split."""
    method: str
    """exact McNemar, paired bootstrap or sacrebleu paired bootstrap."""
    num_examples: int
    """Examples that both answered."""
    won: int | None
    """Examples that are right only after; null if examples are not right or wrong."""
    lost: int | None
    """Examples that are right only before."""


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
    """Name of a metric to column (`majority`, `baseline`, `zero_shot`, `best`, `final`) to
    estimate."""
    tests: list[Comparison]
    """Tests of the exported model against other columns, on the same examples."""
    detectable: dict[str, float]
    """The smallest difference of each metric that this split could show (5 %, power 80 %)."""


class Churn(Part):
    fixed: int
    """Wrong before training, right after."""
    broken: int
    """Right before training, wrong after."""
    still_wrong: int
    """Wrong before and after."""
    still_right: int
    """Right before and after."""


class Confusion(Part):
    labels: list[str]
    """Labels, the rare ones of more than 50 gathered in (other)."""
    counts: list[list[int]]
    """A row for each right label, a column for each predicted one."""


class Bin(Part):
    low: float
    """Lowest confidence of the bin."""
    high: float
    """Highest confidence of the bin."""
    count: int
    """Number of answers in the bin."""
    confidence: float | None
    """Mean confidence of the answers in the bin."""
    accuracy: float | None
    """Share of them that is right."""


class Reliability(Part):
    bins: list[Bin]
    """Ten bins of equal width."""
    ece: float
    """Expected calibration error: mean distance of confidence and accuracy (Guo et al. 2017)."""


class FacetValue(Part):
    value: str
    """Value of the property, such as `who`."""
    count: int
    """Answers with this value."""
    right: int
    """Those of them that are right."""
    score: float
    """Mean score of the answers, 0 to 1."""


class ThresholdPoint(Part):
    threshold: float
    """Answers whose probability of having none is above it count as no answer."""
    exact: float
    """Exact match at this threshold, 0 to 100."""
    f1: float
    """F1 at this threshold, 0 to 100."""


class Thresholds(Part):
    points: list[ThresholdPoint]
    """At most 200 thresholds, with their scores."""
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
    """Null if the task has no classes."""
    reliability: Reliability | None
    """Null if answers have no probability."""
    facets: dict[str, list[FacetValue]]
    """Answers by a property, such as the question word."""
    thresholds: Thresholds | None
    """Null if no answer can be refused."""
    num_examples_shown: int
    """Lines of predictions/examples-SPLIT.jsonl."""


class Diagnosed(Part):
    code: str
    """Name that stays the same when the message changes."""
    message: str
    """What was found, with its figures."""
    advice: str
    """What to try."""
    figures: dict[str, float]
    """The numbers of the message by name."""
    split: str | None
    """The split that it is about; null if it is about the run."""
    severity: Severity
    """`wrong`, `doubtful` or `note`."""


class ExportedFile(Part):
    bytes: int
    """Size in bytes."""
    xxh3: str
    """128-bit xxh3 of the content."""


class ExportedPart(Part):
    difference: float | None
    """Difference between the logits of a fresh process and those of the run, divided by the
    standard deviation of the run's if that is more than 1; null if they were not compared."""
    bound: float | None
    """The difference that is allowed."""
    statistic: Literal["largest", "root mean square"] | None
    """Which difference that is: in fp32 the largest."""
    num_examples: int
    """Number of examples whose logits were compared."""
    files: dict[str, ExportedFile]
    """Files that decide what the model computes, by path in the folder; the card is not one."""


class Export(Part):
    verified: bool
    """Whether a fresh process, with transformers and PEFT alone, got the measured logits from what
    was exported, and found nothing wrong with it."""
    why_not: str | None
    """Why it was not verified, or what is wrong with it."""
    failed: bool
    """Whether something is wrong with it; model/ was then not replaced."""
    model: ExportedPart | None
    """The folder model/."""
    adapter: ExportedPart | None
    """The folder adapter/; null without adapters."""


class MemoryBesidePlan(Part):
    planned: int | None
    """Peak bytes that a process allocates on its GPU, as planned; null if the run was not planned,
    as on a CPU."""
    measured: int | None
    """Peak bytes of a process, the largest of all: allocated on its GPU, or resident on a CPU; null
    if the system does not say."""


class TimeBesidePlan(Part):
    planned: list[float] | None
    """Least and most seconds of training, without evaluation, as planned; null if the run was not
    planned."""
    measured: float
    """Seconds of training, without evaluation."""


class BesidePlan(Part):
    memory: MemoryBesidePlan
    """Peak memory of a process."""
    seconds: TimeBesidePlan
    """Training time of all steps."""


class Results(Part):
    """results.json."""

    version: Literal[2]
    """2."""
    recipe: dict[str, Any]
    """The resolved recipe."""
    summary: str
    """What happened, in a paragraph made of the numbers below."""
    parameters: Parameters
    """The weights of the model as trained, by part and by module."""
    data: dict[str, DataSplit]
    """What each split held."""
    baseline: dict[str, Metrics]
    """Metrics by split before the first step."""
    baseline_is: Literal["pretrained", "untrained head", "random weights"]
    """What the baseline measures."""
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
    export: Export | None = None
    """Whether what was exported gives the logits that were measured."""
    statistics: dict[Split, SplitStatistics]
    """What the metrics are worth: intervals, tests, and the smallest difference to be seen."""
    failures: dict[Split, Failures]
    """Which answers of model/ are wrong."""
    diagnosis: list[Diagnosed]
    """Where numbers cannot be right, or mean less than they seem to; the worst first."""
    learned: Learned
    """What learned nothing."""
    seconds: Seconds
    """Time that the run took, over all its starts."""
    peak_memory_bytes: int
    """The largest of all processes."""
    plan: BesidePlan | None = None
    """What was planned, beside what was measured; absent in runs of older versions."""
    processes: int
    """Number of processes at the end."""
    precision: Literal["fp32", "bf16", "fp16"]
    """Precision of the computation."""
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
