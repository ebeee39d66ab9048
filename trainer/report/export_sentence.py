"""The sentence about the exported model: which step it is, and whether it was verified."""

from typing import Any


def model_sentence(results: dict[str, Any]) -> str:
    """Returns which step model/ holds, and whether a fresh process got its logits; runs of older
    versions do not say the latter. The text is not escaped."""
    held = f"model/ holds the {results['model']} step"
    export = results.get("export")
    if not isinstance(export, dict):
        return held
    if export["failed"]:
        return f"model/ was not replaced by the {results['model']} step: {export['why_not']}"
    if not export["verified"]:
        return f"{held}, not verified in a fresh process: {export['why_not']}"
    statistic, difference = export["model"]["statistic"], export["model"]["difference"]
    if difference is None:  # the task of another package, whose outputs have other names
        return f"{held}; a fresh process loads it"
    return (
        f"{held}; a fresh process loads it and gives the measured logits ({statistic} difference "
        f"{difference:.1e} of their standard deviation)"
    )
