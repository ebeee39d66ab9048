"""Conversations as chat templates take them, read from the forms in which data sets hold them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from trainer.errors import DataError
from trainer.wording import excerpt, listed

ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
"""Roles of ShareGPT and similar formats, and those of chat templates; other roles are kept."""

MESSAGES, TOOLS, SYSTEM = (f"data.columns.{role}" for role in ("messages", "tools", "system"))
FIX, REMOVE = "fix the row", "fix or remove the row"

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    messages: list[Message]
    tools: list[Any] | None
    num_given: int = 0
    """Number of messages at the beginning that are not learned, even if they are answers."""


def read_conversation(
    values: Sequence[Any], *, tools: Any = None, system: Any = None, filled: bool = False
) -> Conversation:
    """Returns the conversation of a row: `values` holds its messages, or its prompt and completion.

    Messages have role and content, or from and value; they, and `tools`, may be JSON text. `filled`
    says that objects have a null for each key that only other rows have. Raises DataError, with the
    key of the column, for a value of another form.
    """
    parts = [
        [_message(value, number) for number, value in enumerate(_list(part), 1)] for part in values
    ]
    num_given = len(parts[0]) if len(parts) > 1 else 0
    messages = [message for part in parts for message in part]
    if filled:
        messages = [_without_nulls(message) for message in messages]
    if isinstance(system, str) and system.strip():
        if not messages or messages[0]["role"] not in ("system", "developer"):
            messages.insert(0, {"role": "system", "content": system})
            num_given += len(parts) > 1
    elif system is not None and not isinstance(system, str):
        raise DataError(
            f"its system prompt is {excerpt(repr(system))}, not text",
            key=SYSTEM,
            value=system,
            hint=FIX,
        )
    for number, message in enumerate(messages, 1):
        _check_content(message, number)
    tool_list = _tools(tools)
    if filled and tool_list is not None:
        tool_list = [_without_nulls(tool) for tool in tool_list]
    return Conversation(messages, tool_list, num_given)


def _list(value: Any) -> list[Any]:
    """Returns messages as a list; `value` may be JSON text, or an object of equally long lists."""
    messages = value
    if isinstance(value, str):
        messages = _parsed(value)
        if messages is None:
            raise DataError(
                f"its messages are the text {excerpt(repr(value), 60)}, which is not a JSON list",
                key=MESSAGES,
                value=value,
                hint="give objects of role and content, or set task.prompt and task.completion",
            )
    if isinstance(messages, dict):
        columns = cast(dict[str, Any], messages)
        sizes = {len(cells) if isinstance(cells, list) else -1 for cells in columns.values()}
        if len(sizes) == 1 and -1 not in sizes:  # as some libraries keep a list of objects
            messages = [
                dict(zip(columns, cells, strict=True))
                for cells in zip(*columns.values(), strict=True)
            ]
    if not isinstance(messages, list):
        is_object = isinstance(messages, dict)
        kind = f"an object of {listed(messages)}" if is_object else repr(messages)
        raise DataError(
            f"its messages are {excerpt(kind, 120)}, not a list of objects of role and content",
            key=MESSAGES,
            value=value,
            hint=REMOVE,
        )
    return cast(list[Any], messages)


def _message(value: Any, number: int) -> Message:
    """Returns a message with role, content and the other keys that a template may show."""
    if not isinstance(value, dict):
        raise _wrong_message(
            number,
            f"is {excerpt(repr(value), 60)}, not an object of role and content",
            value=value,
            hint=FIX,
        )
    filled = {key: item for key, item in cast(Message, value).items() if item is not None}
    role_key = "role" if "role" in filled else "from"
    content_key = "content" if "content" in filled or role_key == "role" else "value"
    if content_key not in filled and "value" in filled:
        content_key = "value"
    says_something = content_key in cast(Message, value) or (
        "tool_calls" in filled or "function_call" in filled
    )
    if not isinstance(filled.get(role_key), str) or not says_something:
        names = [*cast(Message, value)]
        raise _wrong_message(
            number,
            f"has {listed(names) or 'no keys'}; read are role and content, or from and value",
            value=names,
            hint="rename them",
        )
    role, content = str(filled[role_key]), filled.get(content_key)
    others = {key: item for key, item in filled.items() if key not in (role_key, content_key)}
    message = {"role": ROLES.get(role, role), "content": content, **others}
    if role == "function_call":  # in ShareGPT the value of this role is the call
        message |= {"content": None, "tool_calls": content}
    elif "function_call" in message:  # OpenAI's key before there were tools
        message["tool_calls"] = [{"type": "function", "function": message.pop("function_call")}]
    if message.get("tool_calls"):
        message["tool_calls"] = _tool_calls(message["tool_calls"], number)
    else:
        message.pop("tool_calls", None)
    return message


def _check_content(message: Message, number: int) -> None:
    """Joins a content that is a list of texts; raises DataError for one that is not text."""
    content, role = message["content"], message["role"]
    if isinstance(content, list):
        content = "".join(_part(part, number) for part in cast(list[Any], content))
        message["content"] = content
    if content is None and role == "tool":
        message["content"] = content = ""
    if content is not None and not isinstance(content, str):
        raise _wrong_message(
            number,
            f"({excerpt(role, 20)}) has {excerpt(repr(content), 60)} for its content, not text",
            value=content,
            hint=FIX,
        )
    if role == "assistant" and not message.get("tool_calls") and not (content or "").strip():
        raise _wrong_message(
            number, "is an answer of the assistant without content or tool_calls", value=content
        )
    if content is None and role != "assistant":
        raise _wrong_message(number, f"({excerpt(role, 20)}) has no content", value=role)


def _part(value: Any, number: int) -> str:
    if isinstance(value, str):
        return value
    part = cast(Message, value) if isinstance(value, dict) else {}
    if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
        kind = part.get("type", type(value).__name__)
        raise _wrong_message(
            number,
            f"has a part of the type {excerpt(kind, 40)}, and only text is read",
            value=kind,
        )
    return part["text"]


def _tool_calls(value: Any, number: int) -> list[Message]:
    """Returns calls that each have a function; arguments that are JSON text become an object."""
    calls = _parsed(value) if isinstance(value, str) else value
    calls = [calls] if isinstance(calls, dict) else calls
    read: list[Message] = []
    for call in cast(list[Any], calls) if isinstance(calls, list) else [None]:
        call = _parsed(call) if isinstance(call, str) else call
        fields = cast(Message, call) if isinstance(call, dict) else {}
        function = fields.get("function") or fields
        function = _parsed(function) if isinstance(function, str) else function
        if not isinstance(function, dict) or not cast(Message, function).get("name"):
            raise _wrong_message(
                number,
                f"has the tool call {excerpt(repr(call or value), 60)}, which names no function",
                value=call or value,
                hint=FIX,
            )
        function = dict(cast(Message, function))
        if isinstance(function.get("arguments"), str):
            arguments = _parsed(function["arguments"])
            function["arguments"] = function["arguments"] if arguments is None else arguments
        others = fields if "function" in fields else {}
        read.append({"type": "function", **others, "function": function})
    return read


def _wrong_message(number: int, problem: str, *, value: object, hint: str = REMOVE) -> DataError:
    return DataError(f"message {number} {problem}", key=MESSAGES, value=value, hint=hint)


def _tools(value: Any) -> list[Any] | None:
    """Returns the tools of a row as a list of objects, or None if it has none."""
    tools = _parsed(value) if isinstance(value, str) and value.strip() else value
    tools = [tools] if isinstance(tools, dict) else tools
    if not tools and (value is None or isinstance(value, str | list)):
        if isinstance(value, str) and value.strip() and tools is None:
            raise DataError(
                f"its tools are the text {excerpt(repr(value), 60)}, which is not JSON",
                key=TOOLS,
                value=value,
                hint=FIX,
            )
        return None
    items = cast(list[Any], tools) if isinstance(tools, list) else [tools]
    read = [_parsed(tool) if isinstance(tool, str) else tool for tool in items]
    for tool in read:
        if not isinstance(tool, dict):
            raise DataError(
                f"its tools hold {excerpt(repr(tool), 60)}, not an object",
                key=TOOLS,
                value=tool,
                hint="give a list of objects, or JSON text of one",
            )
    return read


def _parsed(text: str) -> Any:
    """Returns the value of JSON text, or None if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _without_nulls(value: Any) -> Any:
    """Returns a value without the null keys that a table adds; a message keeps its content."""
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return {k: _without_nulls(v) for k, v in items if v is not None or k == "content"}
    if isinstance(value, list):
        return [_without_nulls(item) for item in cast(list[Any], value)]
    return value
