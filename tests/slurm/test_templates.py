"""The SLURM templates as text: shellcheck, the configurations they name, their common options."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.paths import ROOT

TEMPLATES = sorted((ROOT / "slurm").glob("*.sbatch"))


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = [*TEMPLATES, *(ROOT / "slurm").glob("*.sh"), *(ROOT / "tests/slurm").glob("*.sh")]
    scripts.append(ROOT / "tests" / "gpu" / "run")
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.stem)
def test_a_template_names_an_existing_configuration_and_can_be_requeued(template: Path):
    text = template.read_text()
    named = re.findall(r"accelerate_configs/[\w-]+\.yaml", text)
    assert named
    assert all((ROOT / name).is_file() for name in named)
    options = re.findall(r"^#SBATCH (\S+)", text, re.MULTILINE)
    assert {"--requeue", "--open-mode=append"} <= set(options)
    assert any(re.fullmatch(r"--signal=B:USR1@\d+", option) for option in options)
