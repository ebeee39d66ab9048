"""Conversations: what is remembered, what a comparison shows, and what a terminal is spared."""

import fcntl
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from support.command_line import invoke

import trainer
from trainer.cli.chat import _answer
from trainer.errors import ConfigError, DataError
from trainer.prediction.dialogue import open_dialogues

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def chat_model(run_of, tmp_path_factory) -> Path:
    """A model of random text with a chat template."""
    folder, source = tmp_path_factory.mktemp("chat") / "base", run_of("causal_lm-instructions")
    model, tokenizer = trainer.load(source).load()
    model.save_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chat_run(chat_model, tmp_path_factory) -> Path:
    """A run that tuned it with large steps."""
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c d"}]}
    ] * 40
    recipe = trainer.Recipe(
        model={"name_or_path": str(chat_model)},
        task={"name": "causal_lm", "chat": True, "generation": {"num_examples": 0}},
        data={"source": {"builtin": "reviews"}, "split": {"validation": {"ratio": 0.2}}},
        batch={"global_batch_size": 8, "max_seq_length": 64},
        optimizer={"learning_rate": 0.05},
        schedule={"steps": 4},
        evaluation={"baseline": False},
        checkpoint={"verify_export": False},
        tracking={"trackers": []},
    )
    directory = tmp_path_factory.mktemp("chat") / "run"
    trainer.train(recipe, run_dir=directory, data={"train": rows}, progress=None)
    return directory


def answers_of(model: Path, conversation: list[dict[str, str]], **settings: Any) -> str:
    row = {"messages": conversation}
    lines = invoke(
        "predict", model, "-", "--set", "task.generation.max_new_tokens=6", answers=json.dumps(row)
    ).stdout
    return json.loads(lines)["prediction"]


def asked(*texts: str) -> str:
    return "".join(f"{text}\n" for text in texts)


def chat(model: Path, *arguments: str, answers: str) -> str:
    done = invoke("chat", model, "--max-new-tokens", 6, *arguments, answers=answers)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_conversation_is_remembered_until_it_is_reset(chat_model):
    first, second, again = chat(
        chat_model, answers=asked("tell me", "and then", "/reset", "tell me", "/quit", "unread")
    ).splitlines()
    messages = [{"role": "user", "content": "tell me"}]
    assert first == again == answers_of(chat_model, messages)
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "and then"}]
    assert second == answers_of(chat_model, messages)


def test_a_system_prompt_comes_first(chat_model):
    (answer,) = chat(chat_model, "--system", "be brief", answers="tell me\n").splitlines()
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "tell me"}]
    assert answer == answers_of(chat_model, messages)


def test_a_comparison_shows_base_and_tuned_model(chat_run, chat_model):
    base, tuned = chat(chat_run, "--compare", answers="tell me\n").splitlines()
    messages = [{"role": "user", "content": "tell me"}]
    assert base == f"base: {answers_of(chat_model, messages)}"
    assert tuned == f"tuned: {answers_of(chat_run, messages)}"
    assert base.partition(" ")[2] != tuned.partition(" ")[2]


