"""The hub: whether it may be asked, and whether there are tokens, which are never shown."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from trainer.doctor.finding import Finding
from trainer.doctor.offline import is_offline

SERVICES = {"WANDB_API_KEY": "Weights & Biases", "COMET_API_KEY": "Comet"}
"""Variables with keys of trackers."""


def about_hub() -> Iterator[Finding]:
    """Yields the offline state of the libraries and where tokens were found."""
    from huggingface_hub import constants

    hub, rows = is_offline()
    yield from about_offline(os.environ, hub=hub, rows=rows)
    yield from about_tokens(os.environ, Path(constants.HF_TOKEN_PATH))


def about_offline(variables: Mapping[str, str], *, hub: bool, rows: bool) -> Iterator[Finding]:
    """Yields whether models (`hub`) and data sets (`rows`) are fetched or only read from caches."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    given = ", ".join(f"{name}={variables[name][:8]}" for name in names if variables.get(name))
    figures = {"models": hub, "data": rows}
    if hub != rows:
        cached, fetched = ("models", "data sets") if hub else ("data sets", "models")
        yield Finding(
            "half-offline",
            "warning",
            f"{given}: {cached} are only read from the cache, and {fetched} are fetched",
            "set HF_HUB_OFFLINE alone, which decides for both",
            figures,
        )
    elif hub:
        message = f"offline ({given}): nothing is fetched from the hub, or sent to it"
        advice = "run `trainer prepare RECIPE` first, on a machine that reaches the hub"
        yield Finding("offline", "note", message, advice, figures)
    elif "SLURM_JOB_ID" in variables:
        message = "the hub may be asked: on a node without network, each question takes its time"
        yield Finding("online", "note", message, "set HF_HUB_OFFLINE=1", figures)
    else:
        yield Finding("online", "fine", "what is not in the caches is fetched", None, figures)


def about_tokens(variables: Mapping[str, str], file: Path) -> Iterator[Finding]:
    """Yields where a token of the hub is, and keys of trackers; `file` is that of a login."""
    names = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    name = next((name for name in names if variables.get(name, "").strip()), None)
    if name is not None and not _is_token(variables[name].strip()):
        yield Finding(
            "invalid-token",
            "failure",
            f"{name} holds a space or another character that no token has",
            f"correct or unset {name}",
        )
    elif name is not None:
        yield Finding("token", "fine", f"a token of the hub is in {name}", None, {"from": name})
    elif _holds_text(file):
        yield Finding(
            "token", "fine", f"a token of the hub is in {file}", None, {"from": str(file)}
        )
    else:
        yield Finding(
            "no-token",
            "note",
            "there is no token of the hub: only public models and data can be fetched",
            "log in with `hf auth login`, or set HF_TOKEN",
        )
    for variable, service in SERVICES.items():
        if variables.get(variable):
            yield Finding("tracker-key", "fine", f"a key of {service} is in {variable}")


def _is_token(text: str) -> bool:
    return all("!" <= character <= "~" for character in text)


def _holds_text(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False
