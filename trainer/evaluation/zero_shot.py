"""Zero-shot over ranks: the pretrained language model answers from a prompt, and is let go."""

import gc
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.engines.precision import COMPUTE_DTYPES
from trainer.errors import ConfigError
from trainer.evaluation.evaluate import write_records
from trainer.models.architecture import build_model_config
from trainer.models.load import load_model
from trainer.models.tokenizers.tokenizer import num_rows
from trainer.tasks.base import Objective, Record

if TYPE_CHECKING:
    from trainer.run import Run

AT_ONCE = 512
"""Examples whose prompts are held at once."""


def measure_zero_shot(run: "Run", accelerator: Accelerator) -> dict[str, dict[str, Any]]:
    """Returns the zero-shot metrics of validation and test, the same on every rank.

    The model is that of the recipe with its own vocabulary head, quantised like the run's and held
    beside it meanwhile. The main process writes a record for each answer to predictions/. Raises
    ConfigError where the pretrained weights have no such head.
    """
    asked = run.task.zero_shot
    if asked is None:
        return {}
    model = _language_model(run, accelerator)
    measured: dict[str, dict[str, Any]] = {}
    for split in ("validation", "test"):
        if split not in run.splits:
            continue
        start, rows, records = time.monotonic(), run.splits[split], list[Record]()
        share = asked.sample(rows)[accelerator.process_index :: accelerator.num_processes]
        for first in range(0, len(share), AT_ONCE):
            records += asked.answer(model, rows, share[first : first + AT_ONCE])
        records = sorted(gather_object(records), key=itemgetter("id"))
        if accelerator.is_main_process:
            write_records(records, run.directory / "predictions" / f"zero_shot_{split}.jsonl")
        measured[split] = {**asked.metrics(records), "seconds": time.monotonic() - start}
    del model
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without a GPU
    return measured


def _language_model(run: "Run", accelerator: Accelerator) -> Any:
    settings, mode = run.recipe.model, run.recipe.tuning.mode
    loaded = load_model(
        settings,
        build_model_config(settings, run.tokenizer),
        auto_model="AutoModelForCausalLM",
        tokenizer_size=num_rows(run.tokenizer),
        mode="head_only" if mode == "full" else mode,  # nothing of it learns in fp32
        frozen_dtype=COMPUTE_DTYPES[run.precision],
        seed=run.recipe.seed,
    )
    if loaded.fresh:
        raise ConfigError(
            f"task.zero_shot: {settings.name_or_path} has no weights of {', '.join(loaded.fresh)}, "
            f"without which it continues no prompt; name a language model, or set "
            f"task.zero_shot: null"
        )
    Objective(loaded.model, run.task).to(accelerator.device)  # a quantised model refuses to move
    return loaded.model.eval()
