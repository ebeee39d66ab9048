"""Adds up a log of storages: the peak of each phase by what is held, and what is reserved."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from trainer.planning.trace.allocator import BLOCK, CachingAllocator
from trainer.planning.trace.storages import BEGINS, ENTERS, FREED, RENAMED, Event, Section

ROUNDING = "rests of blocks"


@dataclass
class Peak:
    """The highest memory of a phase, in bytes."""

    allocated: int = 0
    held: Counter[str] = field(default_factory=Counter)
    """Bytes at that moment by what they hold; they add up to `allocated`."""
    section: Section | None = None
    """The layer that was computed then, if any."""
    module: str = ""
    """The module that was computed then."""


@dataclass(frozen=True)
class Ledger:
    peaks: dict[str, Peak]
    """By phase; of a phase that occurs several times, its last."""
    allocated: int
    """Bytes at the end."""
    reserved: int
    """Bytes that the allocator holds at the end. It gives nothing back before."""


def add_up(log: Iterable[Event]) -> Ledger:
    """Returns the peaks of a log that begins with a phase."""
    allocator, held = CachingAllocator(), Counter[str]()
    known: dict[int, tuple[str, int]] = {}
    peaks: dict[str, Peak] = {}
    peak, module = Peak(), ""
    for storage, size, kind, section in log:
        if size == FREED:
            if storage in known:
                before, rounded = known.pop(storage)
                held[before] -= rounded
                allocator.free(storage)
        elif size == RENAMED:
            before, rounded = known[storage]
            held[before] -= rounded
            held[kind] += rounded
            known[storage] = kind, rounded
        elif size == BEGINS:
            peak = peaks[kind] = _peak(allocator, held, section, module)
        elif size == ENTERS:
            module = kind
        else:
            rounded = -(-size // BLOCK) * BLOCK
            held[kind] += rounded
            known[storage] = kind, rounded
            allocator.allocate(storage, size)
            if allocator.allocated > peak.allocated:
                vars(peak).update(vars(_peak(allocator, held, section, module)))
    return Ledger(peaks, allocator.allocated, allocator.reserved)


def _peak(
    allocator: CachingAllocator, held: Counter[str], section: Section | None, module: str
) -> Peak:
    parts = Counter({kind: size for kind, size in held.items() if size})
    rest = allocator.allocated - sum(parts.values())
    if rest:
        parts[ROUNDING] = rest
    return Peak(allocator.allocated, parts, section, module)
