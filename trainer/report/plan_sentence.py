"""The sentence that holds a run against its plan."""

from typing import Any

from trainer.wording import format_seconds, format_span


def plan_sentence(results: dict[str, Any]) -> str | None:
    """Returns the measured memory and time beside the planned ones; None if none was planned, as in
    runs of older versions and on a CPU."""
    plan = results.get("plan")
    if plan is None:
        return None
    memory, seconds = plan["memory"], plan["seconds"]
    parts: list[str] = []
    if memory["planned"] is not None and memory["measured"] is not None:
        measured, planned = (memory[name] / 2**30 for name in ("measured", "planned"))
        parts.append(f"peak memory {measured:.2f} GiB (planned {planned:.2f} GiB)")
    if seconds["planned"] is not None:
        took, planned = format_seconds(seconds["measured"]), format_span(*seconds["planned"])
        parts.append(f"training took {took} (planned {planned})")
    return f"beside the plan: {', '.join(parts)}" if parts else None
