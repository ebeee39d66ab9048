"""Perplexities that cannot be: below 1, above the vocabulary, or of another base than they say."""

import math
import re
from collections.abc import Iterator

from trainer.metrics.numbers import finite
from trainer.report.diagnosis.measured import Measured, evaluations, mapping, measured
from trainer.report.recorded import RecordedRun
from trainer.tasks.finding import Finding

LARGEST_VOCABULARY = 10_000_000
"""More tokens than any model has."""
LARGEST_EXPONENT = 700.0
"""Largest loss whose perplexity is a number of double precision."""
TOLERANCE = 0.02
"""Relative difference up to which two perplexities are taken for one that was rounded."""
NAME_THE_BASE = "call exp(mean loss) the perplexity, and name the base of every other logarithm"
BASES = {"2": 2.0, "10": 10.0}


def about_perplexity(run: RecordedRun) -> list[Finding]:
    """Returns what is impossible about the perplexities of a run, each kind once."""
    vocabulary = _vocabulary(run)
    columns = [*measured(run.results), *(one for _, one in evaluations(run))]
    found: dict[str, Finding] = {}
    for one in columns:
        for finding in _of(one, vocabulary):
            found.setdefault(finding.code, finding)
    return list(found.values())


def _vocabulary(run: RecordedRun) -> float | None:
    """Returns the number of tokens that the model knows, or the most that it can know."""
    model = mapping(run.recipe, "model")
    known = (
        mapping(run.results, "parameters").get("vocabulary"),
        mapping(model, "architecture").get("vocab_size"),
        mapping(model, "tokenizer").get("vocab_size"),
    )
    return next((size for size in map(finite, known) if size), None)


def _of(one: Measured, vocabulary: float | None) -> Iterator[Finding]:
    for name, value in one.numbers().items():
        if not re.search("perplexity|ppl", name, re.IGNORECASE):
            continue
        if re.search("log", name, re.IGNORECASE):
            yield from _of_logarithm(one, name, value)
            continue
        if value < 1:
            yield Finding(
                code="perplexity-below-1",
                message=f"{name} {value:.4f} ({one.column}) is below 1, the perplexity of a model "
                f"that is certain of every token",
                advice="take the exponential of the mean loss, of which this may be the value",
                figures={name: value},
                split=one.split,
                severity="wrong",
            )
            continue
        yield from _beside_the_loss(one, name, value)
        trained = one.column not in ("baseline", "zero-shot")
        if trained and vocabulary is not None and value > vocabulary:
            yield Finding(
                code="perplexity-above-vocabulary",
                message=f"{name} {value:,.1f} ({one.column}) is above {vocabulary:,.0f}, that of "
                f"guessing every token of the vocabulary alike",
                advice="lower the learning rate, or check that the tokenizer is the model's",
                figures={name: value, "vocabulary": vocabulary},
                split=one.split,
            )


def _of_logarithm(one: Measured, name: str, value: float) -> Iterator[Finding]:
    base = next((base for base in ("10", "2") if base in name), "e")
    most = math.log(LARGEST_VOCABULARY, BASES.get(base, math.e))
    if value > most:
        yield Finding(
            code="log-base",
            message=f"{name} {value:.2f} ({one.column}) cannot be a logarithm to the base {base}: "
            f"guessing among {LARGEST_VOCABULARY:,} tokens has {most:.1f}",
            advice=NAME_THE_BASE,
            figures={name: value, "most": most},
            split=one.split,
            severity="wrong",
        )


def _beside_the_loss(one: Measured, name: str, value: float) -> Iterator[Finding]:
    """Yields a finding if a perplexity is not e to the power of the loss beside it."""
    loss = one.number("loss_masked_lm")
    loss = one.number("loss") if loss is None else loss
    if loss is None or not 0 <= loss < LARGEST_EXPONENT:
        return
    if math.isclose(value, math.exp(loss), rel_tol=TOLERANCE):
        return
    base = next(
        (
            name
            for name, base in BASES.items()
            if loss * math.log(base) < LARGEST_EXPONENT
            and math.isclose(value, base**loss, rel_tol=TOLERANCE)
        ),
        None,
    )
    cause = f"it is {base} to the power of the loss" if base else "they are not of the same tokens"
    yield Finding(
        code="log-base" if base else "perplexity-and-loss",
        message=f"{name} {value:.2f} ({one.column}) stands beside the loss {loss:.4f}, whose "
        f"perplexity is {math.exp(loss):.2f}: {cause}",
        advice=NAME_THE_BASE,
        figures={name: value, "loss": loss, "expected": math.exp(loss)},
        split=one.split,
        severity="wrong",
    )
