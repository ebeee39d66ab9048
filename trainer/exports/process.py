"""Starts the process that loads an exported folder, without what this process has set up."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.files.file_errors import WRITING, number_in
from trainer.process.out_of_memory import SPELLED
from trainer.wording import excerpt

PROGRAM = Path(__file__).with_name("fresh_process.py")
LONGEST_SECONDS = 2 * 3600
KILLED = (-signal.SIGKILL, -signal.SIGTERM)
"""How a process ends that the system, a scheduler or an administrator ended."""
LAUNCH = (
    *("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "NODE_RANK", "MASTER_", "TORCHELASTIC_"),
    *("ACCELERATE_", "FSDP_", "DEEPSPEED_", "DS_", "PARALLELISM_CONFIG_", "NCCL_", "TORCH_NCCL_"),
    *("PMI_", "PMIX_", "OMPI_", "MV2_"),
)
"""Prefixes of the variables of a launch, in which the process has no part."""
SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "",
    "HIP_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""The run fills the GPU, and nothing may come from the network."""


class NotRunError(Exception):
    """The process could not run to its end, which says nothing of the export: it was not started,
    was killed, ran out of memory or disk, or took too long."""


def answers_of(
    job: Mapping[str, Any], inputs: dict[str, Tensor], folder: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the findings of a fresh process, and its logits by name.

    If the process ends without findings, that is one. `folder` is empty and gets the files of the
    exchange. Raises NotRunError.
    """
    (folder / "job.json").write_text(json.dumps(job), "utf-8")
    save_file(inputs, folder / "inputs.safetensors")
    # Without -P, its neighbours in this folder would hide libraries of the same names.
    command = [sys.executable, "-P", "-W", "ignore", str(PROGRAM), str(folder)]
    log = folder / "log.txt"
    try:
        with log.open("wb") as opened:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=opened,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment(job["num_threads"]),
                start_new_session=True,  # Ctrl-C is for this process, which then ends that one
            )
    except OSError as error:
        raise NotRunError(f"no process can be started ({error})") from error
    with process:
        try:
            code = process.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise NotRunError(f"the process took more than {LONGEST_SECONDS} seconds") from error
        finally:
            process.kill()
    if code in KILLED:
        raise NotRunError("the process was killed, perhaps for lack of memory")
    if code == 0:
        findings = json.loads((folder / "findings.json").read_text("utf-8"))
        _check_machine(str(findings["error"]))
        return findings, load_file(folder / "logits.safetensors")
    last = " ".join(log.read_text("utf-8", "replace").strip().splitlines()[-1:])
    _check_machine(last)
    problem = f"a fresh process ends with {code}: {excerpt(last, 200)}"
    return {"problems": [problem], "adapter_problems": [], "error": None, "usage": None}, {}


def _check_machine(text: str) -> None:
    """Raises NotRunError if the process reported a lack of memory, or a disk that fails."""
    if SPELLED.search(text) or text.startswith("MemoryError"):
        raise NotRunError(f"memory was not sufficient: {excerpt(text, 200)}")
    if number_in(text) in WRITING:
        raise NotRunError(f"the disk refused it: {excerpt(text, 200)}")


def environment(num_threads: int) -> dict[str, str]:
    """Returns the environment of the process: this one's, without the launch and the GPUs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCH)}
    return {**kept, **SETTINGS, "OMP_NUM_THREADS": str(num_threads)}
