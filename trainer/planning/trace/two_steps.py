"""The log of two optimizer steps, made from that of one micro-batch and one update.

The moments are made at the end of the first step, out of what its activations have left free, so
the second step shows what a run holds. A later micro-batch of a step adds its gradients to those of
the first one.
"""

from collections.abc import Iterator

from trainer.planning.trace.storages import BEGINS, FREED, RENAMED, Event

PHASES = ("loading", "forward", "backward", "optimizer", "evaluation")


def two_steps(log: list[Event], *, accumulates: bool) -> Iterator[Event]:
    """Yields the log of two steps, of two micro-batches each if a step `accumulates`.

    `log` has each phase once; only gradients are renamed in it.
    """
    parts = _by_phase(log)
    made = {phase: _made(part) for phase, part in parts.items()}
    computed = made["forward"] | made["backward"]
    kept = {event.storage for event in parts["backward"] if event.size == RENAMED}
    ends = [event for event in parts["optimizer"] if event.size == FREED]
    freed_later = [
        event for event in ends if event.storage in computed and event.storage not in kept
    ]
    moments = made["optimizer"] - {event.storage for event in ends}
    repeated = computed | made["optimizer"] - moments
    numbers = _Numbers()
    yield from parts["loading"]
    for first in (0, 2):  # the number of a step's first micro-batch
        last = first + accumulates
        for current in range(first, last + 1):
            again = current > first
            yield from (numbers.of(event, computed, current) for event in parts["forward"])
            if again:  # what the variables of the loop held of the micro-batch before
                yield from (numbers.of(event, computed, first) for event in freed_later)
            for event in parts["backward"]:
                added = again and event.size == RENAMED
                yield numbers.of(event._replace(size=FREED) if added else event, computed, current)
        for event in parts["optimizer"]:
            if first and event.storage in moments:
                continue
            whose = first if event.storage in kept else last
            yield numbers.of(event, repeated, whose)
    yield from parts.get("evaluation", [])


def _by_phase(log: list[Event]) -> dict[str, list[Event]]:
    parts: dict[str, list[Event]] = {}
    phase = PHASES[0]
    for event in log:
        if event.size == BEGINS:
            phase = event.kind
        parts.setdefault(phase, []).append(event)
    return parts


def _made(events: list[Event]) -> set[int]:
    return {event.storage for event in events if event.size > 0}


class _Numbers:
    """Numbers of storages that are made in each repetition."""

    def __init__(self) -> None:
        self._known: dict[int, dict[int, int]] = {}
        self._last = -1

    def of(self, event: Event, repeated: set[int], repetition: int) -> Event:
        """Returns an event whose storage, if it is one of `repeated`, is that of a repetition."""
        storage, size, kind, section = event
        if storage not in repeated:
            return event
        known = self._known.setdefault(repetition, {})
        number = known.get(storage)
        if number is None:
            self._last -= 1
            number = known[storage] = self._last
        return Event(number, size, kind, section)
