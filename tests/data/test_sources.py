"""Rows from files, folders and generators, and how they become splits."""

import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from trainer.data.columns import ROW
from trainer.data.sources import load_splits, rows_digest
from trainer.errors import ConfigError, DataError
from trainer.recipe.data import Data

ROWS = [{"text": f"text {number}", "label": number % 2} for number in range(50)]


def data(source: dict[str, Any], *, validation: Any = None, test: Any = None, **other: Any) -> Data:
    values = {"source": source, "split": {"validation": validation, "test": test}, **other}
    return Data.model_validate_json(json.dumps(values))


def load(file: Path | list[Path], **other: Any) -> datasets.Dataset:
    paths = [str(path) for path in file] if isinstance(file, list) else str(file)
    return parts(data({"files": {"train": paths}}, **other))["train"]


def parts(recipe: Data) -> dict[str, datasets.Dataset]:
    """Returns the splits without the numbers of their rows."""
    return {name: rows.remove_columns(ROW) for name, rows in load_splits(recipe)[0].items()}


def write(file: Path, text: str) -> Path:
    file.write_text(text, "utf-8")
    return file


def jsonl(file: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    return write(file, "".join(json.dumps(row) + "\n" for row in rows))


def table(file: Path, **dialect: Any) -> Path:
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, ["text", "label"], **dialect)
        writer.writeheader()
        writer.writerows(ROWS)
    return file


def zipped(file: Path) -> Path:
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    return file.with_name(f"{file.name}.gz")


def parquet(file: Path) -> Path:
    datasets.Dataset.from_list(ROWS).to_parquet(str(file))
    return file


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: table(folder / "a.csv"),
        lambda folder: table(folder / "a.tsv", delimiter="\t"),
        lambda folder: zipped(table(folder / "a.csv")),
        lambda folder: zipped(table(folder / "a.tsv", delimiter="\t")),
        lambda folder: jsonl(folder / "a.jsonl"),
        lambda folder: zipped(jsonl(folder / "a.jsonl")),
        lambda folder: write(folder / "a.json", json.dumps(ROWS)),
        lambda folder: zipped(write(folder / "a.json", json.dumps(ROWS, indent=1))),
        lambda folder: parquet(folder / "a.parquet"),
    ],
    ids="csv tsv csv.gz tsv.gz jsonl jsonl.gz json json.gz parquet".split(),
)
def test_each_kind_of_file_gives_the_same_rows(tmp_path, make):
    rows = load(make(tmp_path)).to_list()
    assert [{**row, "label": int(row["label"])} for row in rows] == ROWS


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_cells_of_a_table_stay_the_text_that_they_are(tmp_path, name):
    cells = {"text": "007", "label": "01"}
    separator = "," if name == "a.csv" else "\t"
    lines = [separator.join(cells), separator.join(cells.values())]
    assert load(write(tmp_path / name, "\n".join(lines))).to_list() == [cells]


@pytest.mark.parametrize("pack", [lambda file: file, lambda file: zipped(file)], ids=["", "gz"])
def test_each_line_of_a_text_file_is_a_row_and_so_is_each_blank_one(tmp_path, pack):
    lines = ["= Title =", "", "", "  two, three ", " ", "a\u2028b\x0bc", '"quoted"', "", "last"]
    file = write(tmp_path / "a.txt", "\n".join(lines))
    assert load(pack(file)).to_list() == [{"text": line} for line in lines]
    file.write_bytes("\r\n".join([*lines, ""]).encode())
    assert load(pack(file)).to_list() == [{"text": line} for line in lines]


def test_quotes_in_a_tsv_are_characters(tmp_path):
    texts = ['say "hi"', '"open', 'shut"', '"both"', '""']
    file = write(tmp_path / "a.tsv", "text\tlabel\n" + "".join(f"{text}\t1\n" for text in texts))
    assert load(file)["text"][:] == texts


def test_quotes_in_a_csv_are_quotes(tmp_path):
    file = write(tmp_path / "a.csv", 'text,label\n"one, ""two""\nthree",1\n')
    assert load(file)["text"][:] == ['one, "two"\nthree']


