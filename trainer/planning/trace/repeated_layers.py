"""The log of a model of many equal layers, made from that of a model of five.

The third layer stands for all but the first and the last two: these may differ from it, and what a
layer leaves to the next one is freed there.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby
from typing import NamedTuple

from trainer.planning.trace.storages import ENTERS, Event, Section

TRACED = 5
"""Number of layers of the model whose log is repeated."""
REPEATED = 2
"""Index of the layer that stands for others."""
LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
"""The number of a layer in the name of a module."""


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
    """Returns whether the third layer allocates the same as the layer computed before it, some of
    whose storages it frees: the second one, or in backward the fourth."""
    sizes: dict[Section, list[int]] = {}
    for event in log:
        if event.size > 0 and event.section is not None:
            sizes.setdefault(event.section, []).append(event.size)
    phases = {section.phase for section in sizes}
    neighbours = {phase: REPEATED + (1 if phase == "backward" else -1) for phase in phases}
    return all(
        sizes.get(Section(phase, REPEATED)) == sizes.get(Section(phase, neighbour))
        for phase, neighbour in neighbours.items()
    )


def num_copies(number: int) -> int:
    """Returns for how many of `number` layers the repeated one stands."""
    return number - TRACED + 1


def total(amounts: Mapping[Section | None, int], number: int) -> int:
    """Returns the sum of amounts by section that `number` layers would give."""
    return sum(
        amount * (num_copies(number) if section is not None and section.layer == REPEATED else 1)
        for section, amount in amounts.items()
    )


class _Repetition:
    """Numbers storages by the traced one and the copy of the repeated layer, from 0."""

    def __init__(self, log: list[Event], number: int) -> None:
        self.copies = num_copies(number)
        self.runs = [(section, list(run)) for section, run in groupby(log, lambda e: e.section)]
        self.layer: dict[int, int] = {}
        self.place: dict[int, Place] = {}
        self.twins: dict[Place, int] = {}
        self.numbers: dict[tuple[int, int], int] = {}
        self.sections: dict[tuple[Section, int], Section] = {}
        num_runs: Counter[Section] = Counter()
        for section, run in self.runs:
            if section is None:
                continue
            num_runs[section] += 1
            made = [event.storage for event in run if event.size > 0]
            for position, storage in enumerate(made):
                place = Place(section.phase, num_runs[section], position)
                self.layer[storage], self.place[storage] = section.layer, place
                if section.layer == REPEATED:
                    self.twins[place] = storage

    def events(self) -> Iterator[Event]:
        for section, events in self.runs:
            if section is None or section.layer != REPEATED:
                for event in events:
                    yield from self._outside(event)
                continue
            copies = range(self.copies)
            for copy in reversed(copies) if section.phase == "backward" else copies:
                for event in events:
                    yield self._renumbered(event, *self._storage(event.storage, copy), copy)

    def _outside(self, event: Event) -> Iterable[Event]:
        """Yields an event that is not in the repeated layer's section; for all copies of the
        storage, if it is one of that layer."""
        if self.layer.get(event.storage) != REPEATED:
            yield self._renumbered(event, event.storage, 0, None)
        elif event.section is None:
            for copy in range(self.copies):
                yield self._renumbered(event, event.storage, copy, None)
        else:  # in a neighbour's section: of the copy that is next to it
            copy = 0 if event.section.layer < REPEATED else self.copies - 1
            yield self._renumbered(event, event.storage, copy, None)

    def _storage(self, storage: int, copy: int) -> tuple[int, int]:
        """Returns what stands for a storage in a copy of the repeated layer's section."""
        layer = self.layer.get(storage)
        if layer is None or layer == REPEATED:
            return storage, 0 if layer is None else copy
        neighbour = copy + layer - REPEATED
        twin = self.twins.get(self.place[storage])
        if not 0 <= neighbour < self.copies or twin is None:
            return storage, 0
        return twin, neighbour

    def _renumbered(self, event: Event, storage: int, copy: int, index: int | None) -> Event:
        section = event.section
        if section is not None:
            section = self._section(section, index or 0)
        if storage >= 0:
            storage = self.numbers.setdefault((storage, copy), len(self.numbers))
        kind = event.kind
        if event.size == ENTERS:
            kind = LAYER_NUMBER.sub(partial(self._renamed, index or 0), kind, 1)
        return Event(storage, event.size, kind, section)

    def _renamed(self, copy: int, layer: re.Match[str]) -> str:
        return str(self._number(int(layer[0]), copy))

    def _number(self, layer: int, copy: int) -> int:
        """Returns the number of a traced layer, or of a copy of the repeated one, in the model."""
        if layer == REPEATED:
            return layer + copy
        return layer if layer < REPEATED else layer + self.copies - 1

    def _section(self, section: Section, copy: int) -> Section:
        """Returns a section as that of a copy of the repeated layer, or of a layer behind."""
        layer = self._number(section.layer, copy)
        return self.sections.setdefault((section, layer), Section(section.phase, layer))
