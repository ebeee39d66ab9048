"""The card of a pushed model: that of its folder, complete, and without what must not leave."""

import re
from pathlib import Path
from typing import Any

from trainer.publishing.redaction import without_places
from trainer.report.card.model_card import card_of, split_card, with_results
from trainer.report.markup import as_markdown

BESIDE = re.compile(r"^The whole model, with its tokenizer, is in `model/`.*$", re.MULTILINE)
"""How the card of adapters names the folder next to it, which the repository does not have."""
FORM = "[More Information Needed]"
"""What PEFT writes, many times, into the card of adapters."""
FILES = """
## Files

`recipe.yaml` is the recipe, `results.json` what the run measured, and `trainer.json` says which
recipe and step the model is of, and lists its files.
"""


def public_card(
    card: str, name: str, results: dict[str, Any], places: list[str], *, part: str
) -> str:
    """Returns the README.md of a repository from the one in the folder of a model or its adapters.

    Cards of older runs get the results, too; PEFT's form, which nobody has filled in, is left out.
    A base model that is a folder is not named at the head, because the hub would take it for the
    name of a repository.
    """
    head, body = split_card(card)
    if not body.strip() or FORM in body:
        library = {"library_name": "peft"} if part == "adapter" else {}
        card = card_of({**library, **head}, f"# {as_markdown(name)}\n")
    head, body = split_card(with_results(card, name, results))
    base = head.get("base_model")
    if isinstance(base, str) and Path(base).is_absolute():
        head = {key: v for key, v in head.items() if key not in ("base_model", "tags")}
    if part == "adapter":
        body = BESIDE.sub("The tokenizer is in this repository.", body)
    return without_places(card_of(head, body.rstrip("\n") + "\n" + FILES), places)
