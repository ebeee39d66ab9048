"""Data sets that are generated rather than downloaded: pure functions of (num_rows, seed)."""

from collections.abc import Callable

from trainer.data.builtin.documents import documents
from trainer.data.builtin.draws import Rows
from trainer.data.builtin.instructions import instructions
from trainer.data.builtin.nli import nli
from trainer.data.builtin.passages import passages
from trainer.data.builtin.reviews import reviews

# name -> generator(num_rows, seed)
BUILTIN: dict[str, Callable[[int, int], dict[str, Rows]]] = {
    "reviews": reviews,
    "nli": nli,
    "passages": passages,
    "documents": documents,
    "instructions": instructions,
}
