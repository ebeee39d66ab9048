"""SQuAD's published files, read into the rows that the hub has."""

import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from trainer.data.columns import ROW
from trainer.data.sources import load_splits, rows_digest
from trainer.errors import DataError
from trainer.recipe.data import Data


def question(name: str, *answers: tuple[str, int], **other: Any) -> dict[str, Any]:
    listed = [{"text": text, "answer_start": start} for text, start in answers]
    return {"question": f"Which is {name}?", "id": name, "answers": listed, **other}


NOTRE_DAME = {
    "title": "Notre_Dame",
    "paragraphs": [
        {
            "context": "Gold {dome} [1].",
            "qas": [question("a1", ("Gold", 0)), question("a2", ("dome", 6))],
        },
        {"context": 'A "Marian" place.', "qas": [question("b1", ("Marian", 3), ("place", 11))]},
    ],
}
BEYONCE = {
    "title": "Beyoncé",
    "paragraphs": [
        {"context": "Born in Houston.", "qas": [question("c1", ("Houston", 8))]},
        {"context": "Nobody asks.", "qas": []},
    ],
}
V1: dict[str, Any] = {"data": [NOTRE_DAME, BEYONCE], "version": "1.1"}


def row(name: str, title: str, context: str, *answers: tuple[str, int]) -> dict[str, Any]:
    listed = {"text": [text for text, _ in answers], "answer_start": [at for _, at in answers]}
    return {
        "id": name,
        "title": title,
        "context": context,
        "question": f"Which is {name}?",
        "answers": listed,
    }


ROWS = [
    row("a1", "Notre_Dame", "Gold {dome} [1].", ("Gold", 0)),
    row("a2", "Notre_Dame", "Gold {dome} [1].", ("dome", 6)),
    row("b1", "Notre_Dame", 'A "Marian" place.', ("Marian", 3), ("place", 11)),
    row("c1", "Beyoncé", "Born in Houston.", ("Houston", 8)),
]


def load(*files: Path) -> datasets.Dataset:
    source = {"files": {"train": [str(file) for file in files]}}
    values = {"source": source, "split": {"validation": None, "test": None}}
    return load_splits(Data.model_validate_json(json.dumps(values)))[0]["train"]


def read(*files: Path) -> list[dict[str, Any]]:
    return load(*files).remove_columns(ROW).to_list()


def write(file: Path, content: Any, **style: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content, **style)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(text.encode()))
    else:
        file.write_text(text, "utf-8")
    return file


@pytest.mark.parametrize("name", ["train-v1.1.json", "train-v1.1.json.gz"])
@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"ensure_ascii": False}, {"sort_keys": True}])
def test_version_1_1(tmp_path, name, style):
    assert read(write(tmp_path / name, V1, **style)) == ROWS


def test_the_rows_are_those_of_the_hub(tmp_path):
    """With the same features, so that a run resumes if its rows come from the other source."""
    features = datasets.Features(
        {
            **dict.fromkeys(("id", "title", "context", "question"), datasets.Value("string")),
            "answers": {
                "text": datasets.List(datasets.Value("string")),
                "answer_start": datasets.List(datasets.Value("int32")),
            },
        }
    )
    datasets.Dataset.from_list(ROWS, features=features).to_parquet(str(tmp_path / "a.parquet"))
    ours, hub = load(write(tmp_path / "a.json", V1)), load(tmp_path / "a.parquet")
    assert ours.features == hub.features
    columns = ["id", "context", "question", "answers"]
    assert rows_digest(ours, columns) == rows_digest(hub, columns)


def test_version_2_0_has_questions_without_an_answer(tmp_path):
    """Keys in the order of the published file: version first, qas before context."""
    plausible = [{"text": "Houston", "answer_start": 8}]
    questions = [
        question("d1", ("Houston", 8), is_impossible=False),
        question("d2", is_impossible=True, plausible_answers=plausible),
        {"question": "Which is d3?", "id": "d3", "is_impossible": True},
    ]
    article = {"title": "B", "paragraphs": [{"qas": questions, "context": "Born in Houston."}]}
    assert read(write(tmp_path / "dev-v2.0.json", {"version": "v2.0", "data": [article]})) == [
        row("d1", "B", "Born in Houston.", ("Houston", 8)),
        row("d2", "B", "Born in Houston."),
        row("d3", "B", "Born in Houston."),
    ]


@pytest.mark.parametrize("no", [False, "false", "False", 0, "0", 0.0, None, "", " FALSE "])
def test_false_is_false_however_it_is_written(tmp_path, no):
    content = broken((1, "paragraphs", 0, "qas", 0, "is_impossible"), "")
    content["data"][1]["paragraphs"][0]["qas"][0]["is_impossible"] = no
    assert read(write(tmp_path / "a.json", content)) == ROWS


