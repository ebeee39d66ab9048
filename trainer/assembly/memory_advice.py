"""Memory advice: what a run's memory holds, and the settings that would reduce it most."""

from contextlib import AbstractContextManager
from typing import Literal

from accelerate import Accelerator

from trainer.engines.micro_batch import AUTO_MICRO_BATCH
from trainer.engines.sharding import Sharding
from trainer.process.out_of_memory import held_bytes, memory_reported
from trainer.process.run_directory import MAY_DIFFER
from trainer.recipe.schema import Recipe
from trainer.run import Run
from trainer.tasks.batch import Batch
from trainer.wording import format_bytes

Phase = Literal["data", "loading", "training", "evaluation", "saving"]
SHORTEST = 32
"""Sequence length in tokens below which shortening is not suggested."""


def run_memory(
    run: Run, accelerator: Accelerator, phase: Phase, doing: str, batch: Batch | None = None
) -> AbstractContextManager[None]:
    """Context manager: if memory runs out inside, raises OutOfMemoryError with advice.

    The message says what the run was `doing`, such as "in step 3", the shape of the `batch`, the
    memory of its weights and moments, and which settings help.
    """
    tokens = None if batch is None else next(iter(batch.inputs.values()))
    shape = None if tokens is None else list(tokens.shape[:2])

    def situation() -> str:
        return doing if shape is None else f"{doing}, at {shape} (examples, tokens)"

    def settings() -> str:
        weights, trained = _bytes_of(run)
        helpful = settings_that_help(
            run.recipe,
            phase,
            processes=run.topology.dp_size,
            micro_batch_size=run.micro_batch_size,
            longest=None if shape is None else shape[-1],
            on_gpu=accelerator.device.type != "cpu",
            shards=run.launch_facts["sharding"] != Sharding.NOTHING.value,
            state_is_most=2 * (weights + trained) > held_bytes(),
        )
        return advice(helpful, resumes=bool(run.store.steps()))

    return memory_reported(situation, lambda: _taken(run), settings)


def recipe_memory(recipe: Recipe, phase: Phase, doing: str) -> AbstractContextManager[None]:
    """Context manager: like `run_memory`, for the time before there is a run."""
    return memory_reported(
        doing, lambda: "", lambda: advice(settings_that_help(recipe, phase), resumes=False)
    )


def settings_that_help(
    recipe: Recipe,
    phase: Phase,
    *,
    processes: int = 1,
    micro_batch_size: int | None = None,
    longest: int | None = None,
    on_gpu: bool = False,
    shards: bool = False,
    state_is_most: bool = False,
) -> list[str]:
    """Returns up to three settings that reduce memory in a phase, the most effective first, without
    those already set.

    `longest` is the length of the longest sequence in tokens. `shards` says whether the engine
    shards the optimizer, `state_is_most` whether weights, gradients and moments take more memory
    than activations.
    """
    if phase == "data":
        return _for_data(recipe)
    share = recipe.batch.global_batch_size // processes
    size = micro_batch_size or min(share, AUTO_MICRO_BATCH)
    activations = _for_activations(recipe, phase, share, size, longest)
    state = _for_state(recipe, phase, on_gpu=on_gpu, shards=shards)
    last = ["a smaller model", "more memory for the process"]
    if phase == "loading":
        return [*state, *last][:3]
    if phase == "saving" and recipe.checkpoint.in_background:
        return ["checkpoint.async=false", *state, *activations][:3]
    if phase == "saving":
        return [*state, *activations, *last][:3]
    if state_is_most:
        return [*state[:2], *activations, *state[2:], *last][:3]
    return [*activations, *state, *last][:3]


def advice(settings: list[str], *, resumes: bool) -> str:
    """Returns the settings as a clause; `resumes` says whether the run has a checkpoint.

    If it has one, only settings that may change on resuming apply to the same directory.
    """
    if not resumes:
        return f"use {_or(settings)}"
    same_run = [setting for setting in settings if setting.startswith(MAY_DIFFER)]
    new_run = [setting for setting in settings if setting not in same_run]
    if not same_run:
        return f"use, in a new --run-dir, {_or(new_run)}"
    otherwise = f"; or, in a new --run-dir, {_or(new_run)}" if new_run else ""
    return f"use {_or(same_run)} and resume the same run{otherwise}"


def _for_data(recipe: Recipe) -> list[str]:
    """Returns what reduces the memory of reading and tokenising."""
    source, rows = recipe.data.source, recipe.data.max_rows
    fewer = f"data.max_rows={max(1, (rows or 20_000) // 2)}"
    if source.builtin is not None:
        fewer = f"data.source.num_rows={max(1, source.num_rows // 2)}"
    return [fewer, "TOKENIZERS_PARALLELISM=false", "more memory for `trainer prepare` alone"]


def _for_activations(
    recipe: Recipe, phase: Phase, share: int, micro_batch_size: int, longest: int | None
) -> list[str]:
    """Returns what reduces the memory of activations; `share` is a rank's examples in a step."""
    settings: list[str] = []
    smaller = [size for size in range(1, micro_batch_size // 2 + 1) if share % size == 0]
    if smaller:
        settings.append(f"batch.micro_batch_size={smaller[-1]}")
    checkpoints = recipe.model.gradient_checkpointing or recipe.tuning.mode == "head_only"
    if phase == "training" and not checkpoints:
        settings.append("model.gradient_checkpointing=true")
    length = min(longest or recipe.batch.max_seq_length, recipe.batch.max_seq_length)
    if length > SHORTEST:
        shorter = 2 ** ((length - 1).bit_length() - 1)  # the next lower power of two
        settings.append(f"batch.max_seq_length={max(SHORTEST, shorter)}")
    return settings


def _for_state(recipe: Recipe, phase: Phase, *, on_gpu: bool, shards: bool) -> list[str]:
    """Returns what reduces the memory of weights, gradients and moments."""
    mode = recipe.tuning.mode
    settings: list[str] = []
    if mode in ("full", "lora") and recipe.model.initialization == "pretrained":
        settings.append(
            f"tuning.mode={'lora' if mode == 'full' and phase != 'loading' else 'qlora'}"
        )
    if phase != "loading" and not shards and recipe.optimizer.name == "adamw" and mode == "full":
        settings.append("optimizer.name=paged_adamw_8bit")
    if on_gpu and recipe.precision == "fp32":
        settings.append("precision=bf16")
    if on_gpu and shards:
        settings.append("accelerate_configs/zero3-offload.yaml")
    elif on_gpu and mode != "head_only":
        settings.append("a launch over several GPUs with accelerate_configs/zero3.yaml")
    return settings


def _bytes_of(run: Run) -> tuple[int, int]:
    """Returns the bytes of a run's weights, and the bytes of its gradients and moments."""
    weights = sum(p.numel() * p.element_size() for p in run.model.parameters())
    gradients = sum(p.numel() * p.element_size() for p in run.parameters.values())
    return weights, gradients + run.checkpoint_size.moments


def _taken(run: Run) -> str:
    weights, trained = _bytes_of(run)
    return (
        f"of which {format_bytes(weights)} for weights and {format_bytes(trained)} for gradients "
        f"and moments"
    )


def _or(settings: list[str]) -> str:
    return " or ".join([", ".join(settings[:-1]), settings[-1]] if settings[1:] else settings)
