"""Loads exported folders as any user would, with transformers and PEFT alone, in one process.

`python load_exports.py JOBS OUT`: JOBS is a JSON list of objects with name, auto_model, folder,
adapter and inputs; OUT gets by name the logits of either, and what is wrong with the folder.
"""

import json
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def logits(model: Any, inputs: dict[str, list[list[int]]]) -> dict[str, list[Any]]:
    """Returns the logits of one batch, by their names."""
    for module in model.modules():  # on a CPU bitsandbytes repacks 4-bit weights, and fails on tiny
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    batch = {name: torch.tensor(values) for name, values in inputs.items()}
    with torch.no_grad():
        output = model.eval()(**batch)
    return {name: value.float().tolist() for name, value in output.items() if "logits" in name}


def problems(model: Any, info: dict[str, Any], folder: Path) -> list[str]:
    """Returns which weights of the folder are missing, unexpected, or stored twice."""
    found = [f"{name}: {sorted(map(str, value))}" for name, value in info.items() if value]
    stored: dict[str, tuple[int, ...]] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                found += [f"{name} is stored twice"] if name in stored else []
                stored[name] = tuple(tensors.get_slice(name).get_shape())
    found += [f"{name} is empty" for name, shape in stored.items() if 0 in shape]
    tied: dict[int, list[str]] = {}
    for name, value in model.state_dict().items():
        tied.setdefault(value.data_ptr(), []).append(name)
    for names in tied.values():
        both = [name for name in names if name in stored]
        found += [f"{both} are one tensor, stored twice"] if len(both) > 1 else []
    settings = json.loads((folder / "config.json").read_text())
    found += ["quantization_config is left"] if "quantization_config" in settings else []
    found += [] if settings.get("use_cache", True) else ["use_cache is off"]
    return found


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Returns the logits of the model in a folder and, if it has any, of its adapters."""
    folder, auto = Path(job["folder"]), getattr(transformers, job["auto_model"])
    model, info = auto.from_pretrained(folder, output_loading_info=True)
    made: dict[str, Any] = {"problems": problems(model, info, folder)}
    made["model"] = [logits(model, one) for one in job["inputs"]]
    if job["adapter"] is not None:
        os.chdir(job["adapter"])
        code = re.search(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
        assert code is not None
        names: dict[str, Any] = {}
        exec(code[1], names)
        made["adapter"] = [logits(names["model"], one) for one in job["inputs"]]
    return made


def main(jobs: Path, out: Path) -> None:
    answers: dict[str, Any] = {}
    for job in json.loads(jobs.read_text()):
        try:
            answers[job["name"]] = answer(job)
        except Exception as error:
            answers[job["name"]] = {"problems": [f"{type(error).__name__}: {error}"]}
    assert "trainer" not in sys.modules
    out.write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
