"""The settings of causal language modelling and instruction tuning."""

from typing import ClassVar, Self

from pydantic import model_validator

from trainer.errors import ConfigError
from trainer.recipe.data import Columns
from trainer.recipe.model import TrainedTokenizer
from trainer.recipe.schema import Miniature, Recipe, TaskSettings
from trainer.tasks.contradictions import refuse_fresh_head, refuse_joined_rows
from trainer.tasks.generation.settings import GenerationSettings
from trainer.tasks.generation.templates import template_fields


class CausalLMSettings(TaskSettings):
    """Causal language modelling of running text, or of answers to prompts or chat messages."""

    roles: ClassVar[tuple[str, ...]] = ("text", "messages", "tools", "system")

    prompt: str | None = None
    """Template over columns, such as "{instruction}\\n"; its tokens are not learned. null: learn
    running text."""
    completion: str | None = None
    """Template of the text that is learned after the prompt, such as "{output}"."""
    chat: bool = False
    """Learn the assistant's messages in data.columns.messages, rendered with the tokenizer's chat
    template."""
    packing: bool = False
    """Put several examples into one sequence; no example sees another."""
    generation: GenerationSettings = GenerationSettings()
    """Generated answers to instructions, scored by BLEU, ROUGE and METEOR."""

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        if (self.prompt is None) != (self.completion is None):
            raise ValueError("give both of prompt and completion, or neither")
        if self.chat and self.prompt is not None:
            raise ValueError("give one of chat and prompt")
        if self.packing and not self.instructs:
            raise ValueError("packing joins instructions; text is cut into full blocks anyway")
        self.template_columns()
        return self

    def template_columns(self) -> list[tuple[str, str]]:
        """Returns each column that a template names, after the key of that template."""
        templates = (("prompt", self.prompt), ("completion", self.completion))
        return [
            (key, name)
            for key, template in templates
            if template is not None
            for name in template_fields(key, template)
        ]

    @property
    def instructs(self) -> bool:
        """Whether it learns answers to prompts rather than running text."""
        return self.chat or self.prompt is not None

    def contradictions(self, recipe: Recipe) -> list[ConfigError]:
        untrained: list[ConfigError] = []
        if self.chat and isinstance(recipe.model.tokenizer, TrainedTokenizer):
            untrained.append(
                ConfigError(
                    "task.chat: a tokenizer that the run trains has no chat template",
                    key="task.chat",
                    value=True,
                    hint="set task.prompt and task.completion, or name a tokenizer",
                )
            )
        joined = refuse_joined_rows(recipe) if self.instructs else []
        return [*untrained, *refuse_fresh_head(recipe), *joined]

    def miniature(self, columns: Columns) -> Miniature:
        settings = self.model_dump(mode="json")
        if not self.instructs:
            return Miniature(settings, "documents", {})
        settings |= {"chat": False, "prompt": "{instruction}\n{input}\n", "completion": "{output}"}
        settings["generation"] = {"num_examples": 4, "max_new_tokens": 4}
        return Miniature(settings, "instructions", {})
