"""The table of findings in README is complete, and says what each of them advises."""

import ast
from collections.abc import Iterator
from pathlib import Path

import trainer

ROOT = Path(trainer.__file__).parent
README = ROOT / "report" / "README.md"


def texts(node: ast.expr | None, names: dict[str, str]) -> set[str]:
    """Returns the texts that an expression can be; empty for that of another finding."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    if isinstance(node, ast.Name):
        return {names[node.id]}
    if isinstance(node, ast.IfExp):
        return texts(node.body, names) | texts(node.orelse, names)
    return {""} if node is None else set()


def written(source: str) -> Iterator[tuple[str, str]]:
    """Yields the code and the advice of each `Finding(...)` in a source."""
    tree = ast.parse(source)
    names = {
        target.id: str(node.value.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
            values = {keyword.arg: keyword.value for keyword in node.keywords}
            for code in texts(values.get("code"), names):
                for advice in texts(values.get("advice"), names):
                    yield code, advice


def test_every_finding_is_in_the_table_with_its_advice():
    files = [file for room in ("tasks", "report") for file in (ROOT / room).rglob("*.py")]
    found = {pair for file in files for pair in written(file.read_text("utf-8"))} - {("", "")}
    lines = [line for line in README.read_text("utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    rows = [(row[0].strip("`"), row[1], row[2].strip("`")) for row in cells if len(row) == 3]
    table = {(code, advice) for code, _, advice in rows if code in {code for code, _ in found}}
    assert len(found) > 40
    assert table == found
    assert all(when for _, when, _ in rows)


def test_the_reading_of_the_code_finds_what_is_written():
    source = 'ADVICE = "try"\n[Finding(code="a" if b else "c", advice=ADVICE), Finding(code="d")]'
    assert set(written(source)) == {("a", "try"), ("c", "try"), ("d", "")}
