"""Prompts and answers as tokens: of templates over columns, or of chat messages."""

from string import Formatter
from typing import Any

from trainer import config
from trainer.errors import DataError

Segment = tuple[str, bool]
"""A text, and whether it is learned."""


class Prompts:
    """Turns a row into tokens of which those of the answers are learned.

    Each text is tokenised by itself: a prompt has the tokens that it has when a model is asked.
    """

    def __init__(self, settings: config.CausalLM, columns: config.Columns, tokenizer: Any) -> None:
        self.templates = (settings.prompt, settings.completion)
        self.messages = columns.messages if settings.chat else None
        named = dict.fromkeys(name for _, name in settings.template_columns())
        self.columns = [self.messages] if self.messages else list(named)
        self.tokenizer = tokenizer
        self.begin, self.end = boundaries(tokenizer)

    def settings(self) -> dict[str, Any]:
        """Returns what decides the tokens of a row, beside row and tokenizer."""
        template = self.tokenizer.chat_template if self.messages else None
        return {"templates": self.templates, "messages": self.messages, "chat_template": template}

    def encode(self, row: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Returns the tokens of a row, and 1 for each that is learned.

        The first is never learned, for nothing predicts it. Raises DataError for a row without an
        answer.
        """
        segments = self._chat(row[self.messages]) if self.messages else self._filled(row)
        tokens = list(self.begin) if self.messages is None else []
        flags = [0] * len(tokens)
        for text, learned in segments:
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            if learned and self.messages is None:
                ids = [*ids, *self.end]
            tokens += ids
            flags += [int(learned)] * len(ids)
        flags[:1] = [0]
        if not any(flags):
            raise DataError("the answer has no tokens; mend or remove the row")
        return tokens, flags

    def turn_end(self) -> list[int]:
        """Returns the token with which the chat template ends an answer; none without.

        A special one, or another that was added to the tokenizer and follows at once.
        """
        if self.messages is None:
            return []
        content = "0123456789"  # that no template has
        turns = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
        try:
            _, _, end = self._rendered(turns, answer_follows=False).rpartition(content)
        except DataError:
            return []
        known = self.tokenizer.added_tokens_decoder
        ids = self.tokenizer(end.lstrip(), add_special_tokens=False)["input_ids"]
        first = ids[:1] if ids and ids[0] in known else []
        return first or [index for index in ids if index in known and known[index].special][:1]

    def _filled(self, row: dict[str, Any]) -> list[Segment]:
        prompt, answer = (_fill(template or "", row) for template in self.templates)
        if not answer.strip():
            raise DataError("the completion is empty; mend or remove the row")
        return [(prompt, False), (answer, True)]

    def _chat(self, messages: Any) -> list[Segment]:
        try:
            roles = [message["role"] for message in messages]
            segments, done = list[Segment](), ""
            for index, role in enumerate(roles):
                if role != "assistant" or index == 0:  # an opening answers nothing
                    continue
                before = self._rendered(messages[:index], answer_follows=True)
                after = self._rendered(messages[: index + 1], answer_follows=False)
                if not (before.startswith(done) and after.startswith(before)):
                    raise DataError(
                        "the chat template changes earlier messages when later ones follow; set "
                        "task.prompt and task.completion instead"
                    )
                segments += [(before[len(done) :], False), (after[len(before) :], True)]
                done = after
        except (KeyError, TypeError) as error:
            raise DataError("its messages are no list of role and content; mend it") from error
        if not segments:
            raise DataError("no message is an answer of the role assistant; mend or remove the row")
        return segments

    def _rendered(self, messages: Any, *, answer_follows: bool) -> str:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=answer_follows
            )
        except TemplateError as error:
            raise DataError(f"the chat template refuses its messages: {error}") from error


def _fill(template: str, row: dict[str, Any]) -> str:
    """Returns a template with the values of its columns, whose names may have dots."""
    return "".join(
        literal + ("" if name is None or row[name] is None else str(row[name]))
        for literal, name, _, _ in Formatter().parse(template)
    )


def whole_texts(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Returns the tokens of texts, each with its beginning and its end."""
    begin, end = boundaries(tokenizer)
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return [[*begin, *ids, *end] for ids in encoded["input_ids"]]


def boundaries(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Returns the tokens before and after a text: what the tokenizer puts first, and the end."""
    around = tokenizer("")["input_ids"]
    firsts, lasts = ("bos_token_id", "cls_token_id"), ("eos_token_id", "sep_token_id")
    begin = [index for index in around[:1] if index in [getattr(tokenizer, one) for one in firsts]]
    ends = [index for one in lasts if (index := getattr(tokenizer, one)) is not None]
    return begin, ends[:1]
