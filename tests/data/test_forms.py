"""Forms in which people keep rows: JSON of several kinds, saved data sets, .arrow files."""

import gzip
import json

import datasets
import pyarrow as pa
import pytest
from support.rows_of import rows_of, splits_of

from trainer.errors import DataError

ROWS = [{"text": f"text {number}", "label": number % 2} for number in range(12)]


def write(file, content):
    file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return file


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "make",
    [
        lambda rows: rows,
        lambda rows: {"version": "0.1.0", "data": rows},
        lambda rows: {"data": rows, "info": {"by": ["me"]}},
        lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
    ],
    ids=["list", "run_qa", "data first", "columns"],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_one_json_value_with_the_rows_in_it(tmp_path, make, indent, mark):
    file = write(tmp_path / "a.json", mark + json.dumps(make(ROWS), indent=indent))
    assert rows_of(file) == ROWS


def test_a_single_object_is_a_row_and_texts_are_rows_of_text(tmp_path):
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    for indent in (None, 1):
        assert rows_of(write(tmp_path / "a.json", json.dumps(talk, indent=indent))) == [talk]
        row = json.dumps({"text": "a", "n": 1}, indent=indent)
        assert rows_of(write(tmp_path / "a.json", row)) == [{"text": "a", "n": 1}]
    assert rows_of(write(tmp_path / "a.json", ["a", "b"])) == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("between", ["\n", " ", "\r", "\n\n", "\r\n"])
@pytest.mark.parametrize("indent", [None, 1])
def test_objects_one_after_the_other(tmp_path, name, between, indent):
    text = between.join(json.dumps(row, indent=indent) for row in ROWS)
    assert rows_of(write(tmp_path / name, text)) == ROWS


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_may_have_the_name_of_lines(tmp_path, indent):
    assert rows_of(write(tmp_path / "a.jsonl", json.dumps(ROWS, indent=indent))) == ROWS


