"""The gate: an exported folder, loaded from disk in a fresh process, gives the measured logits."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.exports.bounds import Bound, Bounds
from trainer.exports.fingerprints import fingerprints
from trainer.exports.measured import Measured
from trainer.exports.process import NotRunError, answers_of
from trainer.exports.usage.answers import differences
from trainer.models.span_head import how_to_load
from trainer.process.available_memory import available_bytes
from trainer.run import Run
from trainer.wording import excerpt, format_bytes

LEAST_BYTES = 2**30
"""Memory of the libraries in a fresh process."""
LEAST_DEVIATION = 1.0
"""Logits that vary less are compared as they are: dividing by a small deviation would magnify the
rounding of a model that has learned little."""

WITHOUT_BASE = "only the run itself has the random weights that these adapters belong to"


class ExportError(Exception):
    """An exported model is not the one that was measured: a defect of this package, or of a
    library."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate found."""

    verified: bool
    why_not: str | None
    """Why the export was not verified, or what is wrong with it."""
    failed: bool
    """Whether something is wrong with it."""
    model: dict[str, Any] | None
    adapter: dict[str, Any] | None

    def as_record(self) -> dict[str, Any]:
        """Returns the key `export` of results.json."""
        return asdict(self)


def unverified(
    why_not: str, folder: Path | None, adapter: Path | None, *, failed: bool = False
) -> Verdict:
    """Returns the verdict on folders that were not compared, or that are wrong."""
    return Verdict(
        verified=False,
        why_not=why_not,
        failed=failed,
        model=_part(folder),
        adapter=_part(adapter),
    )


def verify_export(
    run: Run,
    measured: Measured | str,
    bounds: Bounds,
    folder: Path | None,
    adapter: Path | None = None,
) -> Verdict:
    """Returns whether a fresh process gets the measured logits from an exported model, and from
    exported adapters by the code of their card.

    `measured` may say why there is nothing to compare with. Not verified is also what does not fit
    into memory beside this process, what no process could be started for, and adapters alone of
    random weights. The folders are only read; the exchange goes to a hidden folder beside them.
    """
    if isinstance(measured, str):
        return unverified(measured, folder, adapter)
    place = folder if folder is not None else adapter
    assert place is not None
    needed, left = _needed(run, folder, adapter), available_bytes()
    if left is not None and left < needed:
        return unverified(
            f"loading it a second time takes {format_bytes(needed)} of memory, and "
            f"{format_bytes(left)} are left",
            folder,
            adapter,
        )
    job, inputs = job_of(run, measured, folder, adapter)
    if job["folder"] is None and job["adapter"] is None:
        return unverified(WITHOUT_BASE, folder, adapter)
    with tempfile.TemporaryDirectory(prefix=".gate-", dir=place.parent) as exchange:
        try:
            findings, logits = answers_of(job, inputs, Path(exchange))
        except NotRunError as error:
            why_not = f"it could not be loaded in a fresh process: {error}"
            return unverified(why_not, folder, adapter)
    gaps = {
        part: _difference(measured, logits, part, bound)
        for part, bound in (("model", bounds.model), ("adapter", bounds.adapter))
    }
    problems = _problems(measured, bounds, findings, gaps)
    if problems:
        return unverified("; ".join(problems), folder, adapter, failed=True)
    return Verdict(
        verified=True,
        why_not=None,
        failed=False,
        model=_part(folder, gaps["model"], bounds.model, measured.num_examples),
        adapter=_part(adapter, gaps["adapter"], bounds.adapter, measured.num_examples),
    )


