"""What a push will do to a repository, said before it does it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import RunDirectoryError
from trainer.publishing.contents import Contents
from trainer.publishing.record import recipe_digest, sent_before
from trainer.publishing.remote import Remote, num_bytes
from trainer.publishing.verified import is_verified, why_not_verified
from trainer.report.markup import plain
from trainer.wording import excerpt, format_bytes, listed

WEIGHTS = re.compile(
    r"((pytorch_|tf_|flax_)?model|adapter_model|consolidated)([-.][\w.-]*)?"
    r"\.(safetensors|bin|h5|msgpack|pt|pth)(\.index\.json)?"
)
"""Files of weights at the root of a repository, which a library could load in place of ours."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a push will do to a repository: one commit of additions and removals."""

    repo_id: str
    branch: str
    private: bool
    """Whether the repository is private, or is created as a private one."""
    remote: Remote
    contents: Contents
    added: Mapping[str, Path | bytes]
    """Files to send, by their path in the repository."""
    unchanged: tuple[str, ...]
    """Files that the repository already has with the same content."""
    removed: tuple[str, ...]
    """Files to remove: weights, and what an earlier push sent and this one does not."""

    @property
    def is_done(self) -> bool:
        """Whether the repository already holds what would be sent."""
        return self.remote.has_branch and not self.added and not self.removed


def plan_push(
    contents: Contents, remote: Remote, repo_id: str, branch: str, *, private: bool | None
) -> Plan:
    """Returns what a push of a run's contents will do to a repository.

    `private` decides for a new repository, which is private by default; others keep their
    visibility.
    """
    same = {
        path
        for path, content in contents.files.items()
        if path in remote.files and remote.files[path].holds(content)
    }
    earlier = sent_before(remote.record)
    stale = {path for path in remote.files if WEIGHTS.fullmatch(path) or path in earlier}
    return Plan(
        repo_id=repo_id,
        branch=branch,
        private=(private is not False) if remote.private is None else remote.private,
        remote=remote,
        contents=contents,
        added={path: contents.files[path] for path in sorted(contents.files.keys() - same)},
        unchanged=tuple(sorted(same)),
        removed=tuple(sorted(stale - contents.files.keys())),
    )


def check_plan(plan: Plan, *, private: bool | None, force: bool) -> None:
    """Raises RunDirectoryError if a push must not be done, or not without --force.

    Those that `force` allows: the branch holds the model of another recipe, or weights that no push
    has sent; the run did not verify its model. A branch that does not exist yet holds nothing.
    """
    if private and plan.remote.private is False:
        raise RunDirectoryError(
            f"{plan.repo_id} is public, and a push does not change that",
            key="--private",
            value=True,
            hint="make it private in its settings, or leave out --private",
        )
    if force:
        return
    results = plan.contents.results
    if is_verified(results) is False:
        raise RunDirectoryError(
            f"the run has not verified its model: {plain(why_not_verified(results))}",
            key=str(plan.contents.directory),
            hint="push it with --force if that is meant",
        )
    if not plan.remote.has_branch:
        return
    weights = [path for path in plan.remote.files if WEIGHTS.fullmatch(path)]
    record = plan.remote.record
    if record is not None and record["recipe"] != recipe_digest(plan.contents.recipe):
        other = "the model of another recipe"
    elif record is None and weights:
        other = f"a model that no push has sent ({plain(listed(weights, 2))})"
    else:
        return
    raise RunDirectoryError(
        f"{plan.repo_id} holds {other}",
        key=plan.repo_id,
        hint="choose another repository or --revision, or replace it with --force",
    )


def plan_text(plan: Plan) -> str:
    """Returns what a push will send, and where to, as lines without control characters."""
    contents, remote = plan.contents, plan.remote
    visibility = "private" if plan.private else "public"
    new = "" if remote.exists else "new, "
    branch = " (new, from main)" if remote.exists and not remote.has_branch else ""
    lines = [
        f"{contents.part} of {plain(contents.directory.name)}, step {contents.step:,}",
        f"to {plan.repo_id} ({new}{visibility}), branch {plan.branch}{branch}",
    ]
    sizes = {path: num_bytes(content) for path, content in plan.added.items()}
    width = max(map(len, sizes), default=0)
    lines += [f"  {plain(path):<{width}}  {size:>15,} bytes" for path, size in sizes.items()]
    total = sum(sizes.values())
    files = f"{len(sizes):,} file{'s' * (len(sizes) != 1)}"
    lines.append(f"to send: {files}, {total:,} bytes ({format_bytes(total)})")
    if plan.unchanged:
        lines.append(f"already there: {', '.join(map(plain, plan.unchanged))}")
    if plan.removed:
        lines.append(f"to remove there: {', '.join(excerpt(plain(path)) for path in plan.removed)}")
    return "\n".join([*lines, *(f"note: {note}" for note in contents.notes)])
