"""A dialogue with a causal language model: it remembers, if the model has a chat template."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.data.columns import column_name
from trainer.errors import ConfigError
from trainer.models.pretrained.model_folder import shown
from trainer.prediction.loading import LoadedModel, computing, load_source
from trainer.prediction.source import Source, find_source
from trainer.process.out_of_memory import is_out_of_memory, out_of_memory
from trainer.tasks.causal_lm.predictor import CausalLMPredictor
from trainer.wording import excerpt

ADVICE = "use a smaller --max-new-tokens, start again with /reset, or give the process more memory"


class Dialogue:
    """A conversation with one model.

    With a chat template, each answer follows from all messages; without one, from the last text
    alone, put into the recipe's prompt if it has one.
    """

    def __init__(self, loaded: LoadedModel, system: str | None = None) -> None:
        """`loaded` is a causal language model. Raises ConfigError for a system prompt if it has no
        chat template."""
        assert isinstance(loaded.predictor, CausalLMPredictor)
        self.loaded = loaded
        self.predictor = loaded.predictor
        self.system = system
        self.remembers = self.predictor.chats
        if system is not None and not self.remembers:
            raise ConfigError(
                "--system: the model has no chat template, or its recipe does not use one",
                key="--system",
                value=system,
                hint="leave it out",
            )
        self.messages: list[dict[str, str]] = []
        self.reset()

    def reset(self) -> None:
        """Forgets all messages but the system prompt."""
        self.messages = []
        if self.system is not None:
            self.messages.append({"role": "system", "content": self.system})

    def ask(self, text: str, show: Callable[[str], None]) -> str:
        """Returns the answer to a text, and calls `show` with each of its pieces as it comes.

        A text that cannot be answered is not remembered. Raises DataError for it, for example if
        the conversation fills all positions of the model, and OutOfMemoryError.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        try:
            with computing(self.loaded):
                answer = self.predictor.stream(self.loaded.model, self._row(messages), show)
        except Exception as error:
            if is_out_of_memory(error):
                raise out_of_memory(error, "answering", advice=ADVICE) from error
            raise
        if self.remembers:
            # Templates refuse an answer without text.
            self.messages = [*messages, {"role": "assistant", "content": answer or " "}]
        return answer

    def _row(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        if self.remembers:
            return {self.predictor.names.messages: messages}
        first, *others = [column_name(column) for column in self.predictor.columns.values()]
        return {first: messages[-1]["content"], **dict.fromkeys(others, "")}


def open_dialogues(
    run_dir_or_model: str | Path,
    *,
    max_new_tokens: int,
    compare: bool = False,
    system: str | None = None,
) -> dict[str, Dialogue]:
    """Returns a dialogue with a model, by the name that is shown for it; with `compare`, first one
    with the base from which its run started. Answers have at most `max_new_tokens` tokens.

    Raises ConfigError for a model of another task, and if there is no base to compare with.
    """
    source = find_source(run_dir_or_model)
    task = source.recipe.task.name
    if task != "causal_lm":
        raise ConfigError(
            f"{shown(run_dir_or_model)} is a model for {excerpt(task)}, which does not converse",
            key="MODEL",
            value=task,
            hint="use `trainer predict`",
        )
    base = _base_of(source) if compare else None
    longest = f"task.generation.max_new_tokens={max_new_tokens}"
    tuned = load_source(find_source(run_dir_or_model, [longest]))
    dialogues: dict[str, Dialogue] = {}
    if base is not None:
        recipe = tuned.recipe
        template = tuned.tokenizer.chat_template
        loaded = load_source(replace(base, recipe=recipe), chat_template=template)
        dialogues["base"] = Dialogue(loaded, system)
    dialogues["tuned" if compare else "model"] = Dialogue(tuned, system)
    return dialogues


def _base_of(source: Source) -> Source:
    """Returns where the base is from which the run of a model started."""
    settings = source.recipe.model
    problem = None
    if not source.of_run:
        problem = "a model without a run does not say what it was tuned from"
    elif settings.name_or_path is None or settings.initialization == "random":
        problem = "the run started from random weights"
    if problem is not None or settings.name_or_path is None:
        raise ConfigError(
            f"--compare: {problem}", key="--compare", value=source.model, hint="leave it out"
        )
    return Source(
        model=settings.name_or_path,
        revision=settings.revision,
        recipe=source.recipe,
        precision=source.precision,
        validation={},
        of_run=False,
    )
