"""Zero-shot evaluation over ranks: the pretrained language model is prompted, and then freed."""

import gc
import time
from operator import itemgetter
from typing import Any

import torch
from accelerate import Accelerator

from trainer.distributed.collectives import gather_on_main, on_main
from trainer.engines.precision import COMPUTE_DTYPES
from trainer.errors import ConfigError
from trainer.evaluation.evaluate import write_records
from trainer.models.architecture import build_model_config
from trainer.models.load import ModelSpec, load_model
from trainer.models.tokenizers.tokenizer import num_rows
from trainer.run import Run
from trainer.tasks.base import Objective, ZeroShot
from trainer.tasks.reported import Record

EXAMPLES_AT_ONCE = 512
"""Examples whose prompts are in memory at once."""


def measure_zero_shot(run: Run, accelerator: Accelerator) -> dict[str, dict[str, Any]]:
    """Returns the zero-shot metrics of validation and test, the same on every rank.

    The model is the recipe's, with its own vocabulary head and quantised like the run's. It takes
    memory in addition to the run's model until this returns. The main process writes a record of
    each answer to predictions/. Raises ConfigError if the pretrained weights have no vocabulary
    head. Empty if the task has no zero-shot evaluation.
    """
    zero_shot = run.task.zero_shot
    if zero_shot is None:
        return {}
    model = _language_model(run, accelerator)
    splits = [split for split in ("validation", "test") if split in run.splits]
    measured = {split: _measure(run, accelerator, zero_shot, model, split) for split in splits}
    del model
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without a GPU
    return measured


def _measure(
    run: Run, accelerator: Accelerator, zero_shot: ZeroShot, model: Any, split: str
) -> dict[str, Any]:
    start, rows, topology = time.monotonic(), run.splits[split], run.topology
    share = zero_shot.sample(rows)[topology.dp_rank :: topology.dp_size]
    records: list[Record] = []
    for first in range(0, len(share), EXAMPLES_AT_ONCE):
        records += zero_shot.answer(model, rows, share[first : first + EXAMPLES_AT_ONCE])
    gathered = gather_on_main(accelerator, records)

    def score() -> dict[str, Any]:
        answers = [record for part in gathered for record in part]
        answers.sort(key=itemgetter("id"))
        write_records(answers, run.directory / "predictions" / f"zero_shot_{split}.jsonl")
        return zero_shot.metrics(answers)

    return {**on_main(accelerator, score), "seconds": time.monotonic() - start}


def _language_model(run: Run, accelerator: Accelerator) -> Any:
    settings, mode = run.recipe.model, run.recipe.tuning.mode
    loaded = load_model(
        ModelSpec(
            settings,
            build_model_config(settings, run.tokenizer),
            auto_model="AutoModelForCausalLM",
            tokenizer_size=num_rows(run.tokenizer),
            mode="head_only" if mode == "full" else mode,  # nothing learns, so nothing needs fp32
            frozen_dtype=COMPUTE_DTYPES[run.precision],
            seed=run.recipe.seed,
        )
    )
    if loaded.fresh:
        raise ConfigError(
            f"task.zero_shot: {settings.name_or_path} has no weights of {', '.join(loaded.fresh)}, "
            f"without which it continues no prompt",
            key="task.zero_shot",
            value=settings.name_or_path,
            hint="name a language model, or set task.zero_shot: null",
        )
    Objective(loaded.model, run.task).to(accelerator.device)  # a quantised model refuses to move
    return loaded.model.eval()
