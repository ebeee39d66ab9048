"""A distributed trainer for language models whose numbers do not depend on where it runs.

    import trainer

    result = trainer.train("demo", {"optimizer.learning_rate": 3e-4}, run_dir="runs/demo")
    result.metrics["test"]["accuracy"]

The names below are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.api import evaluate, load, load_recipe, plan, push, train, write_report
    from trainer.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        DivergedError,
        FileError,
        HubError,
        LaunchError,
        OutOfMemoryError,
        RunDirectoryError,
        TrainerError,
    )
    from trainer.planning.plan import Plan
    from trainer.result import Result
    from trainer.tasks.recipe import Recipe

    __version__: str

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "FileError",
    "HubError",
    "LaunchError",
    "OutOfMemoryError",
    "Plan",
    "Recipe",
    "Result",
    "RunDirectoryError",
    "TrainerError",
    "__version__",
    "evaluate",
    "load",
    "load_recipe",
    "plan",
    "push",
    "train",
    "write_report",
]

_ERRORS = frozenset(name for name in __all__ if name.endswith("Error"))
_VERBS = ("evaluate", "load", "load_recipe", "plan", "push", "train", "write_report")
_PLACES = {
    **dict.fromkeys(_ERRORS, "trainer.errors"),
    **dict.fromkeys(_VERBS, "trainer.api"),
    "Plan": "trainer.planning.plan",
    "Recipe": "trainer.tasks.recipe",
    "Result": "trainer.result",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("trainer")
    if name not in _PLACES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
