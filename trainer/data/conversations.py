"""Conversations as chat templates take them, out of the forms in which data has them."""

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
"""What ShareGPT's roles and their kin are to chat templates; others keep their name."""

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    messages: list[Message]
    tools: list[Any] | None
    num_given: int = 0
    """Messages at the beginning that are not learned, though they may be answers."""


def read_conversation(
    values: Sequence[Any], *, tools: Any = None, system: Any = None, filled: bool = False
) -> Conversation:
    """Returns the conversation of a row: of its messages, or of a prompt and a completion.

    Messages have role and content, or from and value; they, and `tools`, may be JSON text. `filled`
    says that the rows have a null for each key that only other rows have. Raises DataError with
    what was found instead.
    """
    parts = [[_message(one, place) for place, one in enumerate(_list(v), 1)] for v in values]
    messages = [message for part in parts for message in part]
    if filled:
        messages = [_without_nulls(message) for message in messages]
    if isinstance(system, str) and system.strip():
        if not messages or messages[0]["role"] not in ("system", "developer"):
            messages.insert(0, {"role": "system", "content": system})
            parts[0] = [messages[0], *parts[0]]
    elif system is not None and not isinstance(system, str):
        raise DataError(f"its system prompt is {excerpt(repr(system))}, not text; fix the row")
    for place, message in enumerate(messages, 1):
        _check_content(message, place)
    given = _tools(tools)
    if filled and given is not None:
        given = [_without_nulls(one) for one in given]
    return Conversation(messages, given, len(parts[0]) if len(parts) > 1 else 0)


def _list(value: Any) -> list[Any]:
    """Returns messages as a list, which may be JSON text, or an object of lists."""
    found = value
    if isinstance(value, str):
        found = _parsed(value)
        if found is None:
            raise DataError(
                f"its messages are the text {excerpt(repr(value), 60)}, which is not a JSON list; "
                f"give objects of role and content, or set task.prompt and task.completion"
            )
    if isinstance(found, dict):
        columns = cast(dict[str, Any], found)
        sizes = {len(one) if isinstance(one, list) else -1 for one in columns.values()}
        if len(sizes) == 1 and -1 not in sizes:  # as some libraries keep a list of objects
            found = [
                dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)
            ]
    if not isinstance(found, list):
        kind = f"an object of {listed(found)}" if isinstance(found, dict) else repr(found)
        raise DataError(
            f"its messages are {excerpt(kind, 120)}, not a list of objects of role and content; "
            f"fix or remove the row"
        )
    return cast(list[Any], found)


def _message(value: Any, place: int) -> Message:
    """Returns a message with role and content, and what else a template may show."""
    if not isinstance(value, dict):
        raise DataError(
            f"message {place} is {excerpt(repr(value), 60)}, not an object of role and content; "
            f"fix the row"
        )
    given = {key: one for key, one in cast(Message, value).items() if one is not None}
    role_key = "role" if "role" in given else "from"
    content_key = "content" if "content" in given or role_key == "role" else "value"
    if content_key not in given and "value" in given:
        content_key = "value"
    known = content_key in cast(Message, value) or "tool_calls" in given or "function_call" in given
    if not isinstance(given.get(role_key), str) or not known:
        raise DataError(
            f"message {place} has {listed(cast(Message, value)) or 'no keys'}; read are role and "
            f"content, or from and value; rename them"
        )
    role, content = str(given[role_key]), given.get(content_key)
    others = {k: v for k, v in given.items() if k not in (role_key, content_key)}
    message = {"role": ROLES.get(role, role), "content": content, **others}
    if role == "function_call":  # ShareGPT's, whose value is the call
        message |= {"content": None, "tool_calls": content}
    elif "function_call" in message:  # as OpenAI had it before there were tools
        message["tool_calls"] = [{"type": "function", "function": message.pop("function_call")}]
    if message.get("tool_calls"):
        message["tool_calls"] = _tool_calls(message["tool_calls"], place)
    else:
        message.pop("tool_calls", None)
    return message


def _check_content(message: Message, place: int) -> None:
    """Makes the content text, where it is a list of texts; raises DataError for anything else."""
    content, role = message["content"], message["role"]
    if isinstance(content, list):
        content = "".join(_part(one, place) for one in cast(list[Any], content))
        message["content"] = content
    if content is None and role == "tool":
        message["content"] = content = ""
    if content is not None and not isinstance(content, str):
        raise DataError(
            f"message {place} ({excerpt(role, 20)}) has {excerpt(repr(content), 60)} for its "
            f"content, not text; fix the row"
        )
    if role == "assistant" and not message.get("tool_calls") and not (content or "").strip():
        raise DataError(
            f"message {place} is an answer of the assistant without content or tool_calls; fix or "
            f"remove the row"
        )
    if content is None and role != "assistant":
        raise DataError(
            f"message {place} ({excerpt(role, 20)}) has no content; fix or remove the row"
        )


def _part(value: Any, place: int) -> str:
    if isinstance(value, str):
        return value
    part = cast(Message, value) if isinstance(value, dict) else {}
    if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
        kind = part.get("type", type(value).__name__)
        raise DataError(
            f"message {place} has a part of the type {excerpt(kind, 40)}, and only text is read; "
            f"fix or remove the row"
        )
    return part["text"]


def _tool_calls(value: Any, place: int) -> list[Message]:
    """Returns calls with a function each, its arguments as an object where they are JSON text."""
    calls = _parsed(value) if isinstance(value, str) else value
    calls = [calls] if isinstance(calls, dict) else calls
    made: list[Message] = []
    for call in cast(list[Any], calls) if isinstance(calls, list) else [None]:
        call = _parsed(call) if isinstance(call, str) else call
        given = cast(Message, call) if isinstance(call, dict) else {}
        function = given.get("function") or given
        function = _parsed(function) if isinstance(function, str) else function
        if not isinstance(function, dict) or not cast(Message, function).get("name"):
            raise DataError(
                f"message {place} has the tool call {excerpt(repr(call or value), 60)}, which "
                f"names no function; fix the row"
            )
        function = dict(cast(Message, function))
        if isinstance(function.get("arguments"), str):
            parsed = _parsed(function["arguments"])
            function["arguments"] = function["arguments"] if parsed is None else parsed
        rest = given if "function" in given else {}
        made.append({"type": "function", **rest, "function": function})
    return made


def _tools(value: Any) -> list[Any] | None:
    """Returns the tools of a row as a list of objects, None where it has none."""
    found = _parsed(value) if isinstance(value, str) and value.strip() else value
    found = [found] if isinstance(found, dict) else found
    if not found and (value is None or isinstance(value, str | list)):
        if isinstance(value, str) and value.strip() and found is None:
            raise DataError(
                f"its tools are the text {excerpt(repr(value), 60)}, which is not JSON; fix the row"
            )
        return None
    listed_tools = cast(list[Any], found) if isinstance(found, list) else [found]
    made = [_parsed(one) if isinstance(one, str) else one for one in listed_tools]
    wrong = next((one for one in made if not isinstance(one, dict)), None)
    if not all(isinstance(one, dict) for one in made):
        raise DataError(
            f"its tools hold {excerpt(repr(wrong), 60)}, not an object; give a list of objects, or "
            f"JSON text of one"
        )
    return made


def _parsed(text: str) -> Any:
    """Returns the value of JSON text, None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _without_nulls(value: Any) -> Any:
    """Returns a value without the keys that a table adds, except for the content of a message."""
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return {k: _without_nulls(v) for k, v in items if v is not None or k == "content"}
    if isinstance(value, list):
        return [_without_nulls(one) for one in cast(list[Any], value)]
    return value
