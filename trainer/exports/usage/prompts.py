"""Prompts of a run's rows: as a pipeline gets them, and the tokens that the run reads."""

from collections.abc import Iterator
from typing import Any

from trainer.data.encoded import PreparedSplit, Summary
from trainer.errors import DataError
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.generation.prompts import boundaries

MOST_WORDS = 32
"""Words of a running text that are continued."""


def prompts_of(task: CausalLM, split: PreparedSplit) -> Iterator[tuple[Any, list[int]]]:
    """Yields prompts of rows that do not spell special tokens, and the tokens of each in a run."""
    for row in split.rows:
        if task.prompts is None:
            text = row[task.text]
            if isinstance(text, str) and task.text_tokenizer.special_in(text) is None:
                opening = " ".join(text.split(" ")[:MOST_WORDS]).strip()
                (ids,) = task.text_tokenizer.tokens([opening]).columns["input_ids"]
                yield opening, [*boundaries(task.tokenizer)[0], *ids]
            continue
        names = task.prompts.columns(split.rows.column_names)
        chosen = {name: row[name] for name in names}
        if task.text_tokenizer.special_in(chosen) is not None:
            continue
        try:
            texts = task.prompts.texts(chosen, Summary())
            (encoded,) = task.prompts.encode([texts])
        except DataError:
            continue
        if isinstance(encoded, DataError):
            continue
        ids, flags = encoded
        prompt = texts.segments[0][0] if not task.settings.chat else _asked(chosen)
        if prompt:
            yield prompt, ids[: flags.index(1)]


def plain_ids(task: CausalLM, prompt: Any, settings: dict[str, Any]) -> list[int]:
    """Returns the tokens that a pipeline gives a prompt."""
    if isinstance(prompt, str):
        return list(task.tokenizer(prompt, verbose=False, **settings)["input_ids"])
    return list(
        task.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
    )


def _asked(row: dict[str, Any]) -> list[dict[str, str]] | None:
    """Returns the messages before the first answer, if they are plain texts without tools."""
    values = list(row.values())
    if len(values) != 1 or not isinstance(values[0], list):
        return None
    before: list[dict[str, str]] = []
    for message in values[0]:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return None
        if message.get("role") == "assistant":
            break
        before.append({"role": str(message.get("role")), "content": message["content"]})
    return before or None
