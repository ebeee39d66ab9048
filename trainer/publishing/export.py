"""Exports a checkpoint of a run: its adapters, or the whole model, verified in a fresh process."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from trainer.assembly.build import build_run
from trainer.assembly.memory_advice import recipe_memory
from trainer.checkpoints.record import read_record
from trainer.checkpoints.store import CheckpointStore
from trainer.distributed.environment_variables import check_variables, num_ranks
from trainer.engines.accelerator import launched
from trainer.engines.sharding import whole_model
from trainer.errors import ConfigError, LaunchError
from trainer.evaluation.at_checkpoint import load_step
from trainer.exports.bounds import bounds_of
from trainer.exports.fingerprints import RECORD
from trainer.exports.gate import ExportError, Verdict, verify_export
from trainer.exports.measured import measure_if_asked, usage_section
from trainer.files.durable import write_json
from trainer.models.export import export_adapter, export_model
from trainer.models.quiet import quiet_transformers
from trainer.models.tokenizers.tokenizer import save_tokenizer
from trainer.process.environment import quieted_libraries
from trainer.process.run_directory import read_recipe
from trainer.process.switches import restored_switches
from trainer.publishing.destination import free_destination, staged
from trainer.publishing.export_card import write_adapter_card, write_model_card
from trainer.run import Run
from trainer.tasks.recipe import Recipe
from trainer.wording import excerpt

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to export, checked."""

    whole: bool
    """The whole model, with any adapters merged; otherwise the adapters alone."""
    dtype: torch.dtype | None
    """Type of the weights; None leaves each as it is."""
    shard_size: str
    others: tuple[str, ...]
    """Of "gguf" and "onnx"."""


def export_run(
    run_dir: Path,
    dest: Path,
    *,
    checkpoint: str = "best",
    merge: bool = False,
    dtype: str | None = None,
    shard_size: str = "2GB",
    gguf: bool = False,
    onnx: bool = False,
) -> Path:
    """Exports a checkpoint of a run to a new folder, and returns the folder.

    Of a run with adapters these are exported alone, or merged into the base with `merge`; of other
    runs the whole model. `checkpoint` is "best", "last" or a step, by whichever engine and on
    however many processes it was written. `dtype` is "bf16", "fp16" or "fp32". A file of weights
    holds at most `shard_size`. `gguf` and `onnx` add a file in that format each. A format that
    cannot be made is left out, and export.json says why; if none can be made, the export is
    refused.

    The folder appears complete or not at all, after a fresh process got the logits of the run's
    model from it. export.json in it says what was exported and how it was verified. Raises
    TrainerError, and ExportError if the export differs from the model of the run.
    """
    directory = run_dir.absolute()
    recipe = read_recipe(directory, Recipe)
    dest = free_destination(dest.absolute(), directory)
    others = tuple(name for name, asked in (("gguf", gguf), ("onnx", onnx)) if asked)
    wanted = _wanted(recipe, merge, dtype, shard_size, others)
    if num_ranks() > 1:
        raise LaunchError(
            f"an export is made by one process, and {num_ranks()} were launched",
            key="WORLD_SIZE",
            value=num_ranks(),
            hint="run `trainer export` without a launcher: any engine's checkpoint can be exported",
        )
    with ExitStack() as stack:
        stack.enter_context(quieted_libraries())
        stack.enter_context(restored_switches())
        check_variables()
        precise, notes = _in_precision_of_run(recipe, directory)
        accelerator = stack.enter_context(launched(precise, directory))
        with recipe_memory(precise, "loading", "loading the model"):
            run = build_run(precise, accelerator, directory)
        step, record = load_step(run, accelerator, checkpoint, recipe, ("train",))
        stack.enter_context(whole_model(run.objective))
        stack.enter_context(quiet_transformers())
        _write(run, accelerator, dest, wanted, step, record, notes)
    return dest


