"""The schema of a recipe: its sections, and the rules between them."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from trainer.errors import ConfigError
from trainer.recipe.data import Columns, Data
from trainer.recipe.keys import known_keys
from trainer.recipe.model import Model
from trainer.recipe.problems import joined, problems_of, rejection
from trainer.recipe.push import Push
from trainer.recipe.section import Section, Seed
from trainer.recipe.training import Batch, Checkpoint, Evaluation, Optimizer, Schedule, Tracking
from trainer.recipe.tuning import FullTuning, Tuning


class Miniature(NamedTuple):
    """Task and data of a recipe's miniature, which `--smoke` trains."""

    settings: dict[str, Any]
    """The section `task`."""
    builtin: str
    """Name of a built-in data set."""
    columns: dict[str, Any]
    """Its section `data.columns`."""


class TaskSettings(Section):
    """Base of the section `task`: the settings of a task, and what a recipe needs to know about it.

    A recipe is read without importing torch. The task itself, with data and loss, is therefore a
    separate class (trainer.tasks.base.Task).
    """

    roles: ClassVar[tuple[str, ...]] = ("text",)
    """Keys of data.columns that the task reads."""
    columns: ClassVar[type[Columns]] = Columns
    """The section data.columns: a subclass if the task has roles that Columns does not."""
    deciding_metric: ClassVar[str] = "loss"
    """Default of evaluation.metric."""
    errors: ClassVar[tuple[str, ...]] = ()
    """Metrics, besides losses and perplexities, whose smallest value is the best."""

    name: str
    """Name of the task."""

    def best_is_smallest(self, metric: str) -> bool:
        """Returns whether the best value of a metric is its smallest one."""
        return metric.startswith(("loss", "perplexity")) or metric in self.errors

    def contradictions(self, recipe: "Recipe") -> list[ConfigError]:
        """Returns the contradictions between these settings and other sections of the recipe."""
        return []

    def miniature(self, columns: Columns) -> Miniature | None:
        """Returns small settings and built-in rows of the same form as `columns`, for `--smoke`.

        None if there are no built-in rows for the task.
        """
        return None


class Recipe(Section, ABC):
    """Everything that decides what is learned; the launch decides where.

    Recipes are equal if all their values are. Construction raises ConfigError with all `problems`,
    a sentence each. This package does not know the tasks: a subclass looks up their settings.
    """

    seed: Seed = 1
    """Seed of new weights, order, dropout and masks."""
    model: Model
    """Which model is trained, and from which weights."""
    tuning: Tuning = FullTuning()
    """Which weights are trained."""
    task: SerializeAsAny[TaskSettings]
    """What is learned; each task has settings of its own."""
    data: Data
    """The rows, their splits and their columns."""
    batch: Batch = Batch()
    """Sizes of batches and examples."""
    optimizer: Optimizer = Optimizer()
    """The optimizer and its settings."""
    schedule: Schedule = Schedule(epochs=3)
    """Length of the run and its learning rates."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Type of the computations. `auto` is bf16 on a GPU of compute capability 8.0 or above, fp16 on
    an older GPU, and fp32 on a CPU."""
    deterministic: bool = False
    """Use only deterministic kernels, which exact resumption on a GPU needs."""
    evaluation: Evaluation = Field(default=Evaluation(), validate_default=True)
    """When to evaluate, and which step is the best."""
    checkpoint: Checkpoint = Checkpoint()
    """When to save, and what to keep."""
    tracking: Tracking = Tracking()
    """Where metrics are logged."""
    push: Push | None = None
    """The repository to which the finished model is sent; null sends nothing. If it cannot be sent,
    the run only warns."""

    def __init__(self, /, **sections: Any) -> None:
        try:
            super().__init__(**sections)
        except ValidationError as error:
            known = self._known_keys(sections.get("task"))
            raise joined("", problems_of(error, sections, known)) from error

    @classmethod
    @abstractmethod
    def settings_of(cls, task: str) -> type[TaskSettings]:
        """Returns the class of a task's settings; raises ConfigError if there is no such task."""

    @classmethod
    def _known_keys(cls, task: Any) -> list[str]:
        """Returns the dotted keys of a recipe with the section `task`, which may be invalid."""
        settings = type(task) if isinstance(task, TaskSettings) else TaskSettings
        name = task.get("name") if isinstance(task, dict) else None
        if isinstance(name, str):
            try:
                settings = cls.settings_of(name)
            except ConfigError:
                settings = TaskSettings
        keys = [*known_keys(cls), *known_keys(settings, "task.")]
        return list(dict.fromkeys([*keys, *known_keys(settings.columns, "data.columns.")]))

    @field_validator("task", mode="before")
    @classmethod
    def _settings_of_the_task(cls, task: Any) -> Any:
        if not isinstance(task, dict):
            return task
        name: Any = task.get("name")
        if not isinstance(name, str):  # then which other keys are valid is unknown
            return {key: value for key, value in task.items() if key == "name"}
        try:
            settings = cls.settings_of(name)
        except ConfigError as error:
            raise rejection(error) from error
        return settings.model_validate(task)

    @field_validator("data", mode="before")
    @classmethod
    def _roles_of_the_task(cls, data: Any, info: ValidationInfo) -> Any:
        """Validates data.columns by the task's own roles if it has any."""
        task = info.data.get("task")
        if not isinstance(data, dict) or not isinstance(task, TaskSettings):
            return data
        columns: Any = data.get("columns", {})
        if task.columns is Columns or not isinstance(columns, dict):
            return data
        under = create_model("Data", columns=(task.columns, ...))  # for the key of its errors
        return {**data, "columns": under.model_validate({"columns": columns}).columns}  # pyright: ignore

    @field_validator("evaluation")
    @classmethod
    def _decided_by_the_task(cls, evaluation: Evaluation, info: ValidationInfo) -> Evaluation:
        """Fills in metric and mode if the recipe does not give them."""
        task = info.data.get("task")
        if not isinstance(task, TaskSettings):
            return evaluation
        keys = evaluation.model_fields_set
        metric = evaluation.metric if "metric" in keys else task.deciding_metric
        mode = "min" if task.best_is_smallest(metric) else "max"
        mode = evaluation.mode if "mode" in keys else mode
        return evaluation.model_copy(update={"metric": metric, "mode": mode})

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if contradictions := self.task.contradictions(self):
            raise rejection(*contradictions)
        return self
