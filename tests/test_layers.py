"""Imports run one way; read from the source, so that imports inside functions count too."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import trainer

ROOT = Path(trainer.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# From the top down. A file may import what stands below it; packages import within themselves.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"commands", "checkpoint_commands", "sweep"},
    {"resuming"},
    {"report", "plan", "loop", "child", "smoke"},
    {"run"},
    {
        *("evaluation", "launch", "order", "checkpoint", "preemption", "run_directory", "ranks"),
        *("shards", "saving", "disk_space", "out_of_memory", "memory_advice"),
        *("checkpoint_files", "provenance", "saved_tensors", "tracking"),
        *("zero_settings", "fsdp_settings", "sharded_start", "extension_locks"),
        *("micro_batch", "precision", "meeting", "timeouts"),
        *("library_errors", "status", "environment", "zero_shot", "inputs", "preparation"),
        *("models", "tasks", "data", "metrics"),
    },
    {"engine", "loss_scale", "recipe", "optim"},
    {"continuation", "metric_lines", "run_entries"},
    {"state", "schedule", "rank_times", "sharding", "run_files", "file_modes"},
    {"config", "recipes", "architectures", "yaml12"},
    {"task_settings"},
    {"section", "signals", "outlets", "environment_variables", "file_errors"},
    {"errors", "flushing", "__init__"},
]
# Those that make up a run use each other (a task its data and metrics), but not in a circle.
BESIDE_EACH_OTHER = 6
FREE_OF_ENGINES = ("tasks", "models", "data", "metrics")


def module_of(file: Path) -> str:
    """Returns the dotted name, that of the package for its __init__.py."""
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def imported(source: str, *, inside_functions: bool = True) -> set[str]:
    """Returns the dotted names that a file imports, but for those of type checkers."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                continue
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            if isinstance(child, ast.ImportFrom):
                assert child.level == 0, "imports are absolute"
                yield from (f"{child.module}.{alias.name}" for alias in child.names)
            yield from walk(child)

    return set(walk(ast.parse(source)))


def ours(file: Path, *, inside_functions: bool = True) -> set[str]:
    """Returns our modules that a file imports: of `trainer.errors.ConfigError`, trainer.errors."""
    found = imported(file.read_text("utf-8"), inside_functions=inside_functions)
    return {
        name if name in MODULES else name.rpartition(".")[0]
        for name in found
        if name.partition(".")[0] == "trainer"
    }


def layer_of(module: str) -> int:
    noun = [*module.split("."), "__init__"][1]
    layers = [number for number, nouns in enumerate(LAYERS) if noun in nouns]
    assert layers, f"{module} has no layer yet; put {noun} into LAYERS"
    return layers[0]


def importers(package: str) -> set[str]:
    """Returns the files that import a package, relative to trainer/."""
    return {
        str(file.relative_to(ROOT))
        for file in FILES
        if any(name.split(".")[0] == package for name in imported(file.read_text("utf-8")))
    }


def test_the_reader_sees_imports_in_functions_and_not_those_of_type_checkers():
    source = """
import os.path
from trainer import config
from trainer.errors import ConfigError
if TYPE_CHECKING:
    from trainer.run import Run
def work():
    if True:
        from accelerate import Accelerator
"""
    top = {"os.path", "trainer.config", "trainer.errors.ConfigError"}
    assert imported(source, inside_functions=False) == top
    assert imported(source) == top | {"accelerate.Accelerator"}
    assert {"trainer.config", "trainer.errors"} <= ours(ROOT / "optim.py")


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    mine = layer_of(module)
    for other in ours(MODULES[module]):
        same_package = module.split(".")[1:2] == other.split(".")[1:2] and "." in module
        beside = layer_of(other) == mine == BESIDE_EACH_OTHER
        assert layer_of(other) > mine or same_package or beside, f"{module} imports {other}"


def test_there_is_no_circle():
    graph = {name: ours(file, inside_functions=False) for name, file in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", FREE_OF_ENGINES)
def test_what_is_learned_knows_nothing_of_engines(package):
    todo = [name for name in MODULES if name.split(".")[1:2] == [package]]
    assert todo
    reached: set[str] = set()
    while todo:
        module = todo.pop()
        reached.add(module)
        todo += ours(MODULES[module]) - reached
    engines = {module_of(ROOT / file) for file in importers("accelerate") | importers("deepspeed")}
    assert not engines & reached


def test_libraries_stay_where_they_belong():
    assert importers("click") == {"cli.py"}
    assert importers("deepspeed") == {
        "engine.py",
        "sharding.py",
        "sharded_start.py",
        "zero_settings.py",
    }


def test_a_file_has_a_noun():
    assert not {file.stem for file in FILES} & {"utils", "util", "helpers", "helper", "common"}
