"""What is wrong with an exported folder is found when it is loaded, and the sentence says what."""

import json
import shutil
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.task_cases import CASES
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from trainer.assembly.build import build_run
from trainer.engines.accelerator import launched
from trainer.exports import fresh_process
from trainer.exports.bounds import bounds_of
from trainer.exports.gate import job_of, verify_export
from trainer.exports.measured import Measured, measure
from trainer.models.export import export_model
from trainer.run import Run
from trainer.tasks.recipe import parse_recipe

TENSORS = "model.safetensors"
Damage = Callable[[Path], None]


@dataclass(frozen=True)
class Exported:
    run: Run
    measured: Measured
    folder: Path

    def problems(self, folder: Path) -> list[str]:
        """Returns what a fresh process says of a folder; it runs in this one, to save time."""
        job, inputs = job_of(self.run, self.measured, folder, None)
        findings: dict[str, Any] = {"problems": [], "adapter_problems": []}
        fresh_process.answer(job, inputs, findings)
        return findings["problems"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Generator[Callable[[str], Exported]]:
    """The export of an untrained run of a task, made once; do not change its folder."""
    made: dict[str, Exported] = {}
    with ExitStack() as stack:

        def export(case: str) -> Exported:
            if case not in made:
                root = tmp_path_factory.mktemp(case)
                recipe = parse_recipe(CASES[case].recipe(), case)
                accelerator = stack.enter_context(launched(recipe, root / "run"))
                run = build_run(recipe, accelerator, root / "run")
                folder, ends = root / "model", run.task.generation_ends(run.model)
                export_model(run.model, run.tokenizer, folder, ends=ends)
                made[case] = Exported(run, measure(run, accelerator), folder)
            return made[case]

        yield export


def change_tensors(change: Callable[[dict[str, Tensor]], None]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / TENSORS)
        change(tensors)
        save_file(tensors, folder / TENSORS, metadata={"format": "pt"})

    return damage


def set_tensor(name: str, make: Callable[[Tensor], Tensor]) -> Damage:
    return change_tensors(lambda tensors: tensors.update({name: make(tensors[name]).contiguous()}))


def drop(*names: str) -> Damage:
    return change_tensors(lambda tensors: [tensors.pop(name) for name in names] and None)


def set_json(file: str, **values: Any) -> Damage:
    def damage(folder: Path) -> None:
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(settings | values))

    return damage


def cut_off(folder: Path) -> None:
    content = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(content[:-8])


def store_again(folder: Path) -> None:
    tensors = load_file(folder / TENSORS)
    save_file({"classifier.bias": tensors["classifier.bias"]}, folder / "again.safetensors")


def keep_case(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(settings))


def add_token(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zyzzyva"])
    tokenizer.save_pretrained(folder)


def pad_with_unknown(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.save_pretrained(folder)


EMBEDDING = "bert.embeddings.position_embeddings.weight"
CHECKS: list[tuple[str, Damage, str]] = [
    ("classification", set_tensor("classifier.bias", lambda t: t[:0]), "empty tensors: classifier"),
    (
        "classification",
        set_tensor(EMBEDDING, lambda t: t[:-1]),
        f"a partial tensor: {EMBEDDING} is",
    ),
    ("classification", set_tensor(EMBEDDING, lambda t: t.T), "a partial tensor"),
    ("classification", drop("classifier.bias", "classifier.weight"), "the head is missing: classi"),
    ("classification", drop(EMBEDDING), f"missing tensors: {EMBEDDING}"),
    (
        "classification",
        change_tensors(lambda tensors: tensors.update(other=torch.ones(1))),
        "unexpected tensors: other",
    ),
    ("classification", store_again, "stored in two files: classifier.bias"),
    (
        "classification",
        set_tensor("classifier.bias", lambda t: t * torch.nan),
        "not numbers: class",
    ),
    ("classification", cut_off, "is not a sound file of contiguous tensors"),
    ("classification", keep_case, "the tokenizer encodes a text otherwise"),
    ("classification", add_token, "the vocabulary has"),
    ("classification", pad_with_unknown, "the padding token of the tokenizer is 1, and that of"),
    ("classification", set_json("config.json", pad_token_id=3), "the padding token of config.json"),
    (
        "classification",
        set_json("config.json", id2label={"0": "LABEL_0", "1": "LABEL_1"}),
        "id2label is ['LABEL_0', 'LABEL_1']",
    ),
    ("classification", set_json("config.json", use_cache=False), "use_cache is off"),
    ("causal_lm-instructions", set_json("generation_config.json", eos_token_id=7), "ends at [7]"),
]


def test_a_sound_folder_has_no_problem(exported: Callable[[str], Exported]) -> None:
    for case in ("classification", "causal_lm-instructions"):
        sound = exported(case)
        assert sound.problems(sound.folder) == []


@pytest.mark.parametrize(("case", "damage", "sentence"), CHECKS)
def test_each_damage_is_named(
    case: str,
    damage: Damage,
    sentence: str,
    exported: Callable[[str], Exported],
    tmp_path: Path,
) -> None:
    sound = exported(case)
    damaged = shutil.copytree(sound.folder, tmp_path / "model")
    damage(damaged)
    problems = sound.problems(damaged)
    assert any(sentence in problem for problem in problems), problems


def test_a_tied_tensor_that_is_stored_twice_is_named(tmp_path: Path) -> None:
    shape = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=9,
    )
    BertForMaskedLM(shape).save_pretrained(tmp_path)

    def problems() -> list[str]:
        found, stored = fresh_process.problems_of_files(tmp_path)
        model, info = BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
        return found + fresh_process.problems_of_weights(model, info, stored)

    assert problems() == []
    tensors = load_file(tmp_path / TENSORS)
    tied = tensors["bert.embeddings.word_embeddings.weight"].clone()
    save_file({**tensors, "cls.predictions.decoder.weight": tied}, tmp_path / TENSORS)
    assert any("one tied tensor, stored twice" in problem for problem in problems())


def test_other_logits_are_beyond_the_bound(
    exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    """In a process of its own; a sound folder passes at the end of runs in other tests."""
    sound = exported("classification")
    damaged = shutil.copytree(sound.folder, tmp_path / "model")
    set_tensor("classifier.weight", lambda tensor: 1.5 * tensor)(damaged)
    verdict = verify_export(sound.run, sound.measured, bounds_of(sound.run), damaged)
    assert verdict.failed
    assert verdict.why_not is not None
    assert verdict.why_not.startswith("its logits differ from the measured ones by")
    assert list(tmp_path.iterdir()) == [damaged]


def test_what_does_not_fit_into_memory_is_not_loaded(
    exported: Callable[[str], Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = exported("classification")
    monkeypatch.setattr("trainer.exports.gate.available_bytes", lambda: 10**8)
    verdict = verify_export(sound.run, sound.measured, bounds_of(sound.run), sound.folder)
    assert (verdict.verified, verdict.failed) == (False, False)
    assert verdict.why_not is not None
    assert verdict.why_not.endswith("of memory, and 100 MB are left")
    assert verdict.model is not None
    assert TENSORS in verdict.model["files"]
