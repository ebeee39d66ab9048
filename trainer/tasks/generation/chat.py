"""Chat templates: what stands before each answer of a conversation, and the answers."""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

from trainer.data.conversations import Conversation, Message
from trainer.data.encoded import Summary
from trainer.errors import DataError
from trainer.models.tokenizers.special_tokens import TextTokenizer
from trainer.wording import excerpt

Segment = tuple[str, bool]
"""A text, and whether it is learned."""

KNOWN_ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
CALL: Message = {"name": "probe_the_call", "arguments": {"probe": "probed"}}
TOOL = {
    "type": "function",
    "function": {
        "name": "probe_the_tool",
        "description": "A tool.",
        "parameters": {"type": "object", "properties": {}, "required": []},
    },
}


class Chat:
    """Renders conversations with the chat template of a tokenizer."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self.template: Any = tokenizer.tokenizer.chat_template

    def segments(self, given: Conversation, summary: Summary) -> tuple[list[Segment], bool]:
        """Returns the texts of a conversation in turn, and whether they are guarded.

        Raises DataError for one that the template cannot show, or that has no answer.
        """
        messages = [self._shown(one, place) for place, one in enumerate(given.messages, 1)]
        tools = given.tools
        if tools and not self._shows_tools:
            summary.remark("tools", "have tools, which the chat template does not show")
        special = self.tokenizer.special_in([messages, tools])
        guarded = special is not None and self.tokenizer.literal
        if special is not None:
            self.tokenizer.remark(special, summary)
        if guarded:
            messages, tools = self.tokenizer.guard(messages), self.tokenizer.guard(tools)
        segments, done = list[Segment](), ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or index == 0 or index < given.num_given:
                continue  # an opening answers nothing
            before = self.rendered(messages[:index], answer_follows=True, tools=tools)
            after = self.rendered(messages[: index + 1], answer_follows=False, tools=tools)
            if not (before.startswith(done) and after.startswith(before)):
                raise DataError(
                    "the chat template changes earlier messages when later ones follow; set "
                    "task.prompt and task.completion instead"
                )
            segments += [(before[len(done) :], False), (after[len(before) :], True)]
            done = after
        if not segments:
            raise DataError("no message is an answer of the role assistant; fix or remove the row")
        return segments, guarded

    def rendered(self, messages: Any, *, answer_follows: bool, tools: Any = None) -> str:
        try:
            made: Any = self.tokenizer.tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                tokenize=False,
                add_generation_prompt=answer_follows,
            )
            return str(made)
        except Exception as error:  # a template is a program, which fails in its own ways
            raise DataError(
                f"the chat template refuses its messages: {excerpt(error, 200)}"
            ) from error

    def _shown(self, message: Message, place: int) -> Message:
        """Returns a message as the template takes it."""
        role = message["role"]
        if role not in KNOWN_ROLES and role not in str(self.template):
            raise DataError(
                f"message {place} has the role {excerpt(role, 40)}; read are user, assistant, "
                f"system and tool, human and gpt, and roles that the chat template names"
            )
        if not message.get("tool_calls"):
            return message
        if self._style is None:
            raise DataError(
                f"message {place} has tool_calls, which the chat template does not show; use a "
                f"tokenizer whose template does, or remove the row"
            )
        content, as_text = self._style
        calls = [_with_arguments(call, as_text) for call in message["tool_calls"]]
        return {**message, "content": message["content"] or content, "tool_calls": calls}

    @cached_property
    def _style(self) -> tuple[str | None, bool] | None:
        """Returns which empty content a template expects beside tool calls, and whether it expects
        their arguments as JSON text; None where it shows no calls.

        Some print a null as None, others look for it; some write objects as JSON, others add them
        to text.
        """
        tried = [(content, as_text) for as_text in (False, True) for content in (None, "")]
        shown: list[tuple[tuple[str | None, bool], str]] = []
        for content, as_text in tried:
            call = {"type": "function", "id": "call00001", "function": CALL}
            asked = {"role": "user", "content": "probe"}
            calls = [_with_arguments(call, as_text)]
            answer = {"role": "assistant", "content": content, "tool_calls": calls}
            try:
                text = self.rendered([asked, answer], answer_follows=False)
            except DataError:
                continue
            if CALL["name"] in text and "probed" in text:
                shown.append(((content, as_text), text))
        good = [style for style, text in shown if "None" not in text and '\\"' not in text]
        return next(iter([*good, *(style for style, _ in shown)]), None)

    @cached_property
    def _shows_tools(self) -> bool:
        asked: list[Message] = [{"role": "user", "content": "probe"}]
        try:
            return "probe_the_tool" in self.rendered(asked, answer_follows=True, tools=[TOOL])
        except DataError:
            return True  # rows will tell


def _with_arguments(call: Mapping[str, Any], as_text: bool) -> Message:
    """Returns a call with its arguments as an object, or as JSON text."""
    function = cast(Message, call["function"])
    arguments = function.get("arguments")
    if as_text and not isinstance(arguments, str | None):
        function = {**function, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {**call, "function": function}
