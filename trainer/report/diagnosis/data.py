"""Data that makes a metric mean less: seen in training, cut short, truncated or skipped."""

import re
from collections.abc import Mapping
from typing import Any, cast

from trainer.metrics.numbers import finite
from trainer.report.diagnosis.measured import SPLITS, mapping, measured, reported
from trainer.report.recorded import RecordedRun
from trainer.tasks.finding import Finding

MANY_SHARED = 0.01
"""Share of rows seen in training from which a metric is doubtful."""
MANY_TRUNCATED = 0.1
MANY_SKIPPED = 0.01
SHARED = re.compile(
    r"(?:all )?([\d,]+)(?: of ([\d,]+))? (validation|test) rows also occur in train"
)
"""The note of results without the counts of their data."""


def about_data(run: RecordedRun) -> list[Finding]:
    """Returns what the rows of a run say against its metrics."""
    return [
        *_same_rows(run),
        *_seen(run),
        *_chosen_on_test(run),
        *_cut(run),
        *_sampled(run),
        *_share(
            run,
            "num_truncated",
            MANY_TRUNCATED,
            Finding(
                code="truncated",
                message="examples were cut to batch.max_seq_length",
                advice="raise batch.max_seq_length, or shorten what is cut",
            ),
        ),
        *_share(
            run,
            "num_skipped",
            MANY_SKIPPED,
            Finding(
                code="skipped-examples",
                message="rows could not be used and were skipped",
                advice="fix the rows, of which a warning names the first",
            ),
        ),
    ]


def _trained_on(run: RecordedRun, split: str) -> bool:
    """Returns whether a split holds the rows of training and nothing else."""
    facts, train = mapping(run.results, "data", split), mapping(run.results, "data", "train")
    digest = facts.get("sha256")
    shared, rows = _overlap(run, split)
    origin = mapping(run.recipe, "data", "split").get(split)
    return (
        (digest is not None and digest == train.get("sha256"))
        or bool(rows and shared["exact"] >= rows)
        or origin == "train"
    )


def _overlap(run: RecordedRun, split: str) -> tuple[Mapping[str, float], float]:
    """Returns how many rows of a split occur in training, `exact` and `normalised`, and the number
    of its rows; 0 if nothing is known."""
    facts = mapping(run.results, "data", split)
    found = mapping(facts, "overlap_with_train")
    exact, rows = finite(found.get("exact")), finite(facts.get("rows"))
    if exact is not None and rows is not None:
        return {"exact": exact, "normalised": finite(found.get("normalised")) or exact}, rows
    warnings: Any = run.results.get("warnings")
    for warning in cast(list[Any], warnings) if isinstance(warnings, list) else []:
        note = SHARED.fullmatch(warning) if isinstance(warning, str) else None
        if note is not None and note[3] == split:
            exact, whole = (float(text.replace(",", "")) for text in (note[1], note[2] or note[1]))
            return {"exact": exact, "normalised": exact}, whole
    return {"exact": 0.0, "normalised": 0.0}, 0.0


def _same_rows(run: RecordedRun) -> list[Finding]:
    return [
        Finding(
            code="trained-on",
            message="every row was trained on: its metrics say nothing about other data",
            advice="name other rows in data.split",
            split=split,
            severity="wrong",
        )
        for split in SPLITS
        if _trained_on(run, split)
    ]


def _seen(run: RecordedRun) -> list[Finding]:
    findings: list[Finding] = []
    for split in SPLITS:
        shared, rows = _overlap(run, split)
        most = max(shared.values())
        if not rows or not most or _trained_on(run, split):
            continue
        findings.append(
            Finding(
                code="seen-in-training",
                message=f"{shared['exact']:,.0f} of {rows:,.0f} rows occur in training, "
                f"{shared['normalised']:,.0f} if only letters and digits count "
                f"({most / rows:.1%})",
                advice="remove them from the split, or measure without them",
                figures={**shared, "rows": rows},
                split=split,
                severity="doubtful" if most >= MANY_SHARED * rows else "note",
            )
        )
    return findings


