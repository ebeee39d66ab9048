"""Answers with several exported folders, as the gate's own program does with each, in one process.

`python load_exports.py PROGRAM JOBS OUT`: PROGRAM is the gate's file, which is loaded by its path;
JOBS is a JSON list of its jobs, each with a name and a file of inputs; the folder OUT gets the
findings of all, and the logits of each.
"""

import json
import sys
import warnings
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def main(program: str, jobs: Path, out: Path) -> None:
    described = spec_from_file_location("fresh_process", program)
    assert described is not None
    assert described.loader is not None
    fresh_process: Any = module_from_spec(described)
    described.loader.exec_module(fresh_process)
    findings: dict[str, Any] = {}
    for job in json.loads(jobs.read_text()):
        found: dict[str, Any] = {"problems": [], "adapter_problems": []}
        answers: dict[str, Any] = {}
        try:
            answers = fresh_process.answer(job, load_file(job["inputs"]), found)
        except Exception as error:
            found["problems"].append(f"{type(error).__name__}: {error}")
        findings[job["name"]] = found
        save_file(answers, out / f"{job['name']}.safetensors")
    assert "trainer" not in sys.modules
    (out / "findings.json").write_text(json.dumps(findings))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