def test_one_line_may_be_longer_than_lines_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.formats.json_files.LONGEST_LINE", 100)
    monkeypatch.setattr("trainer.data.formats.reading.LONGEST_LINE", 100)
    assert rows_of(write(tmp_path / "a.json", ROWS)) == ROWS
    assert rows_of(write(tmp_path / "b.json", {"data": ROWS})) == ROWS
    with pytest.raises(DataError, match=r"c\.jsonl, line 2 has more than 100 bytes") as caught:
        rows_of(write(tmp_path / "c.jsonl", '{"a": "b"}\n' + json.dumps({"a": "b" * 200})))
    assert (caught.value.value, caught.value.hint) == (str(tmp_path / "c.jsonl"), "divide it")
    for name in ("a.txt", "a.csv"):
        with pytest.raises(DataError, match=r"line 2 has more than 100 characters") as caught:
            rows_of(write(tmp_path / name, "text\n" + "x" * 200))
        assert (caught.value.value, caught.value.hint) == (str(tmp_path / name), "divide it")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("null", "holds null; what is read is a list of objects"),
        ("3", "holds 3;"),
        ('"text"', 'holds "text";'),
        ({"train": ROWS, "test": ROWS}, "holds an object of train, test; what is read is"),
        ([ROWS], "the list has a list as entry 1"),
        ([ROWS[0], None], "the list has null as entry 2"),
        ([1, 2], "the list has 1 as entry 1"),
        ({"version": 1, "data": [*ROWS, "x"]}, 'the list under data has "x" as entry 13'),
        ({"data": []}, "no rows in"),
        ("{}", "no rows in"),
        ("", "is empty"),
        ("[" * 100_000, "more than 50 levels deep"),
        ('{"a":' * 100 + "1" + "}" * 100, "more than 50 levels deep"),
        ("[{}, {}", "line 1 is not valid JSON"),
        ('{"a": 1},\n{"a": 2}', "line 1 is not valid JSON (Extra data"),
        ("[1] [2]", "line 1 is not valid JSON (Extra data"),
        ('[{"a": 1}]\n{"a": 2}', "line 2 is not valid JSON (Extra data"),
        ('[{"a": 1,\n "a": 2}]', "the key 'a' occurs twice in one object"),
        ('[{"a": 18446744073709551616}]', "18446744073709551616 is beyond 64 bits"),
        ('[{"a": -9223372036854775809}]', "-9223372036854775809 is beyond 64 bits"),
        ('[{"a": ' + "1" * 5000 + "}]", "is beyond 64 bits"),
        ('[{"a": "\\ud800"}]', "half of a surrogate pair"),
        ('[{"a": 01}]', "line 1 is not valid JSON"),
    ],
)
def test_other_json_is_refused_with_what_it_holds_and_what_is_read(tmp_path, content, sentence):
    file = write(tmp_path / "a.json", content)
    with pytest.raises(DataError) as caught:
        rows_of(file)
    error = caught.value
    assert (error.key, error.value) == ("data.source.files.train", str(file))
    assert str(error).startswith(f"{error.key}: ")
    assert sentence in str(error)
    assert str(file) in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "2020-01-01"}, {"text": "2021-01-01 00:00:00"}],
        [{"label": "1"}, {"label": 1}],
        [{"label": 0}, {"label": "zero"}, {"label": None}],
        [{"label": True}, {"label": 1}],
        [{"x": 0.1234567890123}, {"x": 1e-12}],
        [{"x": 2**63 - 1}, {"x": 0.5}],
        [{"x": 2**64 - 1}, {"x": 1}, {"x": None}],
        [{"x": 2**63 + 1}, {"x": -(2**63)}],
        [{"y": 2**63 + 1}, {"y": 0.5}, {"y": "a"}],
        [{"x": [2**64 - 1]}, {"x": [1]}],
        [{"x": {"y": 2**64 - 1}}, {"x": {"y": -1}}],
        [{"x": [1, "a", None]}, {"x": {"b": 1}}],
        [{"messages": '[{"role": "user"}]'}, {"messages": [{"role": "user"}]}],
        [{"type": "a", "message": {"a": 1}}, {"type": "b", "message": {"b": 1}}],
        [{"a": 1}, {"b": 2, "a": None}],
        [{"": "a", "a b": "c\u0000d\u2028"}],
        [{"row": None}],
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_values_stay_what_they_are(tmp_path, rows, name):
    """Even those that the library would read as times or numbers, round, or fail to read."""
    lines = "\n".join(map(json.dumps, rows))
    read = rows_of(write(tmp_path / name, rows if name == "a.json" else lines))
    names = dict.fromkeys(name for row in rows for name in row)
    assert read == [{name: row.get(name) for name in names} for row in rows]
    kinds = [[type(value) for value in row.values()] for row in read]
    if rows[0].keys() == {"label"} or rows[0].get("x") in (2**63 + 1, 2**64 - 1):
        assert kinds == [[type(value) for value in row.values()] for row in rows]