def _chosen_on_test(run: RecordedRun) -> list[Finding]:
    """Returns whether the best step was chosen by the rows on which it is then measured."""
    digests = [mapping(run.results, "data", split).get("sha256") for split in SPLITS]
    origins = [mapping(run.recipe, "data", "split").get(split) for split in SPLITS]
    same = digests[0] is not None and digests[0] == digests[1]
    named = isinstance(origins[0], str) and origins[0] == origins[1] != "auto"
    if not (same or named) or run.results.get("model") == "final":
        return []
    return [
        Finding(
            code="chosen-on-test",
            message="validation and test are the same rows: the best step was chosen by the test",
            advice="split validation off train, by data.split.validation: {ratio: 0.1}",
            split="test",
        )
    ]


def _num_measured(metrics: Mapping[str, Any]) -> float | None:
    """Returns the number of examples or questions that metrics are of; None if they do not say."""
    classes = mapping(metrics, "per_class")
    if classes:
        supports = [finite(mapping(scores).get("support")) for scores in classes.values()]
        known = [support for support in supports if support is not None]
        return sum(known) if len(known) == len(supports) else None
    return finite(metrics.get("total"))


def _cut(run: RecordedRun) -> list[Finding]:
    findings: list[Finding] = []
    most = finite(mapping(run.recipe, "data").get("max_rows"))
    for one in reported(run.results):
        rows = finite(mapping(run.results, "data", one.split).get("rows"))
        num_measured = _num_measured(one.metrics)
        number = rows if num_measured is None else num_measured
        if number is not None and most is not None and number >= most:
            what = f"only the first {number:,.0f} rows are measured, by data.max_rows"
        elif rows is not None and num_measured is not None and num_measured < rows:
            what = f"{num_measured:,.0f} of {rows:,.0f} rows are measured"
        else:
            continue
        findings.append(
            Finding(
                code="cut-evaluation",
                message=f"{what}: results on the whole split may differ",
                advice="set data.max_rows: null, and fix rows that are skipped",
                figures={"measured": number or 0.0, **({} if rows is None else {"rows": rows})},
                split=one.split,
            )
        )
    return findings


def _sampled(run: RecordedRun) -> list[Finding]:
    """Returns which texts were generated for some examples only: zero-shot, and to be scored."""
    findings: list[Finding] = []
    columns = measured(run.results)
    generation = mapping(run.recipe, "task", "generation")
    for one in columns:
        rows = finite(mapping(run.results, "data", one.split).get("rows"))
        if one.column == "zero-shot":
            number = _num_measured(one.metrics)
        elif one.column == "best" and one.number("generated_words") is not None:
            number = finite(generation.get("num_examples"))
        else:
            continue
        if rows is None or number is None or number >= rows:
            continue
        what = "zero-shot answers" if one.column == "zero-shot" else "scores of generated text"
        findings.append(
            Finding(
                code="sampled-answers",
                message=f"{what} are of {number:,.0f} of {rows:,.0f} rows",
                advice="raise num_examples in task.zero_shot or task.generation",
                figures={"answers": number, "rows": rows},
                split=one.split,
                severity="note",
            )
        )
    return findings


def _share(run: RecordedRun, key: str, many: float, finding: Finding) -> list[Finding]:
    """Returns the finding with the splits of which a share `many` of the rows or more is counted in
    `key`; it is a note if only training is concerned."""
    counted: dict[str, str] = {}
    figures: dict[str, float] = {}
    for split in ("train", *SPLITS):
        facts = mapping(run.results, "data", split)
        number, rows = finite(facts.get(key)), finite(facts.get("rows"))
        skipped = finite(facts.get("num_skipped")) or 0.0
        if not number or rows is None:
            continue
        whole = rows if key == "num_skipped" else rows - skipped
        if whole <= 0:
            continue
        if number >= many * whole:
            counted[split] = f"{number:,.0f} of {whole:,.0f} {split}"
            figures[split] = number / whole
    if not counted:
        return []
    return [
        Finding(
            code=finding.code,
            message=f"{', '.join(counted.values())} {finding.message}",
            advice=finding.advice,
            figures=figures,
            severity="doubtful" if counted.keys() & {*SPLITS} else "note",
        )
    ]
