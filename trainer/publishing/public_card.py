"""The card of a pushed model: that of its folder, complete, and without what must not leave."""

import re
from pathlib import Path
from typing import Any

from trainer.publishing.redaction import without_places
from trainer.report.card.model_card import card_of, split_card, with_results

BESIDE = re.compile(r"^The whole model, with its tokenizer, is in `model/`.*$", re.MULTILINE)
"""How the card of adapters names the folder next to it, which the repository does not have."""
FILES = """
## Files

`recipe.yaml` is the recipe, `results.json` what the run measured, and `trainer.json` names the run
and the files of the model.
"""


def public_card(
    card: str, name: str, results: dict[str, Any], places: list[str], *, part: str
) -> str:
    """Returns the README.md of a repository from the one in the folder of a model or its adapters.

    Cards of older runs get the results, too. A base model that is a folder is not named at the
    head, because the hub would take it for the name of a repository.
    """
    head, body = split_card(with_results(card, name, results))
    base = head.get("base_model")
    if isinstance(base, str) and Path(base).is_absolute():
        head = {key: v for key, v in head.items() if key not in ("base_model", "tags")}
    if part == "adapter":
        body = BESIDE.sub("The tokenizer is in this repository.", body)
    if FILES not in body:
        body = body.rstrip("\n") + "\n" + FILES
    return without_places(card_of(head, body), places)