@pytest.mark.parametrize("yes", [True, "true", "True", 1, "1"])
def test_answers_to_an_impossible_question_are_left_to_the_task(tmp_path, yes):
    content = broken((1, "paragraphs", 0, "qas", 0, "is_impossible"), yes)
    rows = read(write(tmp_path / "a.json", content))
    assert [row["is_impossible"] for row in rows] == [None, None, None, True]
    assert [row["answers"] for row in rows] == [row["answers"] for row in ROWS]


def test_the_answers_of_a_question_without_that_key_are_unknown(tmp_path):
    content = broken((0, "paragraphs", 0, "qas", 1, "answers"))
    assert read(write(tmp_path / "a.json", content))[1]["answers"] is None


def test_several_files_and_files_with_a_byte_order_mark(tmp_path):
    first = write(tmp_path / "a.json", "\ufeff" + json.dumps({"data": [BEYONCE]}))
    second = write(tmp_path / "b.json.gz", {"data": [NOTRE_DAME]})
    assert read(first, second) == [ROWS[3], *ROWS[:3]]


def test_a_title_may_be_absent_and_an_id_a_number(tmp_path):
    """As annotation tools write them."""
    article = {
        "paragraphs": [{"context": "Born.", "qas": [{**question("x", ("Born", 0)), "id": 7}]}]
    }
    rows = read(write(tmp_path / "a.json", {"data": [article]}))
    assert [(row["id"], row["title"]) for row in rows] == [("7", "")]


@pytest.mark.parametrize(
    "content",
    [
        '{"data": "a", "text": "b"}\n{"data": "c", "text": "\\"paragraphs\\": ["}\n',
        '{"data": [1, 2]}\n{"data": [3]}\n',
        '[{"data": [{"paragraphs": []}]}]',
    ],
)
def test_other_json_is_not_read_as_squad(tmp_path, content):
    rows = read(write(tmp_path / "a.json", content))
    assert all("data" in row for row in rows)
    assert len(rows) == content.count('{"data"')


def broken(path: tuple[Any, ...], value: Any = None) -> dict[str, Any]:
    """Returns V1 without the key at the end of a path, or with another value there."""
    content = copy.deepcopy(V1)
    inner: Any = content["data"]
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (broken((1, "paragraphs")), "article 2 has no paragraphs; fix it there"),
        (broken((1, "paragraphs"), {}), "article 2 has a wrong paragraphs"),
        (broken((0, "paragraphs", 1, "context")), "article 1, paragraph 2 has no context"),
        (broken((0, "paragraphs", 1, "context"), 3), "article 1, paragraph 2 has a wrong context"),
        (broken((1, "paragraphs", 1, "qas")), "article 2, paragraph 2 has no qas"),
        (broken((0, "paragraphs", 0, "qas", 1, "id")), "paragraph 1, question 2 has no id"),
        (broken((0, "paragraphs", 0, "qas", 1, "question")), "question a2 has no question"),
        (broken((0, "paragraphs", 0, "qas", 1, "answers"), 3), "question a2 has a wrong answers"),
        (
            broken((0, "paragraphs", 0, "qas", 1, "is_impossible"), "perhaps"),
            "question a2: is_impossible is 'perhaps'; write true or false",
        ),
        (
            broken((0, "paragraphs", 1, "qas", 0, "answers", 1, "answer_start"), True),
            "question b1 has a wrong answer_start",
        ),
        (broken((0, "paragraphs", 1, "qas", 0, "answers", 1, "text")), "question b1 has no text"),
        (
            broken((0, "paragraphs", 1, "qas", 0, "answers", 1, "answer_start"), "3"),
            "question b1 has a wrong answer_start",
        ),
        (broken((1,), "words"), "article 2 has no paragraphs"),
        (json.dumps(V1, indent=1)[:-40], "line [0-9]+ is not valid JSON"),
        ({"data": [{"title": "a", "paragraphs": []}]}, "no rows in "),
    ],
)
def test_a_malformed_file_is_named_with_the_place(tmp_path, content, sentence):
    file = write(tmp_path / "a.json", content)
    with pytest.raises(DataError, match=sentence) as caught:
        read(file)
    error = caught.value
    assert error.key == "data.source.files.train"
    assert str(error).startswith(f"{error.key}: ")
    assert str(file) in str(error)
    assert "\n" not in str(error)
    if missing := re.search(r" has (?:no|a wrong) (\w+)", sentence):
        assert error.value == missing[1]
        assert error.hint == "fix it there, as SQuAD's format has it"


def test_a_zipped_file_that_was_cut(tmp_path):
    file = write(tmp_path / "a.json.gz", V1)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"a\.json\.gz cannot be read") as caught:
        read(file)
    assert (caught.value.value, caught.value.hint) == (str(file), "fetch it again")
    assert "\n" not in str(caught.value)


def test_files_of_two_formats_are_refused(tmp_path):
    squad = write(tmp_path / "a.json", V1)
    other = write(tmp_path / "b.json", [{"question": "q"}])
    with pytest.raises(DataError, match=r"a\.json in SQuAD.s format, and .*b") as caught:
        read(squad, other)
    assert (caught.value.value, caught.value.hint) == (str(other), "give files of one format")