def test_answers_come_piece_by_piece_and_give_the_whole(chat_model):
    (dialogue,) = open_dialogues(chat_model, max_new_tokens=6).values()
    pieces: list[str] = []
    answer = dialogue.ask("tell me", pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == answer
    assert dialogue.messages[-1] == {"role": "assistant", "content": answer}


def test_a_conversation_that_fills_the_model_is_an_error_and_forgotten(chat_model):
    (dialogue,) = open_dialogues(chat_model, max_new_tokens=6).values()
    with pytest.raises(DataError, match="128 positions"):
        dialogue.ask("word " * 200, print)
    assert dialogue.messages == []
    dialogue.ask("tell me", lambda _: None)
    failed = invoke("chat", chat_model, answers="word " * 200)
    assert failed.exit_code == 2
    assert failed.stderr.count("\n") == 1


def test_without_a_template_each_line_is_a_prompt(run_of):
    """It fills the first column of the recipe's prompt; the others are empty."""
    directory = run_of("causal_lm-instructions")
    first, second = chat(directory, answers=asked("copy", "copy")).splitlines()
    rows = [{"instruction": "copy", "input": ""}]
    longest = "task.generation.max_new_tokens=6"
    done = invoke("predict", directory, "-", "--set", longest, answers=json.dumps(rows[0]))
    assert first == second == json.loads(done.stdout)["prediction"]
    failed = invoke("chat", directory, "--system", "be brief", answers="copy\n")
    assert failed.exit_code == 2
    assert "--system" in failed.stderr


def test_what_cannot_converse_is_refused(reviews_run, chat_model, run_of):
    assert "trainer predict" in invoke("chat", reviews_run).stderr
    with pytest.raises(ConfigError, match="without a run"):
        open_dialogues(chat_model, compare=True, max_new_tokens=6)
    with pytest.raises(ConfigError, match="random weights"):
        open_dialogues(run_of("causal_lm-instructions"), compare=True, max_new_tokens=6)
    for arguments in (["--max-new-tokens", "0"], ["--system"]):
        assert invoke("chat", chat_model, *arguments).exit_code == 2


class Interrupted:
    """A dialogue whose answer is stopped, after it was asked as often as `answers` says."""

    def __init__(self, answers):
        self.messages, self.answers = ["earlier"], answers

    def ask(self, text, show):
        if self.answers == 0:
            raise KeyboardInterrupt
        self.answers -= 1
        self.messages = [*self.messages, text]
        show("yes")


def test_a_text_whose_answer_was_stopped_is_remembered_by_no_model(capsys):
    dialogues = {"base": Interrupted(2), "tuned": Interrupted(1)}
    _answer(dialogues, "first")
    with pytest.raises(KeyboardInterrupt):
        _answer(dialogues, "second")
    assert [dialogue.messages for dialogue in dialogues.values()] == [["earlier", "first"]] * 2
    assert capsys.readouterr().out == "base: yes\ntuned: yes\nbase: yes\ntuned: "


@pytest.mark.distributed
def test_ctrl_c_stops_an_answer_on_a_terminal_but_not_the_chat(chat_model, tmp_path):
    shutil.copytree(chat_model, tmp_path / "model")
    file = tmp_path / "model" / "config.json"  # of a Llama, whose positions are computed
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 10**6}))
    command = [sys.executable, "-m", "trainer", "chat", tmp_path / "model"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command, "--max-new-tokens", "900000"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=partial(fcntl.ioctl, theirs, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)

    def until(text: bytes) -> None:
        read = b""
        while text not in read:
            assert select.select([ours], [], [], 120)[0], read
            read += os.read(ours, 4096)

    try:
        until(b"> ")
        for _ in range(2):  # the second shows that it went on
            os.write(ours, b"tell me\n")
            until(b"tell me\r\n")
            select.select([ours], [], [], 120)  # until the answer begins
            os.write(ours, b"\x03")
            until(b"stopped, and not remembered")
            until(b"> ")
        os.write(ours, b"/quit\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_control_characters_of_an_answer_are_shown_harmlessly(chat_model, tmp_path):
    """Each piece of the vocabulary begins with the character that starts a terminal's commands."""
    shutil.copytree(chat_model, tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    values = json.loads(file.read_text())
    special = {token["content"] for token in values["added_tokens"]}
    values["model"]["vocab"] = {
        piece if piece in special else f"\x1b[2J{piece}": index
        for piece, index in values["model"]["vocab"].items()
    }
    file.write_text(json.dumps(values))
    shown = chat(tmp_path / "model", answers="tell me\n")
    assert "\\x1b[2J" in shown
    assert "\x1b" not in shown


def test_a_table_of_conversations_is_continued_like_json_lines(chat_model, tmp_path):
    """A table has a null for each key that only other messages have."""
    rows = [
        {"messages": [{"role": "user", "content": "tell me"}]},
        {"messages": [{"role": "user", "content": "add", "name": "Ann", "tool_calls": None}]},
        {"messages": [{"role": "user", "content": "add"}, {"role": "assistant", "content": "b"}]},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    longest = ("--set", "task.generation.max_new_tokens=6")
    answers: list[list[str]] = []
    for name in ("rows.jsonl", "rows.parquet"):
        lines = invoke("predict", chat_model, tmp_path / name, *longest).stdout.splitlines()
        answers.append([json.loads(line)["prediction"] for line in lines])
    assert len(answers[0]) == 3
    assert answers[0] == answers[1]
    assert answers[0][1] == answers[0][2], "the answer of the row itself is not read"
