"""Tables: each cell is read exactly, whatever wrote the file, or the line at fault is named."""

import csv

import pytest
from pydantic import ValidationError
from support.rows_of import notes_of, rows_of

from trainer.errors import DataError

ROWS = [{"text": "so, so", "label": "01"}, {"text": "näive; no", "label": ""}]


def write(file, text, encoding="utf-8"):
    file.write_bytes(text.encode(encoding))
    return file


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_and_a_byte_order_mark(tmp_path, ending, mark, last):
    lines = ["text,label", '"so, so",01', "", "  ", "näive; no,"]
    text = mark + ending.join(lines) + ending * last
    assert rows_of(write(tmp_path / "a.csv", text)) == ROWS


@pytest.mark.parametrize(
    "character", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\n", "\r\n"]
)
def test_other_separators_in_a_cell_are_kept(tmp_path, character):
    text = f"a{character}b"
    assert rows_of(write(tmp_path / "a.csv", f'text,label\n"{text}",1\n'))[0]["text"] == text


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "text,label\na,1\nb, c,0\n", r"line 3 has 3 cells, and the header 2"),
        ("a.csv", "text,label\n1,a,1\n2,b,0\n", r"line 2 has 3 cells, and the header 2"),
        ("a.csv", "text,label\na,1\nb\n", r"line 3 has 1 cells, and the header 2"),
        ("a.csv", "text,label\na,1,\n", r"line 2 has 3 cells"),
        ("a.tsv", "text\tlabel\na\t1\nb\tc\t0\n", r"line 3 has 3 cells"),
        ("a.tsv", "text\tlabel\na\t1\nb\n", r"line 3 has 1 cells"),
        ("a.csv", 'text,label\na,1\n"b,0\nc,1\n', r"line 3: a quote is not closed"),
        (
            "a.csv",
            'text,label\n"b" c,0\n',
            r"line 2: a quote is not closed, or is followed by text",
        ),
        ("a.csv", 'text,label\n"a\n\nb",1\n"b"c,0\n', r"line 5: a quote"),
        ("a.csv", "text,text\na,1\n", r"line 1 has several columns called text"),
        ("a.csv", "text;label\na, b;1\n", r"divided by semicolons.*delimiter: \";\""),
        ("a.csv", "text\tlabel\na, b\t1\n", r"divided by tabs.*delimiter: \"\\t\""),
        ("a.csv", "id;text, long;label\n1;a, b;1\n", "divided by semicolons"),
        ("a.csv", "text|label\na|1\n", "divided by bars"),
        ("a.tsv", "text,label\na,1\n", r"divided by commas, not by tabs.*delimiter: \",\""),
        ("a.csv", "text,label\na\0b,1\n", r"line 2 contains a NUL"),
        ("a.csv", "text,label\na,1\nb\rc,0\n", r"line 3 has 1 cells|lone carriage return"),
        ("a.csv", "text\na\nb\rc\n", r"line 3: .*lone carriage return"),
        ("a.csv", "text,label\n", "no rows in"),
        ("a.csv", "\n \n", "no rows in"),
    ],
)
def test_a_table_that_may_be_read_wrongly_is_refused(tmp_path, name, text, sentence):
    with pytest.raises(DataError, match=rf"files\.train: .*({sentence})") as caught:
        rows_of(write(tmp_path / name, text))
    error = caught.value
    assert (error.key, error.value) == ("data.source.files.train", str(tmp_path / name))
    assert str(tmp_path / name) in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("encoding", "sentence"), [("latin-1", r"line 3 is not utf-8 text"), ("utf-16", "UTF-16")]
)
def test_an_encoding_is_read_if_the_recipe_names_it(tmp_path, encoding, sentence):
    file = write(tmp_path / "a.csv", 'text,label\n"so, so",01\nnäive; no,\n', encoding)
    with pytest.raises(DataError, match=sentence):
        rows_of(file)
    assert rows_of(file, csv={"encoding": encoding}) == ROWS
    with pytest.raises(DataError, match="is not ascii text") as caught:
        rows_of(file, csv={"encoding": "ascii"})
    assert caught.value.value == str(file)
    assert "name the encoding of a table in data.source.csv" in (caught.value.hint or "")