def test_a_column_that_begins_far_down_and_one_that_becomes_a_fraction(tmp_path):
    rows = [{"text": "x" * 1000, "n": number} for number in range(11_000)]
    rows += [{"text": "y", "n": 0.5, "late": "z"}]
    read = rows_of(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert len(read) == len(rows)
    assert read[-1] == rows[-1]
    assert read[0] == {**rows[0], "late": None}


def test_the_format_of_simpletransformers_and_bare_articles(tmp_path):
    answer = {"text": "Oslo", "answer_start": 0}
    question = {"id": "0", "question": "Where?", "answers": [answer]}
    paragraphs = [{"context": "Oslo [is] {here}.", "qas": [question, {**question, "id": "1"}]}]
    row = {"title": "", "context": "Oslo [is] {here}.", "question": "Where?"}
    answers = {"text": ["Oslo"], "answer_start": [0]}
    expected = [{"id": name, **row, "answers": answers} for name in "01"]
    assert rows_of(write(tmp_path / "a.json", paragraphs)) == expected
    articles = [{"title": "Norway", "paragraphs": paragraphs}]
    assert rows_of(write(tmp_path / "a.json", articles)) == [
        {**row, "title": "Norway"} for row in expected
    ]


@pytest.mark.parametrize("start", [2**31, -(2**40), 2**62])
def test_the_start_of_an_answer_is_a_place_in_a_text(tmp_path, start):
    question = {"id": "0", "question": "?", "answers": [{"text": "c", "answer_start": start}]}
    article = {"paragraphs": [{"context": "c", "qas": [question]}]}
    with pytest.raises(DataError, match="answer_start is beyond 32 bits") as caught:
        rows_of(write(tmp_path / "a.json", {"data": [article]}))
    assert caught.value.value == str(tmp_path / "a.json")
    assert caught.value.hint == "give the index of a character of the context"


@pytest.fixture
def saved(tmp_path):
    """Returns folders of a Dataset of several files, and of a DatasetDict."""
    rows = datasets.Dataset.from_list(ROWS).cast_column(
        "label", datasets.ClassLabel(names=["no", "yes"])
    )
    rows.with_format("numpy").save_to_disk(str(tmp_path / "one"), num_shards=3)
    parts = {"train": rows.select(range(8)), "dev": rows.select(range(8, 12))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "several"))
    return tmp_path


def test_what_save_to_disk_wrote_is_read_by_either_name(saved):
    assert rows_of(saved / "one") == ROWS
    assert splits_of({"hub": str(saved / "one")})[0]["train"] == ROWS
    splits, _ = splits_of({"hub": str(saved / "several")}, validation="auto", test="dev")
    assert splits == {"train": ROWS[:8], "validation": ROWS[8:], "test": ROWS[8:]}
    assert rows_of(saved / "several" / "train", saved / "several" / "dev") == ROWS
    with pytest.raises(DataError, match="is a DatasetDict") as caught:
        rows_of(saved / "several")
    assert caught.value.value == str(saved / "several")
    assert "set data.source.hub to it" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("one/state.json", "null", "has no list _data_files"),
        ("one/state.json", "{", "cannot be read"),
        ("one/state.json", '{"_data_files": []}', "no rows in"),
        (
            "one/state.json",
            '{"_data_files": [{"filename": "../a.arrow"}]}',
            "is not an .arrow file",
        ),
        ("one/state.json", '{"_data_files": [{"filename": "z.arrow"}]}', "there is no file"),
        ("one/data-00000-of-00003.arrow", "x", "cannot be read as arrow"),
        ("several/dataset_dict.json", '{"splits": ["..", "train"]}', "cannot be the name"),
        ("several/dataset_dict.json", '{"splits": ["test"]}', "has no split test"),
        ("several/dataset_dict.json", '{"splits": 3}', "has no list splits"),
    ],
)
def test_a_saved_data_set_that_was_changed(saved, file, content, sentence):
    (saved / file).write_text(content)
    with pytest.raises(DataError) as caught:
        splits_of({"hub": str((saved / file).parent)})
    error = caught.value
    assert error.key == "data.source.hub"
    assert str(error.value).startswith(str((saved / file).parent))
    assert sentence in str(error)
    if (saved / file).suffix == ".json" and "no rows" not in sentence and "no file" not in sentence:
        assert (error.value, error.hint) == (str(saved / file), "save the data set again")


@pytest.mark.parametrize("opened", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("zipped", [False, True])
def test_arrow_files_of_both_formats(tmp_path, opened, zipped):
    table = pa.Table.from_pylist(ROWS)
    file = tmp_path / "a.arrow"
    with opened(str(file), table.schema) as writer:
        writer.write_table(table)
    if zipped:
        file = tmp_path / "a.arrow.gz"
        file.write_bytes(gzip.compress((tmp_path / "a.arrow").read_bytes()))
    assert rows_of(file) == ROWS


def test_a_file_is_zipped_or_not_whatever_its_name_says(tmp_path):
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(text.encode()))
    assert rows_of(tmp_path / "a.jsonl") == ROWS
    assert rows_of(write(tmp_path / "b.jsonl.gz", text)) == ROWS
