"""The model card of an exported model."""

import json
from pathlib import Path

from trainer.report.markdown import markdown
from trainer.report.markup import as_markdown
from trainer.report.report import Report


def model_card(report: Report, how_to_load: str = "") -> str:
    """Returns the README.md of an exported model. `how_to_load` is a section for models that
    `from_pretrained` alone cannot load."""
    recipe = report.results["recipe"]
    model, tuning = recipe["model"], recipe["tuning"]["mode"]
    base = model["name_or_path"] or model["architecture"]["model_type"]
    named = json.dumps(base, ensure_ascii=False)  # YAML reads JSON's quotes
    header = f"---\nlibrary_name: transformers\nbase_model: {named}\n---\n\n"
    if model["name_or_path"] is None or Path(base).is_dir():
        header = "---\nlibrary_name: transformers\n---\n\n"
    shown = Path(base).name if Path(base).is_dir() else base
    origin = f"Base: {as_markdown(shown)}, {model['initialization']}; tuning: {tuning}."
    return "\n\n".join(filter(None, [f"{header}{origin}", how_to_load, markdown(report)]))
