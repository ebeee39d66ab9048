"""What a push sends of a run: its model or its adapters, with tokenizer, card, recipe and results.

Weights and the tokenizer are sent as they are; from other texts, paths on this machine are cut.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.errors import RunDirectoryError
from trainer.exports.fingerprints import RECORD as EXPORTED
from trainer.files.kept_folder import files_below
from trainer.files.plain import open_plain, parse_json, read_text
from trainer.process.run_directory import read_recipe
from trainer.process.run_entries import writing_to
from trainer.publishing.public_card import public_card
from trainer.publishing.record import RECORD, record_text
from trainer.publishing.redaction import (
    local_places,
    public_recipe,
    public_text,
    with_texts,
    without_places,
)
from trainer.publishing.verified import (
    check_done,
    check_not_refuted,
    is_verified,
    verified_files,
)
from trainer.recipe.tuning import ADAPTER_MODES
from trainer.recipe.yaml12 import write_yaml
from trainer.report.card.model_index import eval_results
from trainer.report.card.sections import as_yaml
from trainer.report.recorded import read_run
from trainer.tasks.recipe import Recipe

Part = Literal["model", "adapter"]
TOKENIZER = re.compile(
    r"(tokenizer(_config)?|special_tokens_map|added_tokens|vocab|chat_template)\.(json|txt|jinja)"
    r"|merges\.txt|(tokenizer|spiece|sentencepiece\.bpe)\.model|additional_chat_templates/.+"
)
"""The files of a tokenizer in a model's folder."""
MEASURED = (
    *("summary", "parameters", "data", "baseline", "baseline_is", "zero_shot", "best", "final"),
    *("model", "statistics", "seconds", "peak_memory_bytes", "processes", "precision"),
    *("skipped_steps", "scales", "warnings"),
)
"""The keys of results.json that are sent; the machine and its commands are not among them."""
SETTINGS = re.compile(r"[\w-]*config\.json")
"""Files whose texts may hold paths."""
ABOUT_RECIPE = "# Files and folders of the machine that trained are named by their last part.\n"


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a push sends of a run."""

    directory: Path
    part: Part
    step: int
    """Optimizer steps of the model."""
    recipe: Recipe
    results: dict[str, Any]
    files: Mapping[str, Path | bytes]
    """Path in the repository to the file, or to its content if that is not the file's."""
    notes: tuple[str, ...]
    """What the sender should know, a sentence each."""


def contents_of(directory: Path, *, merge: bool = False) -> Contents:
    """Returns what a push of a run sends: adapters if it trained some, unless `merge`.

    Raises RunDirectoryError if the run is not done, or if its files are missing or were changed.
    """
    directory = directory.resolve()  # "." and "..", too, have a name then
    recipe = read_recipe(directory, Recipe)
    check_done(directory)
    run = read_run(directory)
    check_not_refuted(run)
    part: Part = "adapter" if recipe.tuning.mode in ADAPTER_MODES and not merge else "model"
    if part == "adapter":
        _check_base(directory, recipe)
    prints = verified_files(run, part)
    values = recipe.model_dump(mode="json")
    places = local_places(directory, values)
    step = run.results[run.results["model"]]["step"]
    verified = is_verified(run.results)
    folder = directory / part
    with writing_to(directory):
        files = _from_folder(folder, places)
        if part == "adapter":
            files |= _tokenizer(directory / "model", places)
        card = read_text(folder / "README.md") if (folder / "README.md").is_file() else ""
    generated = {
        "README.md": public_card(card, directory.name, run.results, places, part=part),
        "recipe.yaml": ABOUT_RECIPE + write_yaml(public_recipe(values)),
        "results.json": _measured(run.results, places),
    }
    for name, entries in eval_results(run.results).items():
        generated[f".eval_results/{name}"] = as_yaml(entries)
    sent = {*files, *generated}
    generated[RECORD] = record_text(
        recipe, step=step, part=part, verified=verified, files=prints, sent=sent
    )
    return Contents(
        directory=directory,
        part=part,
        step=step,
        recipe=recipe,
        results=run.results,
        files={**files, **{name: text.encode() for name, text in generated.items()}},
        notes=_notes(recipe, part, merge=merge, verified=verified),
    )


def _check_base(directory: Path, recipe: Recipe) -> None:
    """Raises RunDirectoryError if nobody else has the weights that a run's adapters belong to."""
    if recipe.model.name_or_path is not None and recipe.model.initialization == "pretrained":
        return
    raise RunDirectoryError(
        f"the adapters of {directory} fit only the random weights of the run",
        key=str(directory),
        hint="send the whole model with --merge",
    )


def _notes(recipe: Recipe, part: Part, *, merge: bool, verified: bool | None) -> tuple[str, ...]:
    notes: list[str] = []
    if verified is None:
        notes.append("the run does not say whether its model was verified: it is an older one")
    if part == "adapter" and Path(recipe.model.name_or_path or "").is_absolute():
        notes.append(
            "the base model is a folder of this machine, which the adapters are useless without; "
            "--merge sends the whole model"
        )
    if merge and recipe.tuning.mode not in ADAPTER_MODES:
        notes.append("the run trained no adapters, so there is nothing to merge")
    return tuple(notes)


def _from_folder(folder: Path, places: list[str]) -> dict[str, Path | bytes]:
    """Returns the files of an exported folder but its card and the record of its export."""
    names = sorted(files_below(folder) - {"README.md", EXPORTED})
    shown = [name for name in names if not any(part[0] == "." for part in Path(name).parts)]
    return {name: _public(folder / name, places) for name in shown}


def _tokenizer(folder: Path, places: list[str]) -> dict[str, Path | bytes]:
    if not folder.is_dir():
        return {}
    names = sorted(name for name in files_below(folder) if TOKENIZER.fullmatch(name))
    return {name: _public(folder / name, places) for name in names}


def _public(file: Path, places: list[str]) -> Path | bytes:
    """Returns a file, or its content without paths if it is a configuration that has some."""
    with open_plain(file):  # a pipe or a device has no size to announce
        pass
    if not SETTINGS.fullmatch(file.name):
        return file
    try:
        values: Any = parse_json(read_text(file))
    except ValueError as error:
        raise RunDirectoryError(
            f"{file} is not JSON ({error})", key=str(file), hint="restore it"
        ) from error
    base = values.get("base_model_name_or_path") if isinstance(values, dict) else None
    public = with_texts(values, lambda text: public_text(text, places))
    if isinstance(base, str) and Path(base).is_absolute():  # else it would be read as a hub name
        public["base_model_name_or_path"] = None
    return file if public == values else (json.dumps(public, indent=2) + "\n").encode()


def _measured(results: dict[str, Any], places: list[str]) -> str:
    """Returns what the run measured, as JSON, without the machine and digests of the data."""
    kept = {key: results[key] for key in MEASURED if key in results}
    parameters = {key: v for key, v in results["parameters"].items() if key != "modules"}
    data = {
        split: {key: v for key, v in facts.items() if key != "sha256"}
        for split, facts in results.get("data", {}).items()
    }
    text = json.dumps({**kept, "parameters": parameters, **({"data": data} if data else {})})
    values = with_texts(json.loads(text), lambda text: without_places(text, places))
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
