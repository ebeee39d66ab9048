"""Versions of the packages that runs use, whether they fit each other, and whether they load."""

import importlib
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

from trainer.doctor.finding import Finding
from trainer.process.environment import PACKAGES
from trainer.wording import kind_and_reason

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OPTIONAL = ("torchvision", "torchaudio", "xformers", "flash_attn", "torchao", "kernels")
"""Packages that transformers imports if they are installed: one that does not fit breaks it."""


def about_versions() -> Iterator[Finding]:
    """Yields the versions, each requirement that is not fulfilled, and what cannot be imported."""
    versions = {name: installed(name) for name in ("trainer", *PACKAGES)}
    known = [f"{name} {version}" for name, version in versions.items() if version is not None]
    yield Finding(
        "versions",
        "fine",
        f"Python {platform.python_version()}, {', '.join(known)}",
        None,
        {"python": platform.python_version(), **versions},
    )
    needed = list(_required("trainer"))
    yield from unfulfilled("trainer", missing="failure")
    for package in dict.fromkeys([*needed, *PACKAGES, *OPTIONAL]):
        yield from unfulfilled(package, missing="warning")
    for package in PACKAGES:
        problems = list(unimportable(package, "failure")) if versions[package] else []
        yield from problems
        if problems and package == "torch":
            return  # the others import it
    for package in OPTIONAL:
        if installed(package) is not None:
            yield from unimportable(package, "warning")
    yield from about_native_library()


def installed(package: str) -> str | None:
    """Returns the version of a package, None if it is not installed."""
    try:
        return distribution(package).version
    except PackageNotFoundError:
        return None


def unfulfilled(package: str, missing: Any) -> Iterator[Finding]:
    """Yields each requirement of a package, without its extras, that the installed versions do not
    fulfil; `missing` is the level of a package that is not installed."""
    for name, requirement in _required(package).items():
        version = installed(name)
        if version is None:
            yield Finding(
                "missing-package",
                missing,
                f"{package} needs {requirement.name}, which is not installed",
                f'pip install "{requirement.name}{requirement.specifier}"',
                {"package": package, "needs": str(requirement)},
            )
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Finding(
                "unfit-version",
                "warning",
                f"{package} needs {requirement.name}{requirement.specifier}, and {version} is "
                f"installed",
                f'pip install "{requirement.name}{requirement.specifier}", or another {package}',
                {"package": package, "needs": str(requirement), "installed": version},
            )


def unimportable(package: str, level: Any) -> Iterator[Finding]:
    """Yields why an installed package cannot be imported."""
    try:
        importlib.import_module(package)
    except BaseException as error:  # a library of another version can raise anything
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        why = kind_and_reason(error)
        torch = installed("torch")
        optional = package in OPTIONAL
        yield Finding(
            "unimportable-package",
            level,
            f"{package} {installed(package)} cannot be imported ({why})",
            f"install the {package} of torch {torch}, or uninstall it"
            if optional
            else f"install {package} again",
            {"package": package},
        )


def about_native_library() -> Iterator[Finding]:
    """Yields whether bitsandbytes found its compiled library, which quantisation needs."""
    extension: Any = sys.modules.get("bitsandbytes.cextension")
    if extension is None:  # it cannot be imported, which is a finding of its own
        return
    import torch

    broken = "Mock" in type(extension.lib).__name__  # its methods raise an error when called
    for_gpu = getattr(extension.lib, "compiled_with_cuda", False)
    if broken or (torch.cuda.is_available() and not for_gpu):
        yield Finding(
            "no-native-library",
            "warning",
            "bitsandbytes found no compiled library of its own for this torch: quantised models "
            "and 8-bit optimizers fail",
            "install a bitsandbytes that supports the CUDA version of torch",
        )


def _required(package: str) -> "dict[str, Requirement]":
    """Returns the requirements of a package that hold here, without those of extras, by name."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        lines = distribution(package).requires or []
    except PackageNotFoundError:
        return {}
    needed: dict[str, Requirement] = {}
    for line in lines:
        if re.search(r"\bextra\b", line):
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            needed[requirement.name] = requirement
    return needed