@pytest.mark.parametrize(("suffix", "comma"), [("csv", ","), ("tsv", "\t")])
def test_words_that_look_like_missing_values_are_words(tmp_path, suffix, comma):
    words = ["null", "NA", "None", "nan", "N/A", "#N/A", ""]
    lines = [f"{word}{comma}x" for word in words]
    file = write(tmp_path / f"a.{suffix}", "\n".join([f"text{comma}label", *lines, ""]))
    assert load(file)["text"][:] == words


def test_files_and_folders_are_read_in_order(tmp_path):
    first = jsonl(tmp_path / "z.jsonl", ROWS[:10])
    folder = tmp_path / "parts"
    folder.mkdir()
    for part in (30, 10, 40, 20):  # as a file system may list them
        jsonl(folder / f"{part}.jsonl", ROWS[part : part + 10])
    (folder / "README.md").write_text("not data")
    assert load([first, folder]).to_list() == ROWS


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "txt"])
def test_zipped_and_plain_files_of_a_kind_go_together(tmp_path, suffix):
    separator = {"csv": ",", "tsv": "\t"}.get(suffix)
    expected = []
    for number in range(3):
        row = {"text": f"text {number}"} if suffix == "txt" else {"text": "a", "label": str(number)}
        expected.append(row)
        content = {
            "json": json.dumps([row]),
            "jsonl": json.dumps(row) + "\n",
            "txt": row["text"] + "\n",
        }.get(suffix) or "\n".join((separator or "").join(line) for line in (row, row.values()))
        file = write(tmp_path / f"{number}.{suffix}", content)
        if number != 1:
            zipped(file)
            file.unlink()
    assert load(tmp_path).to_list() == expected
    assert load([tmp_path / f"2.{suffix}.gz", tmp_path]).to_list() == [expected[2], *expected]


def test_splits_come_from_their_files(tmp_path):
    files = {name: jsonl(tmp_path / f"{name}.jsonl", ROWS[:size]) for name, size in SIZES.items()}
    source = {"files": {name: str(file) for name, file in files.items()}}
    splits = parts(data(source, validation="auto", test="auto"))
    assert {name: len(rows) for name, rows in splits.items()} == SIZES


SIZES = {"train": 30, "validation": 20, "test": 10}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("absent.csv", None, r"there is no file .*absent\.csv"),
        ("empty.csv", "", r"empty\.csv is empty"),
        ("empty.jsonl", "", r"empty\.jsonl is empty"),
        ("header.csv", "text,label\n", r"no rows in .*header\.csv"),
        ("blank.jsonl", "\n", r"no rows in .*blank\.jsonl"),
        ("none.json", "[]", r"no rows in .*none\.json"),
        ("book.xlsx", "x", r"book\.xlsx is not of a known kind; use \.json, "),
        ("noname", "x", "noname is not of a known kind"),
        ("a.jsonl", '{"text": \n', r"a\.jsonl, line 1 is not valid JSON "),
        ("a.parquet", "text", r"a\.parquet cannot be read as parquet: "),
        ("a.csv", 'text,label\n"x', r"a\.csv, line 2: a quote is not closed"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, name, content, sentence):
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(DataError, match=r"data\.source\.files\.train: .*" + sentence) as caught:
        load(tmp_path / name)
    assert caught.value.key == "data.source.files.train"
    assert caught.value.value == str(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pack", [lambda file: file, lambda file: zipped(file)], ids=["", "gz"])
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "a.jsonl",
            '{"a": 1}\n\n{"a": 2\n{"a": 3}\n',
            r"line 3 is not valid JSON \(Expecting ',' ",
        ),
        ("a.jsonl", '{"a": 1}\n{"a": "b}\n', r"line 2 is not valid JSON .* at character 7\); fix"),
        ("a.jsonl", '{"a": 1}\n["b"]\n', "line 2 is not a JSON object; fix or remove that line"),
        ("a.json", '{"a": 1}\n{"a" 2}\n', "line 2 is not valid JSON "),
        (
            "a.json",
            '[{"a": 1},\n {"a": 2},\n {"a" 3}]',
            "line 3 is not valid JSON .*; fix the file",
        ),
        ("a.json", '{\n "a": 1,\n "b" 2\n}', "line 3 is not valid JSON "),
    ],
)
def test_a_line_of_broken_json_is_named(tmp_path, name, content, sentence, pack):
    good = jsonl(tmp_path / f"good{Path(name).suffix}", [{"a": 0}])
    bad = pack(write(tmp_path / name, content))
    named = rf"data\.source\.files\.train: {re.escape(str(bad))}, "
    with pytest.raises(DataError, match=named + sentence) as caught:
        load([good, bad])
    error = caught.value
    assert (error.key, error.value) == ("data.source.files.train", str(bad))
    assert str(error).endswith(f"; {error.hint}")
    assert "\n" not in str(caught.value)


