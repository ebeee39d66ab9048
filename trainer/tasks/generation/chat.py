"""Chat templates: a conversation as text, split into its answers and what precedes each."""

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

    def segments(self, conversation: Conversation, summary: Summary) -> tuple[list[Segment], bool]:
        """Returns the segments of a conversation in order, and whether their texts are guarded.

        Raises DataError if the template cannot render the conversation, or if it has no answer.
        """
        messages, tools, guarded = self._prepared(conversation, summary)
        segments, done = list[Segment](), ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or index == 0 or index < conversation.num_given:
                continue  # a first message answers nothing
            before = self.rendered(messages[:index], answer_follows=True, tools=tools)
            after = self.rendered(messages[: index + 1], answer_follows=False, tools=tools)
            if not (before.startswith(done) and after.startswith(before)):
                raise DataError(
                    "the chat template changes earlier messages when later ones follow",
                    key="task.chat",
                    value=True,
                    hint="set task.prompt and task.completion instead",
                )
            segments += [(before[len(done) :], False), (after[len(before) :], True)]
            done = after
        if not segments:
            raise DataError(
                "no message is an answer of the role assistant",
                key="data.columns.messages",
                hint="fix or remove the row",
            )
        return segments, guarded

    def opening(self, conversation: Conversation, summary: Summary) -> tuple[str, bool]:
        """Returns the text up to an answer, and whether it is guarded: to the first answer of a
        conversation that ends with one, and otherwise to the one that follows all messages.

        Raises DataError if the template cannot render the conversation.
        """
        messages, tools, guarded = self._prepared(conversation, summary)
        if messages and messages[-1]["role"] == "assistant":
            roles = [message["role"] for message in messages]
            messages = messages[: roles.index("assistant", 1)] if len(roles) > 1 else messages
        return self.rendered(messages, answer_follows=True, tools=tools), guarded

    def rendered(self, messages: Any, *, answer_follows: bool, tools: Any = None) -> str:
        """Returns messages as text, up to where the next answer begins if `answer_follows`.

        Raises DataError if the template refuses them.
        """
        try:
            text: Any = self.tokenizer.tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                tokenize=False,
                add_generation_prompt=answer_follows,
            )
            return str(text)
        except Exception as error:  # a template is a program and can raise anything
            raise DataError(
                f"the chat template refuses its messages: {excerpt(error, 200)}",
                key="data.columns.messages",
            ) from error

    def _prepared(
        self, conversation: Conversation, summary: Summary
    ) -> tuple[list[Message], list[Any] | None, bool]:
        """Returns messages and tools in the form that the template expects, and whether their texts
        are guarded."""
        messages = [
            self._for_template(message, position)
            for position, message in enumerate(conversation.messages, start=1)
        ]
        tools = conversation.tools
        if tools and not self._shows_tools:
            summary.remark("tools", "have tools, which the chat template does not show")
        special = self.tokenizer.special_in([messages, tools])
        guarded = special is not None and self.tokenizer.literal
        if special is not None:
            self.tokenizer.remark(special, summary)
        if guarded:
            messages, tools = self.tokenizer.guard(messages), self.tokenizer.guard(tools)
        return messages, tools, guarded

    def _for_template(self, message: Message, position: int) -> Message:
        """Returns a message in the form that the template expects."""
        role = message["role"]
        if role not in KNOWN_ROLES and role not in str(self.template):
            raise DataError(
                f"message {position} has the role {excerpt(role, 40)}",
                key="data.columns.messages",
                value=role,
                hint="use user, assistant, system or tool, human or gpt, or a role that the chat "
                "template names",
            )
        if not message.get("tool_calls"):
            return message
        if self._style is None:
            raise DataError(
                f"message {position} has tool_calls, which the chat template does not show",
                key="data.columns.messages",
                hint="use a tokenizer whose template shows them, or remove the row",
            )
        content, as_text = self._style
        calls = [_with_arguments(call, as_text) for call in message["tool_calls"]]
        return {**message, "content": message["content"] or content, "tool_calls": calls}

    @cached_property
    def _style(self) -> tuple[str | None, bool] | None:
        """Which empty content the template expects next to tool calls, and whether it expects their
        arguments as JSON text; None if it does not show calls.

        Found by rendering a call in each style: some templates print a null content as None and
        others require it, some write arguments as JSON and others append them to text.
        """
        styles = [(content, as_text) for as_text in (False, True) for content in (None, "")]
        shown: list[tuple[tuple[str | None, bool], str]] = []
        for content, as_text in styles:
            call = {"type": "function", "id": "call00001", "function": CALL}
            question = {"role": "user", "content": "probe"}
            calls = [_with_arguments(call, as_text)]
            answer = {"role": "assistant", "content": content, "tool_calls": calls}
            try:
                text = self.rendered([question, answer], answer_follows=False)
            except DataError:
                continue
            if CALL["name"] in text and "probed" in text:
                shown.append(((content, as_text), text))
        clean = [style for style, text in shown if "None" not in text and '\\"' not in text]
        return next(iter([*clean, *(style for style, _ in shown)]), None)

    @cached_property
    def _shows_tools(self) -> bool:
        question: list[Message] = [{"role": "user", "content": "probe"}]
        try:
            return "probe_the_tool" in self.rendered(question, answer_follows=True, tools=[TOOL])
        except DataError:
            return True  # the rows will show whether it can


def _with_arguments(call: Mapping[str, Any], as_text: bool) -> Message:
    """Returns a call whose arguments are JSON text if `as_text`, otherwise as they are."""
    function = cast(Message, call["function"])
    arguments = function.get("arguments")
    if as_text and not isinstance(arguments, str | None):
        function = {**function, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {**call, "function": function}
