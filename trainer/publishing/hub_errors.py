"""Errors of the hub's client as sentences: what is wrong, and what to do about it."""

import re
from collections.abc import Sequence

from trainer.errors import HubError, TrainerError, causes
from trainer.publishing.redaction import REMOVED, without_secrets
from trainer.report.markup import plain
from trainer.wording import excerpt

AGAIN = "run the same command again: what the hub already has is not sent again"
LOG_IN = "run `hf auth login`, or set HF_TOKEN to a valid token with write access"
NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2")
"""Libraries whose errors are those of the network; the client exchanges them now and then."""
STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")
"""How hf-xet, to which the client takes large files, words a refusal."""
QUERY = re.compile(r"(https?://[^\s?]+)\?\S*")
"""The part of an address that may allow an upload to anyone who has it."""
MOMENTARY = (408, 429, 500, 502, 503, 504)
"""Statuses with which a hub fails for the moment."""
MOST = 200
"""Maximum characters of a server's text in a message."""


def as_hub_error(
    error: BaseException, repo_id: str, endpoint: str, token: str | None
) -> TrainerError | None:
    """Returns an error of the hub, its client or the network as a sentence without the token.

    None for other errors, which are defects of this project.
    """
    chain = list(causes(error))
    known = next((one for one in chain if isinstance(one, TrainerError)), None)
    if known is not None:
        return known
    text = _said(chain, token)
    status = status_of(error)
    if status is not None:
        return _refused(status, text, repo_id, endpoint)
    if any(type(one).__name__ == "OfflineModeIsEnabled" for one in chain):
        return offline_error()
    if _is_of_network(chain):
        return HubError(
            f"the hub at {endpoint} cannot be reached{_quoted(text)}",
            key=repo_id,
            hint=f"check the network, then {AGAIN}",
        )
    if _is_of_client(chain):
        return HubError(
            f"the hub's client could not send the files to {repo_id}{_quoted(text)}",
            key=repo_id,
            hint=AGAIN,
        )
    return None


def offline_error() -> HubError:
    """Returns the error of a push without a network."""
    return HubError(
        "HF_HUB_OFFLINE is set, so the hub cannot be asked",
        key="HF_HUB_OFFLINE",
        value="1",
        hint="set HF_HUB_OFFLINE=0 on a machine with a network",
    )


def status_of(error: BaseException) -> int | None:
    """Returns the HTTP status with which the hub answered, or None if it did not answer."""
    from huggingface_hub.errors import HfHubHTTPError

    for one in causes(error):
        if isinstance(one, HfHubHTTPError):
            return one.response.status_code
        if isinstance(one, OSError) and (found := STATUS.search(str(one))):
            return int(found[1])
    return None


def is_transient(error: BaseException) -> bool:
    """Returns whether the same request may be answered if it is sent again."""
    status = status_of(error)
    return status in MOMENTARY if status is not None else _is_of_network(list(causes(error)))


def _is_of_network(chain: Sequence[BaseException]) -> bool:
    return any(
        type(one).__module__.partition(".")[0] in NETWORK
        or (isinstance(one, ConnectionError) and type(one).__name__ != "OfflineModeIsEnabled")
        for one in chain
    )


def _is_of_client(chain: Sequence[BaseException]) -> bool:
    """Returns whether an error was raised inside the hub's client, rather than by this project."""
    for one in chain:
        if type(one).__module__.partition(".")[0] in ("huggingface_hub", "hf_xet"):
            return True
        trace = one.__traceback__
        while trace is not None:
            name = str(trace.tb_frame.f_globals.get("__name__", ""))
            if name.startswith("huggingface_hub.") and not isinstance(one, AssertionError):
                return True
            trace = trace.tb_next
    return False


def _said(chain: Sequence[BaseException], token: str | None) -> str:
    """Returns what the hub said about an error, or else the error, on one line and shortened."""
    said = next((text for one in chain if (text := getattr(one, "server_message", None))), None)
    text = QUERY.sub(r"\1", without_secrets(str(said if said is not None else chain[-1])))
    if token is not None:
        text = text.replace(token, REMOVED)
    return excerpt(re.sub(r"\s+", " ", plain(text)).strip().rstrip("."), MOST)


def _quoted(text: str) -> str:
    return f" ({text})" if text else ""


def _refused(status: int, text: str, repo_id: str, endpoint: str) -> HubError:
    owner = repo_id.partition("/")[0]
    said = _quoted(text)
    sentences = {
        401: (f"the hub refuses the token{said}", LOG_IN),
        402: (
            f"the hub asks to be paid before {repo_id} can be written{said}",
            f"see the billing of {owner}",
        ),
        403: (
            f"the token may not write to {repo_id}{said}",
            f"use a token with write access to {owner}",
        ),
        404: (
            f"the hub does not find {repo_id}, its owner or the branch{said}",
            f"check that {owner} exists and that your account may write there",
        ),
        409: (f"{repo_id} was changed while this push was under way{said}", AGAIN),
        412: (f"{repo_id} was changed while this push was under way{said}", AGAIN),
        413: (
            f"the hub refuses files of this size{said}",
            "write the model in smaller files, or ask for more space",
        ),
        429: (f"the hub asks to wait{said}", f"wait some minutes, then {AGAIN}"),
    }
    if status in sentences:
        sentence, hint = sentences[status]
    elif status >= 500:
        sentence, hint = f"the hub at {endpoint} fails with status {status}{said}", AGAIN
    else:
        sentence, hint = f"the hub refuses {repo_id} with status {status}{said}", ""
    return HubError(sentence, key=repo_id, value=status, hint=hint or None)