def test_the_line_is_found_far_down_in_a_file(tmp_path):
    rows = [json.dumps({"text": "x" * 1000, "label": 1})] * 12_000  # beyond the reader's first part
    rows[11_233] = rows[11_233][:-3]
    with pytest.raises(DataError, match=r"a\.jsonl, line 11234 is not valid JSON"):
        load(write(tmp_path / "a.jsonl", "\n".join(rows)))


def test_invalid_bytes_are_named_by_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": "x"}\n{"a": "\xff"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2 is not valid JSON \(not UTF-8\)"):
        load(tmp_path / "a.jsonl")
    (tmp_path / "a.json").write_bytes(b'[{"a": "x"},\n {"a": "y"},\n {"a": "\xff"}]\n')
    with pytest.raises(DataError, match=r"a\.json, line 3 is not valid JSON \(not UTF-8\)"):
        load(tmp_path / "a.json")


def test_a_zipped_file_that_was_cut_is_one_sentence(tmp_path):
    file = zipped(jsonl(tmp_path / "a.jsonl"))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz cannot be read \(") as caught:
        load(file)
    assert (caught.value.value, caught.value.hint) == (str(file), "fetch it again")
    assert "\n" not in str(caught.value)


def test_a_folder_without_data_and_files_of_two_kinds_are_refused(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no data files in the folder") as caught:
        load(tmp_path / "none")
    assert caught.value.value == str(tmp_path / "none")
    files = [jsonl(tmp_path / "a.jsonl"), table(tmp_path / "b.csv")]
    with pytest.raises(DataError, match=r"files of several kinds: \.csv, \.jsonl") as caught:
        load(files)
    assert (caught.value.value, caught.value.hint) == ([".csv", ".jsonl"], "give files of one kind")


def test_files_with_other_columns_are_refused(tmp_path):
    files = [jsonl(tmp_path / "a.jsonl"), jsonl(tmp_path / "b.jsonl", [{"txt": "a", "label": 0}])]
    with pytest.raises(DataError, match=r"b\.jsonl cannot be read with") as caught:
        load(files)
    assert (caught.value.key, caught.value.value) == ("data.source.files.train", str(files[1]))


def test_a_ratio_is_that_of_train_test_split(tmp_path):
    file = jsonl(tmp_path / "a.jsonl")
    source = {"files": {"train": str(file)}}
    splits = parts(data(source, validation={"ratio": 0.2, "seed": 1}))
    expected = datasets.Dataset.from_list(ROWS).train_test_split(test_size=0.2, seed=1)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 40, "validation": 10}
    assert splits["train"].to_list() == expected["train"].to_list()
    assert splits["validation"].to_list() == expected["test"].to_list()
    other = parts(data(source, validation={"ratio": 0.2, "seed": 2}))
    assert other["validation"].to_list() != splits["validation"].to_list()


def test_two_ratios_share_no_row(tmp_path):
    source = {"files": {"train": str(jsonl(tmp_path / "a.jsonl"))}}
    splits = parts(data(source, validation={"ratio": 0.2}, test={"ratio": 0.5}))
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 20,
        "validation": 10,
        "test": 20,
    }
    texts = [text for rows in splits.values() for text in rows["text"]]
    assert sorted(texts) == sorted(row["text"] for row in ROWS)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (["train"], {"train": 45, "validation": 5}),
        (["train", "validation"], {"train": 50, "validation": 50}),
        (["train", "test"], {"train": 45, "validation": 5, "test": 50}),
    ],
)
def test_auto_takes_existing_splits_and_a_tenth_for_validation(tmp_path, present, expected):
    file = str(jsonl(tmp_path / "a.jsonl"))
    source = {"files": dict.fromkeys(present, file)}
    splits = parts(data(source, validation="auto", test="auto"))
    assert {name: len(rows) for name, rows in splits.items()} == expected