def test_a_recipe_may_set_delimiter_quotes_and_header(tmp_path):
    semicolons = write(tmp_path / "a.csv", "text;label\nso, so;01\n'näive; no';\n")
    assert rows_of(semicolons, csv={"delimiter": ";", "quotechar": "'"}) == ROWS
    commas = write(tmp_path / "a.tsv", 'text,label\n"so, so",01\nnäive; no,\n')
    assert rows_of(commas, csv={"delimiter": ",", "quotechar": '"'}) == ROWS
    headless = write(tmp_path / "b.csv", '"so, so",01\nnäive; no,\n')
    assert rows_of(headless, csv={"header": False}) == [
        {"0": row["text"], "1": row["label"]} for row in ROWS
    ]
    with pytest.raises(DataError, match=r"b\.csv, line 2 has 1 cells, and the first row 2"):
        rows_of(write(headless, "a,1\nb\n"), csv={"header": False})
    one = write(tmp_path / "c.csv", "a;b\nc;d\n")
    assert rows_of(one, csv={"delimiter": ","}) == [{"a;b": "c;d"}]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"delimiter": ",,"}, "delimiter ',,' is not one character"),
        ({"delimiter": ""}, "delimiter '' is not one character"),
        ({"delimiter": "\n"}, "is not one character"),
        ({"delimiter": '"', "quotechar": '"'}, "are the same"),
        ({"quotechar": "ab"}, "quotechar 'ab' is not one character"),
        ({"encoding": "utf-99"}, "encoding 'utf-99' is unknown"),
        ({"encoding": "rot13"}, "encoding 'rot13' is unknown"),
        ({"encoding": "a\0b"}, "is unknown"),
        ({"seperator": ","}, "seperator"),
    ],
)
def test_invalid_settings(tmp_path, settings, sentence):
    with pytest.raises(ValidationError, match=sentence):
        rows_of(tmp_path / "a.csv", csv=settings)


def test_quotes_in_a_tsv_may_enclose_cells_and_a_note_says_if_they_seem_to(tmp_path):
    quoted = write(tmp_path / "a.tsv", 'text\tlabel\n"say ""hi"""\t1\n"b"\t0\n')
    assert rows_of(quoted)[0]["text"] == '"say ""hi"""'
    assert "1 rows have cells in double quotes" in "".join(notes_of(quoted))
    enclosing = {"csv": {"quotechar": '"'}}
    assert [row["text"] for row in rows_of(quoted, **enclosing)] == ['say "hi"', "b"]
    assert notes_of(quoted, **enclosing) == []
    assert notes_of(write(tmp_path / "b.tsv", 'text\tlabel\n"say ""hi"""\t1\n"b\t0\n')) == []


def test_rows_joined_by_a_pair_of_stray_quotes_are_noted(tmp_path):
    glued = write(tmp_path / "a.csv", 'text,label\na,1\n"b,0\nc,1\nd",0\ne,1\n')
    assert len(rows_of(glued)) == 3
    assert "the first in line 3; if quotes are literal characters" in "".join(notes_of(glued))
    assert len(rows_of(glued, csv={"quotechar": None})) == 5
    fine = write(tmp_path / "b.csv", 'text,label\n"b, 0\nc\nd",0\n')
    assert notes_of(fine) == []
    assert notes_of(glued) == notes_of(glued), "also from the cache"


def test_files_of_one_split_have_the_same_columns_in_any_order(tmp_path):
    first = write(tmp_path / "a.csv", "text,label\na,1\n")
    second = write(tmp_path / "b.csv", "label,text\n0,b\n")
    assert rows_of(first, second) == [{"text": "a", "label": "1"}, {"text": "b", "label": "0"}]
    third = write(tmp_path / "c.csv", "text,label,more\na,1,x\n")
    with pytest.raises(DataError, match=r"c\.csv cannot be read with .*a\.csv") as caught:
        rows_of(first, third)
    assert (caught.value.value, caught.value.hint) == (str(third), "give both the same columns")


def test_an_index_without_a_name_keeps_the_other_columns_in_place(tmp_path):
    file = write(tmp_path / "a.csv", ",text,label\n0,a,1\n")
    assert rows_of(file) == [{"Unnamed: 0": "0", "text": "a", "label": "1"}]


def test_a_long_cell_is_read_whole_and_leaves_the_csv_module_as_it_was(tmp_path):
    text = "x" * 300_000
    assert rows_of(write(tmp_path / "a.csv", f"text,label\n{text},1\n"))[0]["text"] == text
    assert csv.field_size_limit() == 131_072
