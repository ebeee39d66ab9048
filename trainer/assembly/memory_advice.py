"""What takes the memory of a run, and the settings that it could do with less of."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

from trainer.process.out_of_memory import held_bytes, memory_told
from trainer.recipe.schema import Recipe
from trainer.wording import format_bytes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.run import Run
    from trainer.tasks.base import Batch

Phase = Literal["data", "loading", "training", "evaluation", "saving"]
SHORTEST = 32
"""Tokens of a sequence that is not worth shortening."""
MAY_CHANGE = ("batch.micro_batch_size", "model.gradient_checkpointing", "checkpoint.")
"""Settings with which a run goes on that has begun."""


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
    """Returns the three settings that lower the need for memory most, none that is set already.

    `longest` counts the tokens of the longest sequence, `shards` says whether an engine shards the
    optimizer, `state_is_most` whether weights, gradients and moments take more than activations.
    """
    mode, batch = recipe.tuning.mode, recipe.batch
    computed: list[str] = []
    share = batch.global_batch_size // processes
    size = micro_batch_size or min(share, 16)
    smaller = [one for one in range(1, size // 2 + 1) if share % one == 0]
    if smaller:
        computed.append(f"batch.micro_batch_size={smaller[-1]}")
    if phase == "training" and not recipe.model.gradient_checkpointing and mode != "head_only":
        computed.append("model.gradient_checkpointing=true")
    length = min(longest or batch.max_seq_length, batch.max_seq_length)
    if length > SHORTEST:
        computed.append(
            f"batch.max_seq_length={max(SHORTEST, 2 ** ((length - 1).bit_length() - 1))}"
        )
    held: list[str] = []
    if mode in ("full", "lora") and recipe.model.initialization == "pretrained":
        held.append(f"tuning.mode={'lora' if mode == 'full' and phase != 'loading' else 'qlora'}")
    if phase != "loading" and not shards and recipe.optimizer.name == "adamw" and mode == "full":
        held.append("optimizer.name=paged_adamw_8bit")
    if on_gpu and recipe.precision == "fp32":
        held.append("precision=bf16")
    if on_gpu and not shards and mode not in ("head_only",) and phase != "data":
        held.append("a launch over several GPUs with accelerate_configs/zero3.yaml")
    elif on_gpu and shards and phase != "data":
        held.append("accelerate_configs/zero3-offload.yaml")
    if phase == "data":
        source, rows = recipe.data.source, recipe.data.max_rows
        fewer = f"data.max_rows={max(1, (rows or 20_000) // 2)}"
        if source.builtin is not None:
            fewer = f"data.source.num_rows={max(1, source.num_rows // 2)}"
        return [fewer, "TOKENIZERS_PARALLELISM=false", "more memory for `trainer prepare` alone"]
    if phase == "saving" and recipe.checkpoint.in_background:
        return ["checkpoint.async=false", *held, *computed][:3]
    last = ["a smaller model", "more memory for the process"]
    if phase == "loading":
        return [*held, *last][:3]
    if phase == "saving":
        return [*held, *computed, *last][:3]
    if state_is_most and held:
        return [*held[:2], *computed, *held[2:], *last][:3]
    return [*computed, *held, *last][:3]


def advice(settings: list[str], *, resumes: bool) -> str:
    """Returns settings as the end of a sentence; `resumes`: whether the run has a checkpoint."""
    if not resumes:
        return f"use {_or(settings)}"
    here = [setting for setting in settings if setting.startswith(MAY_CHANGE)]
    elsewhere = [setting for setting in settings if setting not in here]
    if not here:
        return f"use, in a new --run-dir, {_or(elsewhere)}"
    anew = f"; or, in a new --run-dir, {_or(elsewhere)}" if elsewhere else ""
    return f"use {_or(here)} and the same run goes on{anew}"


def run_memory(
    run: "Run", accelerator: "Accelerator", phase: Phase, doing: str, batch: "Batch | None" = None
) -> AbstractContextManager[None]:
    """Tells what a run holds, and what helps, where memory is exhausted inside; `doing` is such as
    "in step 3"."""
    tokens = None if batch is None else next(iter(batch.inputs.values()))
    shape = None if tokens is None else list(tokens.shape[:2])

    def said() -> str:
        return doing if shape is None else f"{doing}, at {shape} (examples, tokens)"

    def settings() -> str:
        from trainer.engines.sharding import Sharding

        weights, learned = _bytes_of(run)
        found = settings_that_help(
            run.recipe,
            phase,
            processes=accelerator.num_processes,
            micro_batch_size=run.micro_batch_size,
            longest=None if shape is None else shape[-1],
            on_gpu=accelerator.device.type != "cpu",
            shards=run.launch["sharding"] != Sharding.NOTHING.value,
            state_is_most=2 * (weights + learned) > held_bytes(),
        )
        return advice(found, resumes=bool(run.store.steps()))

    return memory_told(said, lambda: _taken(run), settings)


def recipe_memory(recipe: Recipe, phase: Phase, doing: str) -> AbstractContextManager[None]:
    """Tells what helps where memory is exhausted before there is a run."""
    return memory_told(
        doing, lambda: "", lambda: advice(settings_that_help(recipe, phase), resumes=False)
    )


def _bytes_of(run: "Run") -> tuple[int, int]:
    """Returns the bytes of a run's weights, and of its gradients and moments."""
    weights = sum(one.numel() * one.element_size() for one in run.model.parameters())
    gradients = sum(one.numel() * one.element_size() for one in run.parameters.values())
    return weights, gradients + run.checkpoint_size.moments


def _taken(run: "Run") -> str:
    weights, learned = _bytes_of(run)
    return (
        f"of which {format_bytes(weights)} for weights and {format_bytes(learned)} for gradients "
        f"and moments"
    )


def _or(settings: list[str]) -> str:
    return " or ".join([", ".join(settings[:-1]), settings[-1]] if settings[1:] else settings)
