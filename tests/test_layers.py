"""Imports between packages run one way; those in functions and for type checkers count, too."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import trainer

ROOT = Path(trainer.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Packages and loose files from the top floor to the ground. Each imports from lower floors only.
FLOORS = [
    ["__main__"],
    ["cli", "__init__"],
    ["api"],
    ["running"],
    ["result"],
    ["publishing"],
    ["loop", "report", "doctor"],
    ["planning", "prediction", "exports"],
    ["evaluation"],
    ["assembly"],
    ["run"],
    ["checkpoints"],
    ["tasks", "engines"],
    ["models", "process", "optim"],
    ["data", "schedule"],
    ["metrics", "recipe", "tracking", "distributed"],
    ["files"],
    ["order", "state", "errors"],
    ["wording"],
]
FREE_OF_ENGINES = ("tasks", "models", "data", "metrics")


def dotted(file: Path) -> str:
    """Returns the dotted module name of a file; for an __init__.py, that of its package."""
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(file): file for file in FILES}


@cache
def imported(source: str) -> set[str]:
    """Returns the dotted names that a source imports, anywhere in it."""

    def names() -> Iterator[str]:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, "imports are absolute"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    return set(names())


def ours(file: Path) -> set[str]:
    """Returns the modules of the package that a file imports: trainer.errors for ConfigError."""
    return {
        name if name in MODULES else name.rpartition(".")[0]
        for name in imported(file.read_text("utf-8"))
        if name.partition(".")[0] == "trainer"
    }


def room(module: str) -> str:
    """Returns the package or loose file directly under trainer/ that a module belongs to."""
    return [*module.split("."), "__init__"][1]


def floor(module: str) -> int:
    floors = [number for number, rooms in enumerate(FLOORS) if room(module) in rooms]
    assert floors, f"{module} is on no floor; add {room(module)} to FLOORS"
    return floors[0]


def importers(package: str) -> set[str]:
    """Returns the files that import a package, relative to trainer/."""
    return {
        str(file.relative_to(ROOT))
        for file in FILES
        if any(
            name == package or name.startswith(f"{package}.")
            for name in imported(file.read_text("utf-8"))
        )
    }


def test_every_import_is_found():
    source = """
import os.path
from trainer.recipe import schema
if TYPE_CHECKING:
    from trainer.run import Run
def work():
    if True:
        from accelerate import Accelerator
"""
    found = {"os.path", "trainer.recipe.schema", "trainer.run.Run", "accelerate.Accelerator"}
    assert imported(source) == found
    assert {"trainer.recipe.training", "trainer.errors"} <= ours(ROOT / "optim.py")


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    for other in ours(MODULES[module]):
        if room(other) != room(module):
            assert floor(other) > floor(module), f"{module} imports {other}"


def test_imports_form_no_cycle():
    graph = {name: ours(file) - {name} for name, file in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_at_most_twelve_files_are_in_no_package():
    loose = {file.stem for file in FILES if file.parent == ROOT}
    assert len(loose) <= 12, sorted(loose)


@pytest.mark.parametrize("package", FREE_OF_ENGINES)
def test_tasks_and_models_do_not_depend_on_engines(package):
    todo = [name for name in MODULES if room(name) == package]
    assert todo
    reached: set[str] = set()
    while todo:
        module = todo.pop()
        reached.add(module)
        todo += ours(MODULES[module]) - reached
    engines = {dotted(ROOT / file) for file in importers("accelerate") | importers("deepspeed")}
    assert not engines & reached


def test_a_library_is_imported_in_one_package_only():
    assert {name.split("/")[0] for name in importers("click")} == {"cli"}
    assert {name.split("/")[0] for name in importers("deepspeed")} == {"engines"}
    assert {name.split("/")[0] for name in importers("torch.distributed.fsdp")} == {"engines"}


def test_no_file_is_called_utils():
    assert not {file.stem for file in FILES} & {"utils", "util", "helpers", "helper", "common"}


@cache
def calls(file: Path) -> set[str]:
    """Returns the names of what a file calls, such as print and sys.exit."""
    return {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call)
    }


def callers(name: str) -> set[str]:
    return {str(file.relative_to(ROOT)) for file in FILES if name in calls(file)}


def test_only_the_command_line_and_progress_callables_print():
    assert callers("print") - {"tracking/progress.py"} <= {
        str(file.relative_to(ROOT)) for file in (ROOT / "cli").rglob("*.py")
    }


def test_only_the_command_line_ends_the_process():
    assert callers("os._exit") | callers("sys.exit") == {"process/exit.py", "__main__.py"}
    enders = {name for name in MODULES if "trainer.process.exit" in ours(MODULES[name])}
    assert {room(name) for name in enders} <= {"cli", "process"}


def test_no_test_file_imports_another():
    files = list(Path(__file__).parent.rglob("test_*.py"))
    tests = {file.stem for file in files}
    assert len(files) > 50
    for file in files:
        modules = {part for name in imported(file.read_text("utf-8")) for part in name.split(".")}
        assert not modules & tests, file
