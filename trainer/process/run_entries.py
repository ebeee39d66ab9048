"""The entries that a run directory may have: its files and folders, but no links out of it."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import RunDirectoryError
from trainer.files.file_errors import FULL, remedy
from trainer.files.plain import reason

FOLDERS = (
    *("checkpoints", "model", "adapter", "predictions", "tensorboard", "tokenizer"),
    *("wandb", "mlflow", "trackio", "comet_ml", "aim"),
)
FILES = (
    *("config.yaml", "environment.json", "status.json", "metrics.jsonl"),
    *("results.json", "report.md", "report.html", "trackers.json", "trainer_state.json"),
    *(".lock", ".token"),
)
EFFECTIVE = os.access in os.supports_effective_ids


def check_entries(directory: Path) -> None:
    """Raises RunDirectoryError if an entry is of another kind, may not be changed, or is a link,
    through which another run's files would be written and removed."""
    with writing_to(directory):
        for name in (*FOLDERS, *FILES):
            path = directory / name
            if path.is_symlink():
                raise RunDirectoryError(
                    f"{path} is a link to {path.readlink()}, and a run changes nothing outside "
                    f"its directory",
                    key=str(path),
                    hint="move the folder it points to here, or link the whole run directory",
                )
            if not path.exists():
                continue
            if path.is_dir() != (name in FOLDERS) or not (path.is_dir() or path.is_file()):
                kind = "folder" if name in FOLDERS else "file"
                raise RunDirectoryError(
                    f"{path} is not a {kind}", key=str(path), hint="remove it, or move it away"
                )
            access = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
            if not os.access(path, access, effective_ids=EFFECTIVE):
                raise RunDirectoryError(
                    f"{path} cannot be read and written by this user",
                    key=str(path),
                    hint="change its mode or owner, or choose another --run-dir",
                )


@contextmanager
def writing_to(directory: Path) -> Generator[None]:
    """Context manager: turns an OSError into a RunDirectoryError, except for a full disk, which is
    reported elsewhere."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        path = str(error.filename or directory)
        raise RunDirectoryError(
            f"{path} cannot be read or written ({reason(error)})",
            key=path,
            hint=remedy(error, directory),
        ) from error
