"""Paths in a recipe, made absolute unless they are names on the hub."""

from pathlib import Path

from trainer.errors import ConfigError
from trainer.recipe.problems import rejection
from trainer.wording import excerpt


def existing_name(key: str, text: str) -> Path:
    """Returns the path with ~ expanded; raises ValidationError if no file can have this name."""
    problem, hint = None, None
    try:
        path = Path(text).expanduser()
        path.is_dir()
    except RuntimeError:
        problem = "there is no such home directory"
    except OSError as error:
        problem, hint = error.strerror, "shorten it"
    else:
        if text.strip():
            return path
        problem = "give a name, a file or a folder"
    raise rejection(
        ConfigError(f"{key}: {excerpt(repr(text))}: {problem}", key=key, value=text, hint=hint)
    )


def folder_or_name(key: str, text: str) -> str:
    """Returns the absolute path of an existing folder, so that a run can resume from any working
    directory; returns any other text, such as a hub name, unchanged."""
    path = existing_name(key, text)
    return str(path.absolute()) if path.is_dir() else text