def test_one_split_can_stand_in_for_another_and_a_wrong_name_lists_them(tmp_path):
    train, other = jsonl(tmp_path / "a.jsonl"), jsonl(tmp_path / "b.jsonl", ROWS[:7])
    source = {"files": {"train": str(train), "dev": str(other)}}
    splits = parts(data(source, validation={"ratio": 0.2}, test="dev"))
    assert splits["test"].to_list() == ROWS[:7]
    with pytest.raises(ConfigError, match="the source has no split devv") as caught:
        parts(data(source, test="devv"))
    error = caught.value
    assert (error.key, error.value, error.hint) == ("data.split.test", "devv", "it has train, dev")


def test_too_few_rows_to_divide_is_one_sentence(tmp_path):
    source = {"files": {"train": str(jsonl(tmp_path / "a.jsonl", ROWS[:1]))}}
    with pytest.raises(DataError, match=r"1 rows cannot give a part of 0\.2") as caught:
        parts(data(source, validation={"ratio": 0.2}))
    assert (caught.value.key, caught.value.value) == ("data.split.validation", 0.2)
    assert caught.value.hint == "use more rows or another ratio"


def test_max_rows_takes_the_first_of_each_split(tmp_path):
    source = {
        "files": {"train": str(jsonl(tmp_path / "a.jsonl")), "test": str(tmp_path / "a.jsonl")}
    }
    splits = parts(data(source, test="auto", max_rows=4))
    assert splits["train"].to_list() == splits["test"].to_list() == ROWS[:4]
    assert len(load(tmp_path / "a.jsonl", max_rows=500)) == len(ROWS)


def test_an_empty_split_is_refused(tmp_path):
    """Parquet keeps columns without rows, which other kinds cannot say."""
    none = datasets.Dataset.from_list(ROWS).select([])
    none.to_parquet(str(tmp_path / "none.parquet"))
    table_ = parquet(tmp_path / "a.parquet")
    source = {"files": {"train": str(table_), "test": str(tmp_path / "none.parquet")}}
    with pytest.raises(DataError, match=r"no rows in .*none\.parquet") as caught:
        parts(data(source, test="auto"))
    assert caught.value.key == "data.source.files.test"
    assert caught.value.value == str(tmp_path / "none.parquet")


def test_a_folder_may_take_the_place_of_a_hub_name(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    table(corpus / "train.csv")
    table(corpus / "test.csv")
    splits = parts(data({"hub": str(corpus)}, test="auto"))
    assert splits["train"].to_list() == splits["test"].to_list() == ROWS


LABELLED = datasets.Dataset.from_list(
    ROWS,
    features=datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    ),
)


