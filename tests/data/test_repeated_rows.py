"""A split that repeats the rows of train is told of: it measures memory."""

import json

import pytest
from rows_of import splits_of


def jsonl(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


ROWS = [{"text": f"text {number}", "label": number % 2} for number in range(40)]


@pytest.fixture
def sources(tmp_path):
    train, same = jsonl(tmp_path / "a.jsonl", ROWS), jsonl(tmp_path / "b.jsonl", ROWS[::-1])
    other = jsonl(tmp_path / "c.jsonl", [{**row, "text": row["text"] + "!"} for row in ROWS])
    part = jsonl(tmp_path / "d.jsonl", [{**ROWS[0], "label": 5}, {"text": "text 1!", "label": 1}])
    return {"train": train, "same": same, "other": other, "part": part}


@pytest.mark.parametrize(
    ("validation", "told"),
    [
        ("train", "40 of 40"),
        ("same", "40 of 40"),
        ("part", "1 of 2"),
        ("other", None),
        ({"ratio": 0.5}, None),
        (None, None),
    ],
)
def test_repeated_rows_are_told_of_by_their_texts(sources, validation, told):
    _, notes = splits_of({"files": sources}, validation=validation)
    assert len(notes) == (told is not None)
    if told:
        assert notes[0].startswith(f"{told} validation rows are also in train (text)")


def test_blank_rows_and_a_few_by_chance_are_not(tmp_path):
    lines = ["", " ", *(f"line {number}" for number in range(30))]
    train, test = tmp_path / "a.txt", tmp_path / "b.txt"
    train.write_text("\n".join(lines))
    test.write_text("\n".join(["", "", "", "line 1", *(f"new {number}" for number in range(20))]))
    assert splits_of({"files": {"train": str(train), "test": str(test)}}, test="auto")[1] == []


def test_conversations_and_pairs_are_compared_whole(tmp_path):
    talk = [[{"role": "user", "content": str(number)}] for number in range(4)]
    train = jsonl(tmp_path / "a.jsonl", [{"messages": one} for one in talk])
    test = jsonl(tmp_path / "b.jsonl", [{"messages": one} for one in talk[:2]])
    _, notes = splits_of({"files": {"train": train, "test": test}}, test="auto")
    assert notes[0].startswith("2 of 2 test rows are also in train (messages)")
