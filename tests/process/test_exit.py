"""The library returns or raises: what ends the process and takes its signals lies in two files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import trainer

ROOT = Path(trainer.__file__).parent
OWNERS = {
    "os._exit": {"process/exit.py", "__main__.py"},
    "sys.exit": {"process/exit.py"},
    "signal.signal": {"process/signals.py", "__main__.py"},
    "signal.set_wakeup_fd": {"process/signals.py"},
}


def calls(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("call", OWNERS)
def test_what_takes_a_process_over_lies_in_one_file(call):
    callers = {
        str(file.relative_to(ROOT))
        for file in ROOT.rglob("*.py")
        if call in calls(file) and file.parent != ROOT / "cli"
    }
    assert callers == OWNERS[call]


@pytest.mark.parametrize("call", ["os._exit", "signal.signal", "signal.set_wakeup_fd"])
def test_the_command_line_leaves_it_to_them(call):
    assert not [file for file in (ROOT / "cli").rglob("*.py") if call in calls(file)]
