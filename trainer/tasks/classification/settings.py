"""The settings of classification."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from trainer.errors import ConfigError
from trainer.recipe.data import Columns
from trainer.recipe.schema import Miniature, Recipe, TaskSettings
from trainer.recipe.section import Fraction, ListOf, PairSeparator, Section
from trainer.tasks.contradictions import refuse_joined_rows
from trainer.tasks.generation.templates import template_fields


class LabelPrompt(Section):
    """How the pretrained causal model is prompted for a label, before training."""

    prompt: str
    """Template over the roles text and text_pair, such as "Review: {text}\\nSentiment:"."""
    answers: Annotated[ListOf[str], Field(min_length=2)]
    """Text after the prompt for each label, in the order of the labels, such as " negative"."""

    @model_validator(mode="after")
    def _answers_differ(self) -> Self:
        template_fields("prompt", self.prompt, ("text", "text_pair"))
        if not all(answer.strip() for answer in self.answers):
            raise ValueError("answers: each label needs a word")
        if len(set(self.answers)) != len(self.answers):
            raise ValueError("answers must differ from each other")
        return self


def _label_text(value: Any) -> Any:
    """Returns a label as text: YAML reads an unquoted 1 or true as another type."""
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("a label is a name, a whole number, or true or false; quote other numbers")
    if isinstance(value, float):
        value = int(value)
    return str(value) if isinstance(value, int) else value


Label = Annotated[str, BeforeValidator(_label_text)]


class ClassificationSettings(TaskSettings):
    """Classification of a text, or of a pair of texts, into two or more classes."""

    roles: ClassVar[tuple[str, ...]] = ("text", "text_pair", "label")
    deciding_metric: ClassVar[str] = "accuracy"

    labels: Annotated[ListOf[Label], Field(min_length=2)] | None = None
    """Names of the classes in the order of their indices; null: the labels of the train split.
    Rows may hold these names, or indices into this list if no name occurs and the names are not
    all numbers."""
    check_labels: bool = True
    """Refuse a label column that does not look like classes, if task.labels is null: scores,
    several labels a row, a label for nearly every row, more than 1,000 labels, or labels that
    differ only in case, spaces or Unicode form. false: take each value as a class."""
    class_weights: Literal["balanced"] | ListOf[Annotated[float, Field(gt=0)]] | None = None
    """Weight of each class in the loss; `balanced`: rows / (classes * rows of the class); null:
    1."""
    label_smoothing: Fraction = 0.0
    """Share of the target probability that is spread evenly over all classes."""
    pair_separator: PairSeparator = "auto"
    """Text between the two texts of a pair, such as "\\n", used if the tokenizer
    puts nothing there, as GPT-2's does. `auto`: the end token, or a line break if there is none;
    null: nothing."""
    zero_shot: LabelPrompt | None = None
    """Prompt with which the pretrained causal model is also measured before training; null:
    none."""

    @model_validator(mode="after")
    def _lengths_match_labels(self) -> Self:
        if self.labels is None:
            return self
        needed = len(self.labels)
        if len(set(self.labels)) != needed:
            raise ValueError("labels must differ from each other")
        if isinstance(self.class_weights, tuple) and len(self.class_weights) != needed:
            num_weights = len(self.class_weights)
            raise ValueError(f"class_weights has {num_weights} numbers for {needed} labels")
        if self.zero_shot is not None and len(self.zero_shot.answers) != needed:
            num_answers = len(self.zero_shot.answers)
            raise ValueError(f"zero_shot.answers has {num_answers} answers for {needed} labels")
        return self

    def contradictions(self, recipe: Recipe) -> list[ConfigError]:
        return refuse_joined_rows(recipe)

    def miniature(self, columns: Columns) -> Miniature:
        roles: dict[str, str] = {}
        builtin, labels = "reviews", ["negative", "positive"]
        if columns.text_pair:
            builtin, labels = "nli", ["entailment", "neutral", "contradiction"]
            roles = {"text": "premise", "text_pair": "hypothesis"}
        settings: dict[str, Any] = {**self.model_dump(mode="json"), "labels": labels}
        if isinstance(self.class_weights, tuple):
            settings["class_weights"] = None
        if self.zero_shot is not None:
            settings["zero_shot"]["answers"] = [f" {label}" for label in labels]
        return Miniature(settings, builtin, roles)
