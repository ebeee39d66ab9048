"""The processes of stage 1 that each train several small runs.

jobs.py FOLDER cuda|cpu [--tiny] ROOT/JOB…    JOB: five_steps, whole, resumed, paging, export

An error ends its run only, and is written into the folder of that run.
"""

import argparse
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import yaml


def train(name: str, values: dict[str, Any], folder: Path, *, resume: str = "auto") -> None:
    """Trains one run as `trainer train` does."""
    from trainer.cli.train import train

    forget_precision()
    directory = cases.folder_of(folder, name)
    directory.mkdir(parents=True)
    file = directory / "recipe.yaml"
    file.write_text(yaml.safe_dump(values))
    print(f"== {directory}", flush=True)
    try:
        train(str(file), (), directory, resume)
    except Exception as error:
        print(traceback.format_exc(), flush=True)
        (directory / "error").write_text(f"{type(error).__name__}: {error}")


def forget_precision() -> None:
    """Allows the next run of this process to have another precision."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


def five_steps(folder: Path, given: argparse.Namespace) -> None:
    """Trains the runs that are compared between devices; on a GPU also fp16 and paged moments."""
    for name, values in cases.five_steps(tiny=given.tiny).items():
        if not (given.tiny and folder.parent.name == "reference") or name in (
            cases.COMPARED_IN_A_REHEARSAL
        ):
            train(name, values, folder)
    if folder.parent.name == "reference":
        return
    if given.device == "cuda":
        train("full fp16", cases.classification("full") | {"precision": "fp16"}, folder)
    paged = cases.with_optimizer(cases.classification("full"), "paged_adamw_8bit")
    train("paged_adamw_8bit fp32", paged, folder)


def whole(folder: Path, given: argparse.Namespace) -> None:
    """Trains six steps with deterministic kernels, saved after the third."""
    for name, values in cases.resumed(on_gpu=given.device == "cuda").items():
        train(name, values, folder)


def resumed(folder: Path, given: argparse.Namespace) -> None:
    """Resumes those runs from their third step."""
    before = folder.with_name("whole")
    for name, values in cases.resumed(on_gpu=given.device == "cuda").items():
        checkpoint = cases.folder_of(before, name) / "checkpoints" / "step-00000003"
        train(name, values, folder, resume=str(checkpoint))


def paging(folder: Path, _: argparse.Namespace) -> None:
    """Counts the moments that a paged optimizer pages, after a step and after loading."""
    from trainer.assembly.build import build_run
    from trainer.engines.accelerator import build_accelerator
    from trainer.engines.portable_state import base_optimizer, full_moments, set_full_moments
    from trainer.loop import micro_batches_of_step, optimizer_step
    from trainer.tasks.recipe import parse_recipe

    folder.mkdir()
    values = cases.with_optimizer(cases.classification("full"), "paged_adamw_8bit")
    recipe = parse_recipe(values, "paging")
    forget_precision()
    accelerator = build_accelerator(recipe, folder)
    run = build_run(recipe, accelerator, folder)
    optimizer_step(run, accelerator, micro_batches_of_step(run, accelerator, 0), step=1)

    def counts() -> dict[str, Any]:
        states = base_optimizer(run.optimizer).state.values()
        moments = [state[name] for state in states for name in ("state1", "state2")]
        paged = [getattr(moment, "is_paged", False) for moment in moments]
        large = [moment.numel() >= 100_000 for moment in moments]
        return {"large": sum(large), "paged": sum(paged), "all_large_ones": paged == large}

    made = counts()
    kept = full_moments(run.objective, run.optimizer, run.parameters)
    moments = {whole.name: whole.gather().clone() for whole in kept}
    set_full_moments(run.objective, run.optimizer, run.parameters, moments)
    (folder / "found.json").write_text(json.dumps({"made": made, "loaded": counts()}))


def export(folder: Path, given: argparse.Namespace) -> None:
    """Trains on a 4-bit base and compares the model in memory with the reloaded exports."""
    import torch
    from peft import PeftModel
    from shapes import model_folder
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    from trainer.assembly.build import build_run
    from trainer.checkpoints.load import load_weights
    from trainer.engines.accelerator import build_accelerator
    from trainer.tasks.recipe import parse_recipe

    folder.mkdir()
    base = model_folder(folder, "base", cases.SHAPE, given.device)
    values = cases.classification("qlora")
    del values["data"]["split"]
    values["model"] = {"name_or_path": str(base), "tokenizer": values["model"]["tokenizer"]}
    values["checkpoint"]["verify_export"] = True
    train("qlora fp32", values, folder)
    directory = cases.folder_of(folder, "qlora fp32")
    recipe = parse_recipe(values, "export")
    forget_precision()
    accelerator = build_accelerator(recipe, directory)
    run = build_run(recipe, accelerator, directory)
    results = json.loads((directory / "results.json").read_text())
    load_weights(run.store.path(results["best"]["step"]), run.objective, run.parameters)

    auto: Any = AutoModelForSequenceClassification
    ids = torch.tensor([run.splits["validation"].ragged("input_ids")[0].tolist()])
    packing = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["score"],
    )
    device = torch.device(given.device, 0) if given.device == "cuda" else torch.device("cpu")
    with torch.no_grad():
        live = run.model.eval()(ids.to(device)).logits
        merged = auto.from_pretrained(directory / "model", dtype=torch.float32).to(device).eval()
        quantised = auto.from_pretrained(
            base,
            dtype=torch.float32,
            quantization_config=packing,
            num_labels=2,
            pad_token_id=run.tokenizer.pad_token_id,
            device_map={"": 0} if given.device == "cuda" else None,
        )
        for module in quantised.modules():  # otherwise a CPU that multiplies bf16 rounds here only
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        adapted = PeftModel.from_pretrained(quantised, str(directory / "adapter")).eval()
        verdict = results["export"]
        found = {
            "fresh_process": {name: verdict[name] for name in ("verified", "why_not")}
            | {part: verdict[part]["difference"] for part in ("model", "adapter")},
            "logits": live[0].tolist(),
            "model": float((merged(ids.to(device)).logits - live).abs().max()),
            "adapter": float((adapted(ids.to(device)).logits - live).abs().max()),
        }
    (folder / "found.json").write_text(json.dumps(found))


JOBS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    job.__name__: job for job in (five_steps, whole, resumed, paging, export)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("device", choices=["cuda", "cpu"])
    parser.add_argument("jobs", nargs="+")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    for name in given.jobs:
        folder = given.folder / name
        folder.parent.mkdir(exist_ok=True)
        JOBS[folder.name](folder, given)


if __name__ == "__main__":
    main()
