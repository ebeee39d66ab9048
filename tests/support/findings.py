"""Findings of the doctor, by their codes."""

from collections.abc import Iterable

from trainer.doctor.finding import Finding


def by_code(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Returns the first finding of each code."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.code, finding)
    return first


def levels(findings: Iterable[Finding]) -> dict[str, str]:
    """Returns the level of the first finding of each code."""
    return {code: finding.level for code, finding in by_code(findings).items()}
