"""`push:` in a recipe: sends the model at the end of its run, and never makes the run fail."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import TrainerError
from trainer.publishing.client import is_offline, token_of_user
from trainer.publishing.push import push
from trainer.recipe.push import Push
from trainer.report.markup import plain
from trainer.tracking.progress import Progress, Update
from trainer.wording import LONGEST_MESSAGE, excerpt


def before_push(settings: Push, *, verifies: bool) -> Iterator[str]:
    """Yields, before training begins, a sentence on each thing that the push will lack.

    `verifies` is whether the run will verify its model.
    """
    if not verifies:
        yield (
            f"checkpoint.verify_export is false: the model will not be pushed to "
            f"{settings.repo_id} at the end, but only by `trainer push … --force`"
        )
    if is_offline():
        yield (
            f"HF_HUB_OFFLINE is set: the model will not be pushed to {settings.repo_id} at the end"
        )
        return
    try:
        found = token_of_user() is not None
    except TrainerError:
        found = False
    if not found:
        yield (
            f"there is no valid token to push the model to {settings.repo_id} at the end: run `hf "
            f"auth login`, or set HF_TOKEN"
        )


def push_finished(settings: Push, directory: Path, progress: Progress | None) -> None:
    """Pushes the model of a run that has just finished; a failure is a message with the command
    that pushes it later.

    The run is complete before, so nothing that is raised here may reach its caller.
    """

    def say(message: str) -> None:
        if progress is not None:
            progress(Update(message=message))

    say(f"pushing to {settings.repo_id}; the run is complete, and Ctrl-C twice ends the push")
    try:
        push(
            directory,
            settings.repo_id,
            private=False if not settings.private else None,
            revision=settings.revision,
            merge=settings.merge,
            say=say,
        )
    except Exception as error:
        say(f"warning: the model was not pushed: {plain(excerpt(error, LONGEST_MESSAGE))}")
        say(f"to push it: {_command(settings, directory)}")


def _command(settings: Push, directory: Path) -> str:
    """Returns the command that does the same push."""
    words = ["trainer", "push", str(directory), settings.repo_id]
    words += ["--public"] * (not settings.private) + ["--merge"] * settings.merge
    words += ["--revision", settings.revision] if settings.revision is not None else []
    return shlex.join(words)
