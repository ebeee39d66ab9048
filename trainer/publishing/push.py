"""`push` sends the model of a finished run to a repository on the hub, in one commit."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.errors import HubError
from trainer.publishing.client import (
    WAITS,
    Client,
    in_sentences,
    is_offline,
    open_client,
    quiet,
    repeated,
)
from trainer.publishing.contents import contents_of
from trainer.publishing.hub_errors import AGAIN, is_transient, offline_error
from trainer.publishing.plan import Plan, check_plan, plan_push, plan_text
from trainer.publishing.remote import NEW, Remote, read_remote
from trainer.publishing.secrets import check_no_token
from trainer.recipe.push import MAIN, check_branch, check_repo_id
from trainer.report.markup import plain
from trainer.wording import LONGEST_MESSAGE, excerpt

Say = Callable[[str], None]
"""What receives the messages of a push."""


def push(
    run_dir: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    merge: bool = False,
    force: bool = False,
    dry_run: bool = False,
    bars: bool = False,
    say: Say,
) -> str:
    """Sends the model of a finished run, or its adapters, to OWNER/NAME; returns the address.

    It first says what it will send. A repository that does not exist is created, private unless
    `private` is False; one that exists keeps its visibility, and must be private if `private` is
    True. `revision` is a branch, main by default. `merge` sends the whole model in place of
    adapters, and `force` replaces the model of another recipe. A `dry_run` only reads, and needs no
    token. Everything arrives in one commit; a push that was interrupted sends only what the hub
    does not have when it is repeated.

    Raises RunDirectoryError if the run must not be sent, ConfigError for a bad name or a missing
    token, and HubError if the hub refuses or cannot be reached.
    """
    check_repo_id("REPO_ID", repo_id)
    check_branch("--revision", revision)
    branch = revision or MAIN
    if is_offline() and not dry_run:
        raise offline_error()
    client = open_client(repo_id, anonymous=dry_run)
    contents = contents_of(run_dir, merge=merge)
    with in_sentences(client), quiet(bars=bars):
        unread = None
        if dry_run:
            remote, unread = _as_far_as_seen(client, branch)
        else:
            remote = read_remote(client, branch)
        plan = plan_push(contents, remote, repo_id, branch, private=private)
        say(plan_text(plan))
        check_plan(plan, private=private, force=force)
        check_no_token(client, plan.added)
        if dry_run:
            if unread is not None:
                say(unread)
            say("nothing was sent (--dry-run)")
            return client.address
        if plan.is_done:
            say(f"{repo_id} already holds this model")
            return client.address
        say("sending; if it is interrupted, the same command sends only what the hub does not have")
        address = _sent(client, plan)
    say(f"pushed: {address}")
    return address


def _as_far_as_seen(client: Client, branch: str) -> tuple[Remote, str | None]:
    """Returns what a branch holds, for a dry run; if it cannot be read, NEW and a sentence that
    says so."""
    if is_offline():
        return NEW, _unseen(client, "HF_HUB_OFFLINE is set")
    try:
        remote = read_remote(client, branch)
    except Exception as error:
        if not is_transient(error):
            raise
        return NEW, _unseen(client, "the hub does not answer")
    if remote.exists or client.token is not None:
        return remote, None
    return NEW, _unseen(client, "there is no token")


def _unseen(client: Client, why: str) -> str:
    return (
        f"if {client.repo_id} exists, this does not show what it holds, because {why}: a push may "
        f"then send less, remove weights, or refuse"
    )


def _sent(client: Client, plan: Plan) -> str:
    """Creates what does not exist, sends the files and commits; returns the commit's address."""
    remote = plan.remote
    if not remote.exists:
        repeated(
            lambda: client.api.create_repo(client.repo_id, private=plan.private, exist_ok=True)
        )
        remote = _still_empty(client, private=plan.private)
    if plan.branch != MAIN and not plan.remote.has_branch:
        repeated(
            lambda: client.api.create_branch(client.repo_id, branch=plan.branch, exist_ok=True)
        )
    operations = _operations(plan)
    additions = operations[: len(plan.added)]

    def upload() -> None:
        client.api.preupload_lfs_files(
            client.repo_id,
            additions=additions,
            revision=plan.branch,
            gitignore_content="",  # the repository's would silently leave files out
        )

    repeated(upload, times=1)  # older clients give up when a connection is cut
    return _committed(client, plan, operations, remote.head)


def _still_empty(client: Client, *, private: bool) -> Remote:
    """Returns the repository that was just created; raises HubError if another was, meanwhile."""
    remote = read_remote(client, MAIN)
    if (
        remote.private is private
        and remote.record is None
        and remote.files.keys() <= {".gitattributes", "README.md"}
    ):
        return remote
    raise HubError(
        f"{client.repo_id} was created while this push was under way",
        key=client.repo_id,
        hint=AGAIN,
    )


def _operations(plan: Plan) -> list[Any]:
    """Returns the operations of the commit, additions first."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    added = [CommitOperationAdd(path, content) for path, content in plan.added.items()]
    return [*added, *(CommitOperationDelete(path, is_folder=False) for path in plan.removed)]


def _committed(client: Client, plan: Plan, operations: list[Any], head: str | None) -> str:
    """Makes the commit, based on `head`, and returns its address.

    The client does not repeat this request, because the first may have been carried out although
    its answer was lost: the branch tells.
    """
    contents = plan.contents
    message = plain(f"{contents.part} of {contents.directory.name}, step {contents.step}")
    for seconds in (*WAITS, None):
        try:
            done = client.api.create_commit(
                client.repo_id,
                operations,
                commit_message=message,
                revision=plan.branch,
                parent_commit=head,
            )
            return plain(excerpt(done.commit_url, LONGEST_MESSAGE))
        except Exception as error:
            if seconds is None or not is_transient(error):
                raise
        time.sleep(seconds)
        now = read_remote(client, plan.branch)
        if plan_push(contents, now, client.repo_id, plan.branch, private=None).is_done:
            return f"{client.address}/commit/{now.head}"
    raise AssertionError
