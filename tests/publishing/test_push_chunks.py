"""Large files through Xet, the service that the hub's client uses unless it is told otherwise."""

from importlib.metadata import PackageNotFoundError, version

import pytest
from packaging.version import Version
from support.command_line import invoke, run
from support.pushable_runs import weight_names

NAME = "alice/demo"


def speaks_the_protocol() -> bool:
    """Returns whether the installed client speaks the part that the stand-in knows."""
    try:
        client, service = Version(version("huggingface_hub")), Version(version("hf-xet"))
    except PackageNotFoundError:
        return False
    return Version("2") <= client < Version("3") and Version("1.8") <= service < Version("1.9")


pytestmark = pytest.mark.skipif(not speaks_the_protocol(), reason="another version of the protocol")


@pytest.fixture(autouse=True)
def _by_chunks(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)


def containers(hub) -> int:
    return sum(request.startswith("POST /v1/xorbs/") for request in hub.requests)


def test_files_arrive_and_are_not_sent_again_after_an_error(hub, pushable):
    directory = pushable(shards=2, weights=11)
    hub.fail("POST /api/models/.*/commit/", 400, message="no")
    assert invoke("push", directory, NAME).exit_code == 2
    sent = containers(hub)
    assert sent
    run("push", directory, NAME)
    assert containers(hub) == sent
    assert not hub.uploads
    for name in weight_names(2):
        assert hub.repositories[NAME].files()[name] == (directory / "model" / name).read_bytes()


def test_a_refusal_of_the_service_is_a_sentence(hub, pushable):
    hub.fail("/xet-write-token/", 403, message="no", times=9)
    done = invoke("push", pushable(weights=12), NAME)
    assert done.exit_code == 2
    assert "the token may not write to alice/demo" in done.stderr
    assert hub.repositories[NAME].files().keys() == {".gitattributes"}
