"""Results of older versions, and values that no run writes, are diagnosed without an error."""

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from support.diagnosed_runs import (
    ANSWERS,
    CLASSIFICATION,
    LANGUAGE_MODEL,
    course,
    recorded,
    training,
)

from trainer.report.diagnosis import diagnose_run
from trainer.report.recorded import RecordedRun

ODD = (None, math.nan, math.inf, -1, 0, 1e308, True, "", "0.5", [], [None], {}, {"a": None})
BASES = (CLASSIFICATION, LANGUAGE_MODEL, ANSWERS)


def places(value: Any) -> Iterator[tuple[str, ...]]:
    """Yields the path of every key in nested dicts."""
    for key, inside in value.items() if isinstance(value, dict) else ():
        yield (key,)
        yield from ((key, *rest) for rest in places(inside))


def with_value(results: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(results)
    inside = changed
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return changed


def diagnosed(results: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    """Diagnoses results, and writes what was found as JSON."""
    run = recorded(results, {}, lines)
    for finding in diagnose_run(run):
        json.dumps(finding.as_dict())
        assert finding.sentence()
        assert finding.sentence().isprintable()


@pytest.mark.parametrize("base", BASES)
def test_every_value_may_be_odd_or_missing(base):
    statistics = {"num_examples": 800, "tests": [{"metric": "accuracy", "after": "best", "p": 1}]}
    results = {**base, "zero_shot": base["baseline"], "statistics": {"test": statistics}}
    lines = [*course()[:3], *training()]
    for place in places(results):
        for odd in ODD:
            diagnosed(with_value(results, place, odd), lines)
        removed = copy.deepcopy(results)
        inside = removed
        for key in place[:-1]:
            inside = inside[key]
        del inside[place[-1]]
        diagnosed(removed, lines)


def test_every_value_of_a_line_may_be_odd():
    lines = course()
    for index, line in enumerate(lines):
        for place in places(line):
            for odd in ODD:
                changed = [*lines[:index], with_value(line, place, odd), *lines[index + 1 :]]
                diagnosed(CLASSIFICATION, changed)


@pytest.mark.parametrize("results", [{}, {"best": None, "epochs": [None, 3], "warnings": [None]}])
def test_nothing_is_found_in_nothing(results):
    assert diagnose_run(recorded(results, {}, [])) == []


def test_names_from_data_are_shortened_and_stay_on_one_line():
    long, lines = "x" * 5000, "two\nlines"
    per_class = {
        long: {"support": 9, "predicted": 9},
        lines: {"support": 0, "predicted": 0},
    }
    changes = {
        "best.metrics.test": {"accuracy": 1.0, "per_class": per_class},
        "learned.zero_adapters": [long, lines],
    }
    run: RecordedRun = recorded(CLASSIFICATION, changes)
    found = {finding.code: finding.message for finding in diagnose_run(run)}
    assert {"one-class", "absent-label", "majority-share", "zero-adapters"} <= found.keys()
    assert all(len(message) < 500 for message in found.values())
