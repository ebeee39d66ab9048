"""Versions that do not fit, and packages that cannot be imported, provoked by such packages."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from support.findings import levels

from trainer.doctor.versions import about_versions, unfulfilled, unimportable


def distribution(site, name, version, *requirements, code=""):
    """Installs a package into a folder, as its metadata and one file of code."""
    metadata = site / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
    (metadata / "METADATA").write_text("\n".join(lines) + "\n")
    (site / f"{name}.py").write_text(code)


def test_the_versions_of_this_machine_fit_each_other():
    findings = list(about_versions())
    assert levels(findings)["versions"] == "fine"
    assert findings[0].figures["torch"] == version("torch")
    assert not [finding for finding in findings if finding.level == "failure"]


def test_versions_that_do_not_fit_are_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    requirements = ["torch<2", "numpy>=1", "nowhere>=3", "other>=1; extra == 'more'"]
    distribution(tmp_path, "torchvision", "0.14.1", *requirements)
    unfit, missing = unfulfilled("torchvision", "warning")
    assert (unfit.code, unfit.level) == ("unfit-version", "warning")
    assert unfit.message == f"torchvision needs torch<2, and {version('torch')} is installed"
    assert (missing.code, missing.advice) == ("missing-package", 'pip install "nowhere>=3"')
    assert "other" not in unfit.message + missing.message


def test_a_package_of_another_torch_that_breaks_imports_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = "raise RuntimeError('operator torchvision::nms does not exist')"
    distribution(tmp_path, "torchvision", "0.14.1", code=code)
    (finding,) = unimportable("torchvision", "warning")
    assert finding.code == "unimportable-package"
    assert "torchvision 0.14.1 cannot be imported (RuntimeError: operator" in finding.message
    assert finding.advice == f"install the torchvision of torch {version('torch')}, or uninstall it"


@pytest.mark.distributed
def test_bitsandbytes_without_its_library_is_named(tmp_path):
    import bitsandbytes

    package = tmp_path / "bitsandbytes"
    package.mkdir()
    for file in Path(bitsandbytes.__file__).parent.iterdir():
        if not file.name.startswith("libbitsandbytes"):
            (package / file.name).symlink_to(file)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import bitsandbytes\n"
        "from trainer.doctor.versions import about_native_library\n"
        "print([finding.code for finding in about_native_library()])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "['no-native-library']", done.stderr
