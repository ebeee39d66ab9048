"""Conversations: the forms in which data sets hold them, and errors that name the column."""

import json
from typing import Any

import pytest

from trainer.data.conversations import read_conversation
from trainer.errors import DataError

QUESTION = {"role": "user", "content": "Where?"}
ANSWER = {"role": "assistant", "content": "Oslo"}
SHAREGPT = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Oslo"}]


@pytest.mark.parametrize(
    "values",
    [
        [[QUESTION, ANSWER]],
        [json.dumps([QUESTION, ANSWER])],
        [SHAREGPT],
        [{"role": ["user", "assistant"], "content": ["Where?", "Oslo"]}],
        [[{**QUESTION, "content": [{"type": "text", "text": "Where?"}]}, ANSWER]],
    ],
)
def test_messages_are_read_in_each_form(values):
    conversation = read_conversation(values)
    assert conversation.messages == [QUESTION, ANSWER]
    assert (conversation.tools, conversation.num_given) == (None, 0)


def test_the_messages_of_a_prompt_are_counted_with_the_system_prompt():
    assert read_conversation([[QUESTION], [ANSWER]]).num_given == 1
    conversation = read_conversation([[QUESTION], [ANSWER]], system="Be brief.")
    assert conversation.messages[0] == {"role": "system", "content": "Be brief."}
    assert conversation.num_given == 2


def test_a_call_in_sharegpt_or_of_openai_becomes_a_tool_call():
    call = {"name": "add", "arguments": {"a": 1}}
    expected = [{"type": "function", "function": call}]
    text = json.dumps({**call, "arguments": json.dumps(call["arguments"])})
    for message in (
        {"from": "function_call", "value": text},
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "assistant", "content": None, "tool_calls": [{"function": call}]},
    ):
        (read,) = read_conversation([[message]]).messages
        assert (read["role"], read["content"], read["tool_calls"]) == ("assistant", None, expected)


def test_nulls_that_a_table_adds_are_dropped_but_not_from_the_content():
    answer = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "id": None}]}
    (read,) = read_conversation([[answer]], filled=True).messages
    assert read["content"] is None
    assert read["tool_calls"][0]["function"] == {"name": "f"}


MESSAGES = "data.columns.messages"


@pytest.mark.parametrize(
    ("value", "error_value", "hint"),
    [
        (None, None, "fix or remove the row"),
        (5, 5, "fix or remove the row"),
        ({"speaker": "a"}, {"speaker": "a"}, "fix or remove the row"),
        (
            "what",
            "what",
            "give objects of role and content, or set task.prompt and task.completion",
        ),
        (["what"], "what", "fix the row"),
        ([{"speaker": "a", "text": "b"}], ["speaker", "text"], "rename them"),
        ([{"role": "user", "content": 5}], 5, "fix the row"),
        ([{"role": "user", "content": None}], "user", "fix or remove the row"),
        ([{"role": "user", "content": [{"type": "image"}]}], "image", "fix or remove the row"),
        ([{"role": "assistant", "content": " "}], " ", "fix or remove the row"),
        ([{"role": "assistant", "tool_calls": [{"id": "1"}]}], {"id": "1"}, "fix the row"),
    ],
)
def test_messages_of_another_form_are_refused(value: Any, error_value: Any, hint: str):
    with pytest.raises(DataError) as caught:
        read_conversation([value])
    error = caught.value
    assert (error.key, error.value, error.hint) == (MESSAGES, error_value, hint)
    assert str(error).startswith(("its messages are ", "message 1 "))
    assert str(error).endswith(f"; {hint}")


@pytest.mark.parametrize(
    ("column", "value", "error_value"),
    [
        ("tools", "{", "{"),
        ("tools", [3], 3),
        ("tools", ["text"], None),
        ("system", 7, 7),
    ],
)
def test_tools_and_system_prompts_of_another_form_are_refused(column, value, error_value):
    with pytest.raises(DataError, match=r"^its (tools|system prompt)") as caught:
        read_conversation([[QUESTION, ANSWER]], **{column: value})
    assert (caught.value.key, caught.value.value) == (f"data.columns.{column}", error_value)
