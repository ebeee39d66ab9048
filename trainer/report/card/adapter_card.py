"""The card of exported adapters, with the code that loads them onto their base model."""

import json
from pathlib import Path
from typing import Any

from trainer.models.load import QUANTISED, Base
from trainer.models.span_head import how_to_load
from trainer.models.structure import output_layer
from trainer.recipe.schema import Recipe
from trainer.report.markup import as_markdown

WHOLE = "The whole model, with its tokenizer, is in `model/`, next to this folder."


def adapter_card(
    name: str, recipe: Recipe, model: Any, auto_model: str, base: Base, more: str = WHOLE
) -> str:
    """Returns the README.md of the adapters of a tuned model; `more` follows the code that loads
    them, if there is any."""
    settings, mode = recipe.model, recipe.tuning.mode
    path = settings.name_or_path
    if path is None or settings.initialization == "random":
        return (
            f"---\nlibrary_name: peft\n---\n\n# {as_markdown(name)}\n\nThese adapters fit only the "
            f"random weights of their own run. {more}\n"
        )
    known = "" if Path(path).is_dir() else f"base_model: {json.dumps(path, ensure_ascii=False)}\n"
    parts = [
        f"---\nlibrary_name: peft\n{known}---\n\n# {as_markdown(name)}",
        f"Adapters of {as_markdown(path)}, trained with {mode}, and the other weights that "
        f"training changed. To load them, run this in the folder of this file:",
        "\n".join(["```python", *_lines(recipe, model, auto_model, base), "```"]),
        more,
        how_to_load(model),
    ]
    return "\n\n".join(filter(None, parts)).rstrip() + "\n"


def _lines(recipe: Recipe, model: Any, auto_model: str, base: Base) -> list[str]:
    settings, config = recipe.model, model.config
    pad, rows = config.pad_token_id, config.vocab_size
    arguments = [repr(str(settings.name_or_path)), f'dtype="{str(_dtype(model)).split(".")[1]}"']
    if settings.revision is not None:
        arguments.append(f"revision={settings.revision!r}")
    if auto_model == "AutoModelForSequenceClassification":
        arguments.append(f"num_labels={config.num_labels}")
    if base.renewed:
        arguments.append("ignore_mismatched_sizes=True")
    if pad is not None and pad < base.rows:
        arguments.append(f"pad_token_id={pad}")
    if base.key_mapping:
        arguments.append(f"key_mapping={base.key_mapping!r}")
    imports = [auto_model]
    before: list[str] = []
    if recipe.tuning.mode in QUANTISED:
        imports.append("BitsAndBytesConfig")
        before.append(f"quantization = BitsAndBytesConfig({_quantisation(model)})")
        arguments.append("quantization_config=quantization")
    lines = ["from peft import PeftModel", f"from transformers import {', '.join(imports)}", ""]
    lines += [*before, f"base = {auto_model}.from_pretrained({', '.join(arguments)})"]
    if rows > base.rows:
        lines.append(f"base.resize_token_embeddings({rows}, mean_resizing=False)")
    if pad is not None and pad >= base.rows:
        lines.append(f"base.config.pad_token_id = {pad}")
    lines.append('model = PeftModel.from_pretrained(base, ".")')
    output: Any = output_layer(model.get_base_model())
    if hasattr(output, "token_adapter") and output.original_module.bias is not None:
        lines.append("model.get_output_embeddings().token_adapter.merge()  # or its bias is lost")
    return lines


def _dtype(model: Any) -> Any:
    return model.get_base_model().dtype


def _quantisation(model: Any) -> str:
    settings: dict[str, Any] = model.config.quantization_config.to_dict()
    names = ("load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant")
    names = names if settings["load_in_4bit"] else names[:1]
    values = {name: settings[name] for name in (*names, "llm_int8_skip_modules") if settings[name]}
    if settings["load_in_4bit"]:
        values["bnb_4bit_compute_dtype"] = str(settings["bnb_4bit_compute_dtype"]).split(".")[-1]
    return ", ".join(f"{name}={value!r}" for name, value in values.items())
