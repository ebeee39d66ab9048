"""Parameter counts that are not the number of weights, because 4-bit weights are packed."""

from trainer.metrics.numbers import finite
from trainer.report.diagnosis.measured import mapping
from trainer.report.recorded import RecordedRun
from trainer.tasks.finding import Finding


def about_counts(run: RecordedRun) -> list[Finding]:
    """Returns whether the parameter total of a 4-bit model counts packed elements as weights."""
    counts = mapping(run.results, "parameters")
    total, stored = finite(counts.get("total")), finite(counts.get("stored"))
    if total is None or mapping(run.recipe, "tuning").get("mode") != "qlora":
        return []
    if stored is None or stored >= total:
        return [
            Finding(
                code="packed-total",
                message=f"the total of {total:,.0f} parameters counts stored elements, of which "
                f"each 4-bit one holds two weights: up to half of the weights are missing",
                advice="count with trainer params, which sees through the packing",
                figures={"total": total},
                severity="wrong",
            )
        ]
    return [
        Finding(
            code="packed-storage",
            message=f"{total:,.0f} weights are stored in {stored:,.0f} elements, because two 4-bit "
            f"weights share one; tools that count elements show the smaller number",
            figures={"total": total, "stored": stored},
            severity="note",
        )
    ]
