"""The settings of extractive question answering."""

from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from trainer.errors import ConfigError
from trainer.recipe.data import Columns
from trainer.recipe.schema import Miniature, Recipe, TaskSettings
from trainer.recipe.section import PairSeparator, PositiveInt
from trainer.tasks.contradictions import refuse_joined_rows
from trainer.tasks.generation.settings import GenerationSettings
from trainer.tasks.generation.templates import template_fields


class GeneratedAnswerSettings(GenerationSettings):
    """How the pretrained causal model is prompted with a question, before training."""

    prompt: str
    """Template over the roles, such as "{context}\\nQuestion: {question}\\nAnswer:"."""
    no_answer: str = "unanswerable"
    """Generated text that counts as "no answer"; empty text does, too."""
    num_examples: PositiveInt = 64
    """Number of questions per split for which answers are generated."""
    max_new_tokens: PositiveInt = 16
    """Maximum length of a generated answer in tokens."""

    @model_validator(mode="after")
    def _prompt_uses_known_fields(self) -> Self:
        template_fields("prompt", self.prompt, ("context", "question"))
        return self


class QuestionAnsweringSettings(TaskSettings):
    """Extractive question answering: an answer is a span of its context, or there is none."""

    roles: ClassVar[tuple[str, ...]] = ("id", "question", "context", "answers")
    deciding_metric: ClassVar[str] = "best_f1"

    stride: Literal["auto"] | PositiveInt = "auto"
    """Number of tokens that neighbouring windows of a long context share; `auto`: a third of
    batch.max_seq_length, but at most 128."""
    num_best: PositiveInt = 20
    """Number of likeliest starts, and then of likeliest spans, kept from each window; also the
    number of likeliest spans, from all its windows, that each question weighs against "no
    answer"."""
    max_answer_length: PositiveInt = 30
    """Longest predicted answer, in tokens; training answers may be longer."""
    pair_separator: PairSeparator = "auto"
    """Text between question and context, such as "\\n", used if the tokenizer
    puts nothing there, as GPT-2's does. `auto`: the end token, or a line break if there is none;
    null: nothing."""
    zero_shot: GeneratedAnswerSettings | None = None
    """Prompt with which the pretrained causal model is also measured before training; null:
    none."""

    def resolved_stride(self, max_seq_length: int) -> int:
        """Returns the number of tokens that neighbouring windows share."""
        return automatic_stride(max_seq_length) if self.stride == "auto" else self.stride

    def contradictions(self, recipe: Recipe) -> list[ConfigError]:
        length = recipe.batch.max_seq_length
        problems: list[ConfigError] = []
        if self.stride != "auto" and self.stride >= length:
            problems.append(
                ConfigError(
                    f"task.stride: {self.stride} leaves nothing of batch.max_seq_length={length} "
                    f"for new context",
                    key="task.stride",
                    value=self.stride,
                    hint=f"use auto, which is {automatic_stride(length)}",
                )
            )
        return [*problems, *refuse_joined_rows(recipe)]

    def miniature(self, columns: Columns) -> Miniature:
        settings: dict[str, Any] = {**self.model_dump(mode="json"), "stride": 16, "num_best": 5}
        if self.zero_shot is not None:
            settings["zero_shot"] |= {"num_examples": 4, "max_new_tokens": 4}
        return Miniature(settings, "passages", {})


def automatic_stride(max_seq_length: int) -> int:
    """Returns the stride that `auto` stands for, in tokens."""
    return min(128, max_seq_length // 3)