def job_of(
    run: Run, measured: Measured, folder: Path | None, adapter: Path | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns what a fresh process gets to know of a run: its job, and the inputs by name."""
    model: Any = run.model
    registration = _code(how_to_load(model))
    usage = measured.usage
    code = None if adapter is None else _code((adapter / "README.md").read_text("utf-8"))
    labels = run.task.config_values().get("id2label")
    job = {
        "folder": None if folder is None else str(folder),
        "adapter": None if code is None else {"folder": str(adapter), "code": code},
        "auto_model": run.task.auto_model,
        "registration": registration,
        "labels": None if labels is None else list(labels.values()),
        "pad_token_ids": {
            "config.json": model.config.pad_token_id,
            "the tokenizer": run.tokenizer.pad_token_id,
        },
        "ends": run.task.generation_ends(run.model),
        "texts": measured.texts,
        "chat_template": run.tokenizer.chat_template,
        "batches": [
            {"arguments": list(batch.inputs), "outputs": batch.per_token}
            for batch in measured.batches
        ],
        "usage": None if usage is None else {"code": usage.program, "names": usage.inputs},
        "num_threads": torch.get_num_threads(),
        "not_imported": ["trainer"] if registration is None else [],
    }
    inputs: dict[str, Tensor] = {}
    for index, batch in enumerate(measured.batches):
        inputs[f"{index}:positions"] = batch.positions
        inputs |= {f"{index}.{name}": tensor.contiguous() for name, tensor in batch.inputs.items()}
    return job, inputs


def _code(text: str) -> str | None:
    """Returns the first block of Python in a Markdown text."""
    match = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    return None if match is None else match[1]


def _problems(
    measured: Measured, bounds: Bounds, findings: Mapping[str, Any], gaps: Mapping[str, Any]
) -> list[str]:
    problems = [excerpt(problem, 250) for problem in findings["problems"]]
    problems += [f"of its adapters: {excerpt(one, 250)}" for one in findings["adapter_problems"]]
    if findings["error"] is not None:
        problems.append(f"{findings['doing']} fails: {excerpt(findings['error'], 250)}")
    for part, bound in (("model", bounds.model), ("adapter", bounds.adapter)):
        gap = gaps[part]
        if gap is not None and not gap <= bound.limit:  # it may be NaN
            name = "its logits differ" if part == "model" else "the logits of its adapters differ"
            problems.append(
                f"{name} from the measured ones by {gap:.1e} of their standard deviation "
                f"({bound.statistic}), and {bound.limit:g} is allowed"
            )
    if not problems and measured.usage is not None and findings["usage"] is not None:
        problems += differences(
            measured.usage, measured.expected, findings["usage"], bounds.model.limit
        )
    return problems


def _difference(
    measured: Measured, logits: Mapping[str, Tensor], part: str, bound: Bound
) -> float | None:
    """Returns the difference of the logits in their standard deviation, of the worst batch; None
    without any."""
    worst: float | None = None
    for index, batch in enumerate(measured.batches):
        for name, own in batch.logits.items():
            other = logits.get(f"{part}.{index}.{name}")
            if other is None:
                continue
            if other.shape != own.shape:
                return float("inf")
            gaps = other - own
            gap = gaps.abs().max() if bound.statistic == "largest" else gaps.square().mean().sqrt()
            deviation = max(float(own.std()) if own.numel() > 1 else 0.0, LEAST_DEVIATION)
            relative = float(gap) / deviation
            worst = relative if worst is None or not relative <= worst else worst
    return worst


def _needed(run: Run, folder: Path | None, adapter: Path | None) -> int:
    """Returns the bytes that a fresh process takes: weights, some room to compute, libraries."""
    stored = sum(
        file.stat().st_size
        for place in (folder, adapter)
        if place is not None
        for file in place.glob("*.safetensors")
    )
    if folder is None:
        stored += sum(p.numel() * p.element_size() for p in run.model.parameters())
    return int(1.2 * stored) + LEAST_BYTES


def _part(
    folder: Path | None,
    difference: float | None = None,
    bound: Bound | None = None,
    num_examples: int = 0,
) -> dict[str, Any] | None:
    """Returns the record of an exported folder; without a bound if no logits were compared."""
    if folder is None:
        return None
    if difference is None:
        bound, num_examples = None, 0
    return {
        "difference": difference,
        "bound": None if bound is None else bound.limit,
        "statistic": None if bound is None else bound.statistic,
        "num_examples": num_examples,
        "files": fingerprints(folder),
    }
