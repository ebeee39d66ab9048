"""BibTeX entries of what a run used: the base model, the data, and this package."""

import re
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from trainer.report.card.model_index import is_on_hub
from trainer.report.markup import plain

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\textbraceleft{}",
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    **{character: f"\\{character}" for character in "%$&#_"},
}


def bibtex(results: dict[str, Any]) -> str:
    """Returns the entries as text; names of models and data cannot end an entry or a field.

    Authors and years are not known to the run: the pages of model and data name them.
    """
    model, source = results["recipe"]["model"], results["recipe"]["data"]["source"]
    packages = results.get("environment", {}).get("packages", {})
    entries = [
        *_from_hub("base-model", model["name_or_path"], model["revision"], ""),
        *_from_hub("data", source["hub"], source["revision"], "datasets/", source["config"]),
        _entry(
            "software",
            "trainer",
            {
                "title": "trainer: a distributed trainer for language models whose numbers do not "
                "depend on where it runs",
                "version": packages.get("trainer", version("trainer")),
            },
        ),
    ]
    return "\n\n".join(entries)


def _from_hub(
    key: str, name: str | None, revision: str | None, kind: str, part: str | None = None
) -> list[str]:
    """Returns the entry of a model or a data set of the hub; none for another origin."""
    if name is None or not is_on_hub(name):
        return []
    notes = [f"configuration {part}"] * (part is not None)
    notes += [f"revision {revision}"] * (revision is not None)
    fields = {"title": name, "howpublished": "Hugging Face Hub", "note": ", ".join(notes)}
    address = f"https://huggingface.co/{kind}{quote(plain(name), safe='/')}"
    return [_entry("misc", key, {name: text for name, text in fields.items() if text}, address)]


def _entry(kind: str, key: str, fields: dict[str, str], address: str | None = None) -> str:
    lines = [f"  {name} = {{{_escaped(text)}}}" for name, text in fields.items()]
    lines += [f"  url = {{{address}}}"] * (address is not None)
    return f"@{kind}{{{key},\n" + ",\n".join(lines) + "\n}"


def _escaped(text: object) -> str:
    return re.sub(r"[\\{}~^`%$&#_]", lambda match: _SPECIAL[match[0]], plain(text))
