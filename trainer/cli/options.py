"""Arguments and options that several commands share."""

import os
from pathlib import Path
from typing import Any

import click

from trainer.wording import excerpt


class DirectoryName(click.Path):
    """A command-line path of a directory that exists or can be created."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fspath(value))
        try:
            if not os.fspath(value) or (path.exists() and not path.is_dir()):
                self.fail(f"{excerpt(value)!r} is not a directory", param, ctx)
        except (OSError, ValueError) as error:  # a name that is too long, a NUL
            reason = getattr(error, "strerror", None) or str(error)
            self.fail(f"{excerpt(value)!r}: {reason}", param, ctx)
        return path


def _remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta["debug"] = value  # shared with the contexts of the groups around a command


RECIPE = click.argument("recipe")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Override one value."
)
SMOKE = click.option(
    "--smoke", is_flag=True, help="The whole path in seconds: a tiny random model, built-in data."
)
RUN_DIR = click.argument("run_dir", type=DirectoryName())
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
DEBUG = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_remember_debug,
    help="Show the traceback of an error.",
)
