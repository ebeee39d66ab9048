"""Cells of tables, and how each kind of document writes them."""

import pytest

from trainer.report.latex import as_latex, latex_table
from trainer.report.spreadsheet import csv_table
from trainer.report.tables.table import Number, Table, columns, digits_of


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Number(value=0.5), "0.5000"),
        (Number(value=0.8744, digits=3, low=0.85, high=0.8951), "0.874 (0.850–0.895)"),
        (Number(value=-0.01, digits=2, low=-0.05, high=0.03), "-0.01 (-0.05 to 0.03)"),
        (Number(value=1234.5, digits=1), "1,234.5"),
        (Number(value=0.0004, digits=3, is_p=True), "<0.001"),
        (Number(value=0.0416, digits=3, is_p=True), "0.042"),
        (Number(value=0.7, digits=1, low=0.6), "0.7"),
    ],
)
def test_a_number_is_shown_with_its_digits_and_interval(number, text):
    assert str(number) == text


@pytest.mark.parametrize(
    ("scale", "value", "digits"),
    [("0-1", 0.5, 3), ("0-100", 50.0, 2), (None, 0.6931, 4), (None, 472.5, 2), (None, -150.0, 2)],
)
def test_digits_follow_the_scale(scale, value, digits):
    assert digits_of(scale, value) == digits


TABLE = Table(
    name="one",
    caption="50% of A_b",
    columns=columns(["name", "=label"], ["value", "count"]),
    rows=[
        ["a,b", "-x", Number(value=1 / 3, digits=2, low=0.25, high=0.5), 12345],
        ['say "hi"', "@y", None, None],
    ],
)


def test_a_spreadsheet_has_all_digits_the_interval_and_no_formula():
    assert csv_table(TABLE) == (
        "name,'=label,value,value low,value high,count\n"
        '"a,b",\'-x,0.3333333333333333,0.25,0.5,12345\n'
        '"say ""hi""",\'@y,,,,\n'
    )


def test_latex_is_aligned_captioned_and_ruled():
    text = latex_table(TABLE)
    assert r"\caption{50\% of A\_b}" in text
    assert r"\label{tab:one}" in text
    assert r"\begin{tabular}{llrr}" in text
    assert r"    a,b & -{}x & 0.33 (0.25–0.50) & 12,345 \\" in text
    assert [text.count(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("a & b", r"a \& b"),
        ("100% #1 $x$ a_b {c}", r"100\% \#1 \$x\$ a\_b \{c\}"),
        ("\\end~^", r"\textbackslash{}end\textasciitilde{}\textasciicircum{}"),
        ("<a> | b", "$<$a$>$ $|$ b"),
        ("[x] * y", "{[}x{]} {*} y"),
        ("baseline → best", r"baseline $\to$ best"),
        ("two\nlines\x1b", "two lines "),
    ],
)
def test_latex_typesets_a_text_as_it_is(text, latex):
    assert as_latex(text) == latex
