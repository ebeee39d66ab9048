"""The card of an exported model: what it is, what it reaches, and how to cite its parts."""

import re
from pathlib import Path
from typing import Any

import yaml

from trainer.report.card.citations import bibtex
from trainer.report.card.model_index import eval_results, is_on_hub
from trainer.report.card.sections import as_yaml, metadata, sections
from trainer.report.markup import as_markdown


def write_card(folder: Path, name: str, results: dict[str, Any], use: str = "") -> None:
    """Writes README.md and .eval_results/*.yaml into the folder of an exported model."""
    (folder / "README.md").write_text(model_card(name, results, use), "utf-8")
    _write_eval_results(folder, results)


def complete_card(folder: Path, name: str, results: dict[str, Any]) -> None:
    """Adds what was measured to the README.md in a folder of adapters, and .eval_results/*.yaml."""
    card = folder / "README.md"
    card.write_text(with_results(card.read_text("utf-8"), name, results), "utf-8")
    _write_eval_results(folder, results)


def _write_eval_results(folder: Path, results: dict[str, Any]) -> None:
    for file, entries in eval_results(results).items():
        (folder / ".eval_results").mkdir(exist_ok=True)
        (folder / ".eval_results" / file).write_text(as_yaml(entries), "utf-8")


def model_card(name: str, results: dict[str, Any], use: str = "") -> str:
    """Returns the README.md of an exported model: the metadata that the hub reads, and Markdown.

    `use` is the section on how the model is loaded and used. Text from data, recipes and names is
    escaped.
    """
    model, tuning = results["recipe"]["model"], results["recipe"]["tuning"]["mode"]
    base = model["name_or_path"] or model["architecture"]["model_type"]
    shown = base if is_on_hub(base) else Path(base).name
    parts = [
        f"---\n{as_yaml(metadata(name, results))}---",
        f"# {as_markdown(name)}",
        f"Base: {as_markdown(shown)}, {model['initialization']}; tuning: {tuning}.",
        as_markdown(results.get("summary", "")),
        use,
        *sections(results),
        "## Citation",
        f"```bibtex\n{bibtex(results)}\n```",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def with_results(card: str, name: str, results: dict[str, Any]) -> str:
    """Returns a card with the metadata and the sections that a run's results fill.

    What the card says at its head is kept, and a card that has the sections is returned unchanged.
    """
    if re.search(r"^## (Results|Training)$", card, re.MULTILINE):
        return card
    head, body = split_card(card)
    library = head.get("library_name", "transformers")
    citation = ["## Citation", f"```bibtex\n{bibtex(results)}\n```"]
    text = "\n\n".join([body.strip(), *sections(results), *citation])
    return card_of({**metadata(name, results, library), **head}, f"{text}\n")


def card_of(head: dict[str, Any], body: str) -> str:
    """Returns a card of the metadata that the hub reads, and the text below it."""
    return f"---\n{as_yaml(head)}---\n\n{body}"


def split_card(card: str) -> tuple[dict[str, Any], str]:
    """Returns the metadata at the head of a card, and the text below it; a head that is not valid
    is dropped."""
    found = re.match(r"---\n(.*?)^---$\s*", card, re.DOTALL | re.MULTILINE)
    if found is None:
        return {}, card
    try:
        head: Any = yaml.safe_load(found[1])
    except yaml.YAMLError:
        head = {}
    return head if isinstance(head, dict) else {}, card[found.end() :]
