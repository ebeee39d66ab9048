"""The lower bounds in pyproject.toml are those of the oldest set that is tested, and CI's fit."""

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.paths import ROOT


def required(*, for_tests: bool = False) -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [line for extra in ("test", "gguf", "onnx") for line in extras[extra]]
    requirements = map(Requirement, lines if for_tests else project["dependencies"])
    named = {canonicalize_name(requirement.name): requirement for requirement in requirements}
    if for_tests:
        assert named.pop("trainer").extras == {"gguf", "onnx"}
    return named


def pinned(name: str) -> dict[str, str]:
    lines = (ROOT / ".ci" / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): version for package, version in pairs}


def test_lower_bounds_are_the_oldest_versions_tested():
    oldest = pinned("oldest.txt")
    for name, requirement in required().items():
        lower = [bound for bound in requirement.specifier if bound.operator == ">="]
        assert len(lower) == 1, requirement
        digits = [*lower[0].version.split("."), "0", "0"][:3]
        assert [*oldest[name].split("."), "0", "0"][:3] == digits, requirement


def test_versions_of_ci_are_allowed():
    versions = pinned("constraints.txt")
    for name, requirement in {**required(), **required(for_tests=True)}.items():
        assert versions[name] in requirement.specifier, requirement


@pytest.mark.parametrize(
    "name",
    "torch accelerate deepspeed transformers datasets evaluate peft bitsandbytes click".split(),
)
def test_a_promised_package_stays_required(name):
    assert name in required()