def test_a_folder_holds_a_hub_data_set_of_several_configurations(tmp_path):
    """As the hub has them: a folder each, named in the head of the README."""
    for config, size in (("plain", 50), ("small", 20)):
        (tmp_path / config).mkdir()
        rows = LABELLED.select(range(size))
        rows.to_parquet(str(tmp_path / config / "train-00000-of-00001.parquet"))
        rows.select(range(5)).to_parquet(str(tmp_path / config / "dev.parquet"))
    head = [
        line
        for config in ("plain", "small")
        for line in (
            f"- config_name: {config}",
            "  data_files:",
            f"  - {{split: train, path: {config}/train-*}}",
            f"  - {{split: validation, path: {config}/dev.parquet}}",
        )
    ]
    write(tmp_path / "README.md", "\n".join(["---", "configs:", *head, "---", "# Reviews", ""]))
    for config, size in (("plain", 50), ("small", 20)):
        splits = parts(data({"hub": str(tmp_path), "config": config}, validation="auto"))
        assert splits["train"].to_list() == ROWS[:size]
        assert splits["validation"].to_list() == ROWS[:5]
        assert splits["train"].features["label"].names == ["bad", "good"]
    for config, named in (("smal", "'smal' not found.*'plain', 'small'"), (None, "Config name")):
        source = {"hub": str(tmp_path)} | ({"config": config} if config else {})
        with pytest.raises(DataError, match=named) as caught:
            parts(data(source))
        full_name = f"{tmp_path}/{config}" if config else str(tmp_path)
        assert (caught.value.key, caught.value.value) == ("data.source.hub", full_name)


def test_names_of_labels_survive_division_exclusion_and_max_rows(tmp_path):
    LABELLED.to_parquet(str(tmp_path / "a.parquet"))
    source = {"files": {"train": str(tmp_path / "a.parquet")}}
    splits = parts(data(source, validation="auto", exclude={"text": ["text 3"]}, max_rows=40))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 36, "validation": 4}
    for rows in splits.values():
        assert rows.features["label"].names == ["bad", "good"]


def test_rows_are_numbered_as_in_their_file(tmp_path):
    source = {"files": {"train": str(jsonl(tmp_path / "a.jsonl"))}}
    splits, _ = load_splits(data(source, validation={"ratio": 0.2}, max_rows=30))
    for rows in splits.values():
        assert [ROWS[row - 1]["text"] for row in rows[ROW]] == rows["text"][:]
    assert sorted(row for rows in splits.values() for row in rows[ROW]) == list(range(1, 31))


@pytest.mark.parametrize("source", [{"hub": "nobody/nothing"}, {"hub": "glue", "config": "sst2"}])
def test_what_the_hub_does_not_give_is_one_sentence(source):
    with pytest.raises(DataError, match=r"(nobody/nothing|glue/sst2) cannot be loaded") as caught:
        parts(data(source))
    assert caught.value.key == "data.source.hub"
    assert caught.value.value in ("nobody/nothing", "glue/sst2")
    assert "run `trainer prepare RECIPE` on a machine that reaches the hub" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_built_in_rows_and_an_unknown_generator():
    source = {"builtin": "reviews", "num_rows": 30, "seed": 4}
    splits = parts(data(source, validation="auto", test="auto"))
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 30,
        "validation": 200,
        "test": 200,
    }
    with pytest.raises(ConfigError, match="there is no review;") as caught:
        parts(data({"builtin": "review"}))
    assert (caught.value.key, caught.value.value) == ("data.source.builtin", "review")
    assert caught.value.hint == "did you mean reviews?"


def test_the_digest_is_that_of_the_rows_wherever_they_come_from(tmp_path):
    columns = ["text", "label"]
    rows = load(jsonl(tmp_path / "a.jsonl"))
    digest = rows_digest(rows, columns)
    assert digest == rows_digest(load(parquet(tmp_path / "a.parquet")), columns)
    assert digest == rows_digest(rows.add_column("id", list(range(50))), columns)
    assert digest == rows_digest(rows.select(list(range(50))), columns)
    parts = datasets.concatenate_datasets([rows.select(range(20)), rows.select(range(20, 50))])
    assert digest == rows_digest(parts, columns)
    named = rows.cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
    assert digest == rows_digest(named, columns)
    assert digest != rows_digest(rows.select(list(reversed(range(50)))), columns)
    assert digest != rows_digest(rows.select(range(49)), columns)
    assert digest != rows_digest(rows, ["text"])
    changed = [{**row, "text": row["text"].replace("49", "94")} for row in ROWS]
    assert digest != rows_digest(datasets.Dataset.from_list(changed), columns)
