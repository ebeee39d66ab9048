"""The log of a model of many equal layers, made from that of a model of four.

The second layer stands for all but the first and the last two: these may differ from it, and what
a layer leaves to the next one is freed there.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import NamedTuple

from trainer.planning.trace.storages import Event, Section

TRACED = 4
"""Number of layers of the model whose log is repeated."""


class Place(NamedTuple):
    """Where a layer's computation makes a storage; equal layers make theirs in equal places."""

    phase: str
    run: int
    """Which of the computations of this layer in this phase."""
    position: int


def with_layers(log: list[Event], number: int) -> list[Event]:
    """Returns the log that `number` layers, at least TRACED, would give."""
    return list(_Repetition(log, number).events())


def is_repeatable(log: list[Event]) -> bool:
    """Returns whether the second layer allocates the same as its neighbours, where what it frees
    is theirs: of the first one in forward, of the third one in backward."""
    sizes: dict[Section, list[int]] = {}
    for event in log:
        if event.size > 0 and event.section is not None:
            sizes.setdefault(event.section, []).append(event.size)
    phases = {section.phase for section in sizes}
    neighbours = {phase: 2 if phase == "backward" else 0 for phase in phases}
    return all(
        sizes.get(Section(phase, 1)) == sizes.get(Section(phase, neighbour))
        for phase, neighbour in neighbours.items()
    )


def total(amounts: Mapping[Section | None, int], number: int) -> int:
    """Returns the sum of amounts by section that `number` layers would give."""
    return sum(
        amount * (number - 3 if section is not None and section.layer == 1 else 1)
        for section, amount in amounts.items()
    )


class _Repetition:
    """Numbers storages by the traced one and the copy of the second layer, from 0."""

    def __init__(self, log: list[Event], number: int) -> None:
        self.copies = number - 3
        self.runs = [(section, list(run)) for section, run in groupby(log, lambda e: e.section)]
        self.layer: dict[int, int] = {}
        self.place: dict[int, Place] = {}
        self.twins: dict[Place, int] = {}
        self.numbers: dict[tuple[int, int], int] = {}
        num_runs: Counter[Section] = Counter()
        for section, run in self.runs:
            if section is None:
                continue
            num_runs[section] += 1
            made = [event.storage for event in run if event.size > 0]
            for position, storage in enumerate(made):
                place = Place(section.phase, num_runs[section], position)
                self.layer[storage], self.place[storage] = section.layer, place
                if section.layer == 1:
                    self.twins[place] = storage

    def events(self) -> Iterator[Event]:
        for section, events in self.runs:
            if section is None or section.layer != 1:
                for event in events:
                    yield from self._outside(event)
                continue
            copies = range(self.copies)
            for copy in reversed(copies) if section.phase == "backward" else copies:
                for event in events:
                    yield self._renumbered(event, *self._storage(event.storage, copy), copy)

    def _outside(self, event: Event) -> Iterable[Event]:
        """Yields an event that is not in the second layer's section, for all copies of the storage
        if it is one of the second layer."""
        if self.layer.get(event.storage) != 1:
            yield self._renumbered(event, event.storage, 0, None)
        elif event.section is None:
            for copy in range(self.copies):
                yield self._renumbered(event, event.storage, copy, None)
        else:  # in a neighbour's section: of the copy that is next to it
            copy = 0 if event.section.layer == 0 else self.copies - 1
            yield self._renumbered(event, event.storage, copy, None)

    def _storage(self, storage: int, copy: int) -> tuple[int, int]:
        """Returns what stands for a storage in a copy of the second layer's section."""
        layer = self.layer.get(storage)
        if layer is None or layer == 1:
            return storage, copy if layer == 1 else 0
        neighbour = copy - 1 if layer == 0 else copy + 1
        twin = self.twins.get(self.place[storage])
        if not 0 <= neighbour < self.copies or twin is None:
            return storage, 0
        return twin, neighbour

    def _renumbered(self, event: Event, storage: int, copy: int, index: int | None) -> Event:
        section = event.section
        if section is not None:
            first, own = section.layer, 1 + (index or 0)
            layer = own if first == 1 else first and first + self.copies - 1
            section = Section(section.phase, layer)
        if storage < 0:
            return event._replace(section=section)
        number = self.numbers.setdefault((storage, copy), len(self.numbers))
        return event._replace(storage=number, section=section)
