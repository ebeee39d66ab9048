"""The section `push` of a recipe, and the rules for names of repositories and branches."""

import re
import unicodedata

from pydantic import field_validator

from trainer.errors import ConfigError
from trainer.recipe.problems import rejection
from trainer.recipe.section import Section
from trainer.wording import excerpt

MOST = 96
"""Maximum characters of an owner's or a repository's name."""


MAIN = "main"
"""The branch of a push that names none."""


class Push(Section):
    repo_id: str
    """The repository on the hub, OWNER/NAME; it is created if it does not exist."""
    private: bool = True
    """Create the repository as a private one; one that exists keeps its visibility."""
    revision: str | None = None
    """The branch; null is main. It is created if it does not exist."""
    merge: bool = False
    """Send the whole model, adapters merged, in place of the adapters."""

    @property
    def place(self) -> tuple[str, str]:
        """Repository and branch."""
        return self.repo_id, self.revision or MAIN

    @field_validator("repo_id")
    @classmethod
    def _a_repository(cls, repo_id: str) -> str:
        try:
            check_repo_id("push.repo_id", repo_id)
        except ConfigError as error:
            raise rejection(error) from error
        return repo_id

    @field_validator("revision")
    @classmethod
    def _a_branch(cls, revision: str | None) -> str | None:
        try:
            check_branch("push.revision", revision)
        except ConfigError as error:
            raise rejection(error) from error
        return revision


def check_repo_id(key: str, repo_id: str) -> None:
    """Raises ConfigError, with the nearest valid name, unless the hub accepts the name OWNER/NAME.

    `key` is the recipe key or the argument that holds the name.
    """
    parts = repo_id.split("/")
    if len(parts) == 2 and all(_is_name(part) for part in parts):
        return
    if _is_name(repo_id):
        problem, near = "names no owner", f"OWNER/{repo_id}"
    else:
        problem, near = "is not the name of a repository on the hub", _nearest(repo_id)
    raise ConfigError(
        f"{key}: {excerpt(repr(repo_id))} {problem}",
        key=key,
        value=repo_id,
        hint=f"write {near}" if near else "write OWNER/NAME in letters, digits and -._",
    )


def check_branch(key: str, revision: str | None) -> None:
    """Raises ConfigError unless a text can be the name of a branch; None is the main branch."""
    if revision is None:
        return
    if re.fullmatch("[0-9a-f]{40}", revision):
        problem = "is a commit, and a push adds to a branch"
    elif (
        not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", revision, re.ASCII)
        or len(revision) > MOST
        or ".." in revision
        or revision.startswith(("refs/", "-", "."))
        or revision.endswith((".", ".lock"))
    ):
        problem = "is not the name of a branch"
    else:
        return
    raise ConfigError(
        f"{key}: {excerpt(repr(revision))} {problem}",
        key=key,
        value=revision,
        hint="write the name of a branch, such as main",
    )


def _is_name(text: str) -> bool:
    return (
        re.fullmatch(rf"\w([\w.-]{{0,{MOST - 2}}}\w)?", text, re.ASCII) is not None
        and "--" not in text
        and ".." not in text
        and not text.endswith(".git")
    )


def _nearest(text: str) -> str | None:
    """Returns OWNER/NAME from an address or a name with characters that the hub refuses; None if
    nothing is left of it."""
    text = re.sub(r"^\s*(https?://)?([\w.-]*huggingface\.co/|hf\.co/)?(models/)?", "", text[:1000])
    names = [_cleaned(part) for part in re.split(r"[/\\]", text)]
    names = [name for name in names if name][:2]
    if not names or not all(map(_is_name, names)):
        return None
    return "/".join(names) if len(names) == 2 else f"OWNER/{names[0]}"


def _cleaned(text: str) -> str:
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_text.strip())
    name = re.sub(r"-[-.]*-|-{2,}", "-", re.sub(r"\.{2,}", ".", name))
    return name.removesuffix(".git").strip("-.")[:MOST].strip("-.")
