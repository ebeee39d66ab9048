"""`trainer push`: sends the model of a run to the hub."""

import sys
from functools import partial
from pathlib import Path

import click

from trainer.cli.options import DEBUG, RUN_DIR
from trainer.errors import DONE, LaunchError


@click.command("push")
@RUN_DIR
@click.argument("repo_id", metavar="REPO_ID")
@click.option(
    "--private/--public",
    "private",
    default=None,
    help="Visibility of a new repository (default: private); others keep theirs.",
)
@click.option("--revision", metavar="BRANCH", help="The branch; created if it does not exist.")
@click.option("--merge", is_flag=True, help="Send the whole model, adapters merged.")
@click.option("--force", is_flag=True, help="Replace another recipe's model; send unverified ones.")
@click.option("--dry-run", is_flag=True, help="Only show what would be sent; needs no token.")
@DEBUG
def command(
    run_dir: Path,
    repo_id: str,
    private: bool | None,
    revision: str | None,
    merge: bool,
    force: bool,
    dry_run: bool,
) -> int:
    """Send the model of RUN_DIR, with its tokenizer and card, to REPO_ID (OWNER/NAME) on the hub.

    Adapters are sent alone, unless --merge. An interrupted push continues with the same command.
    """
    from trainer.distributed.environment_variables import check_variables, num_ranks
    from trainer.process.environment import quieted_libraries
    from trainer.publishing.push import push

    check_variables()
    if num_ranks() > 1:
        raise LaunchError(
            "a push is the work of one process",
            key="WORLD_SIZE",
            value=num_ranks(),
            hint="start it without a launcher",
        )
    with quieted_libraries():
        push(
            run_dir,
            repo_id,
            private=private,
            revision=revision,
            merge=merge,
            force=force,
            dry_run=dry_run,
            bars=sys.stderr.isatty(),
            say=partial(print, flush=True),  # an interruption ends the process at once
        )
    return DONE
