"""Facts that only the run itself can tell its report: its data, its parameters and its sessions."""

from typing import Any

from trainer.assembly.columns_read import identifying_columns
from trainer.data.overlap import num_shared
from trainer.planning.breakdown import breakdown
from trainer.process.sessions import recorded_environment
from trainer.report.learned import zero_adapters
from trainer.report.results_schema import VERSION
from trainer.run import Run


def facts(run: Run, without_gradient: list[str] | None) -> dict[str, Any]:
    """Returns the keys of results.json that describe the run rather than measure it.

    The model must be whole on this rank. `without_gradient` comes from `learned.without_gradient`,
    which is collective; its key is left out if it is None.
    """
    learned: dict[str, Any] = {"zero_adapters": zero_adapters(run.model)}
    if without_gradient is not None:
        learned["without_gradient"] = without_gradient
    mode = run.recipe.tuning.mode
    return {
        "version": VERSION,
        "parameters": {**vars(run.parameter_counts), **breakdown(run.model, mode)},
        "data": data_facts(run),
        "learned": learned,
        "environment": recorded_environment(run.directory),
    }


def data_facts(run: Run) -> dict[str, dict[str, Any]]:
    """Returns the counts of each split as it was prepared, and the SHA-256 of the columns read.

    `overlap_with_train` counts the rows of other splits that occur in training, `exact` and
    `normalised` as in `num_shared`; it is left out if the splits have no columns to compare.
    """
    rows = {name: split.rows for name, split in run.splits.items()}
    columns = identifying_columns(rows, run.recipe)
    kinds = {"exact": False, "normalised": True} if columns else {}
    shared = {
        kind: num_shared(rows, columns, normalised=normalised) for kind, normalised in kinds.items()
    }
    facts: dict[str, dict[str, Any]] = {}
    for name, split in run.splits.items():
        summary = split.summary
        facts[name] = {
            "rows": len(split.rows),
            "examples": len(split),
            "tokens": int(split.lengths.sum()),
            "num_truncated": summary.num_truncated,
            "longest": max(summary.longest, int(split.lengths.max())),
            "num_skipped": summary.num_skipped,
            "sha256": split.digests.get("rows"),
        }
        if name != "train" and shared:
            facts[name]["overlap_with_train"] = {kind: shared[kind][name] for kind in shared}
    return facts