def _wanted(
    recipe: Recipe, merge: bool, dtype: str | None, shard_size: str, others: tuple[str, ...]
) -> Wanted:
    """Returns what to export; raises ConfigError if the options contradict each other."""
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(
            f"--dtype: {excerpt(dtype)!r} is not one of {', '.join(DTYPES)}",
            key="--dtype",
            value=dtype,
        )
    if not re.fullmatch(r"[1-9][0-9]{0,5}[KMG]B", shard_size):
        raise ConfigError(
            f"--shard-size: {excerpt(shard_size)!r} is not a size",
            key="--shard-size",
            value=shard_size,
            hint="write a whole number and a unit, such as 500MB or 2GB",
        )
    whole = merge or recipe.tuning.mode in ("full", "head_only")
    for option, given in (
        ("--dtype", dtype is not None),
        *((f"--{name}", True) for name in others),
    ):
        if given and not whole:
            raise ConfigError(
                f"{option} is for a whole model, and adapters alone are exported",
                key=option,
                hint="add --merge",
            )
    return Wanted(
        whole=whole,
        dtype=None if dtype is None else DTYPES[dtype],
        shard_size=shard_size,
        others=others,
    )


def _in_precision_of_run(recipe: Recipe, directory: Path) -> tuple[Recipe, list[str]]:
    """Returns the recipe in the precision that the run was trained in, as far as this machine has
    it, and notes; `auto` may be another precision here, and the frozen weights another type."""
    newest, _ = CheckpointStore(directory / "checkpoints").newest(resumable=False)
    recorded = None if newest is None else read_record(newest)["launch"].get("precision")
    precision = recorded if recorded in DTYPES else recipe.precision
    notes: list[str] = []
    if precision == "fp16" and not torch.cuda.is_available():
        precision = "fp32"
        notes.append("trained in fp16, and exported on a CPU: frozen weights were read in fp32")
    return recipe.model_copy(update={"precision": precision}), notes


def _write(
    run: Run,
    accelerator: Accelerator,
    dest: Path,
    wanted: Wanted,
    step: int,
    record: dict[str, Any],
    notes: list[str],
) -> None:
    measured = measure_if_asked(run, accelerator)
    bounds = bounds_of(run, wanted.dtype)
    with staged(dest) as folder:
        if wanted.whole:
            export_model(
                run.model,
                run.tokenizer,
                folder,
                ends=run.task.generation_ends(run.model),
                num_positions=run.num_positions,
                dtype=wanted.dtype,
                shard_size=wanted.shard_size,
            )
            use = usage_section(run, measured)
            write_model_card(folder, run, use, step, record, wanted.dtype)
        else:
            export_adapter(run.model, folder)
            save_tokenizer(run.tokenizer, folder, run.num_positions)
            write_adapter_card(folder, run, step, record)
        notes = [*notes, *_other_formats(folder, dest.name, wanted.others)]
        parts = (folder, None) if wanted.whole else (None, folder)
        verdict = verify_export(run, measured, bounds, *parts)
        if verdict.failed:
            raise ExportError(
                f"the export is not the model of the run: {verdict.why_not}. Nothing was written; "
                f"please report this"
            )
        write_json(folder / RECORD, _record(run, verdict, wanted, step, notes))


def _other_formats(folder: Path, name: str, formats: Sequence[str]) -> list[str]:
    """Writes the other formats, and returns notes, among them why one was left out.

    Raises ConfigError if all that were asked for had to be left out.
    """
    notes: list[str] = []
    problems: list[ConfigError] = []
    for kind in formats:
        try:
            if kind == "gguf":
                from trainer.exports.gguf import write_gguf

                notes += write_gguf(folder, folder / f"{name}.gguf")
            else:
                from trainer.exports.onnx import write_onnx

                notes += write_onnx(folder, folder / "model.onnx")
        except ConfigError as error:
            problems.append(error)
            notes.append(f"{kind} is left out: {error}")
    if problems and len(problems) == len(formats):
        raise problems[0]
    return notes


def _record(
    run: Run,
    verdict: Verdict,
    wanted: Wanted,
    step: int,
    notes: list[str],
) -> dict[str, Any]:
    """Returns export.json."""
    dtype = None if wanted.dtype is None else str(wanted.dtype).removeprefix("torch.")
    return {
        "run": run.directory.name,
        "step": step,
        "merged": wanted.whole and hasattr(run.model, "peft_config"),
        "dtype": dtype,
        **verdict.as_record(),
        "notes": notes,
    }
