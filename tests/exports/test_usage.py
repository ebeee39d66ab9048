"""The code of a model card gives the answers of the run, and another answer is noticed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.export_families import DECODERS, ENCODERS, save_base
from support.exported_run import Exported, export_untrained
from support.task_cases import CASES

from trainer.engines.accelerator import launched
from trainer.exports.usage.answers import differences
from trainer.exports.usage.usage import Expected, Kind, Usage, how_to_use
from trainer.tasks.recipe import parse_recipe

BOUND = 1e-5


def check(exported: Exported, kind: Kind) -> Usage:
    """Checks that the code on the card of an export gives the answers of its run."""
    usage, expected = exported.measured.usage, exported.measured.expected
    assert usage is not None
    assert usage.kind == kind
    answers = exported.findings(exported.folder)["usage"]
    assert len(answers) == len(expected) > 1
    assert differences(usage, expected, answers, BOUND) == []
    section = how_to_use(usage)
    compile(section.partition("```python\n")[2].partition("```")[0], "card", "exec")
    return usage


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("classification", "labels"),
        ("question_answering", "spans"),
        ("masked_lm", "fills"),
        ("masked_lm-pairs", "fills"),
    ],
)
def test_the_code_on_the_card_answers_as_the_run_does(
    case: str, kind: Kind, exported: Callable[[str], Exported]
) -> None:
    check(exported(case), kind)


def check_family(case: str, kind: str, auto_model: str, answers: Kind, folder: Path) -> None:
    """Checks the code for a tiny pretrained model of a family."""
    base = save_base(kind, folder / "base", auto_model, max_position_embeddings=512)
    values = CASES[case].recipe()
    values["model"] = {"name_or_path": str(base)}
    values["batch"]["max_seq_length"] = 256
    recipe = parse_recipe(values, "")
    with launched(recipe, folder / "run") as accelerator:
        check(export_untrained(recipe, accelerator, folder), answers)


@pytest.mark.parametrize("case", ["causal_lm", "causal_lm-instructions"])
def test_the_code_of_a_decoder_continues_prompts_as_the_run_does(case: str, tmp_path: Path) -> None:
    check_family(case, "llama", "AutoModelForCausalLM", "continuations", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in DECODERS if kind != "mpt"])  # few positions
@pytest.mark.parametrize("case", ["causal_lm", "causal_lm-instructions"])
def test_the_code_of_every_decoder(case: str, kind: str, tmp_path: Path) -> None:
    check_family(case, kind, "AutoModelForCausalLM", "continuations", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "funnel"])  # trains no LM
@pytest.mark.parametrize("case", ["classification", "masked_lm"])
def test_the_code_of_every_encoder(case: str, kind: str, tmp_path: Path) -> None:
    answers: Kind = "labels" if case == "classification" else "fills"
    check_family(case, kind, "AutoModelForMaskedLM", answers, tmp_path)


def test_long_rows_are_cut_off_and_those_that_spell_special_tokens_not_tried(
    tmp_path: Path,
) -> None:
    rows = [{"text": f"a film {'so ' * n}dull", "label": ("no", "yes")[n % 2]} for n in range(12)]
    rows += [{"text": f"{'[SEP] ' * 20}long", "label": "no"}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = CASES["classification"].recipe()
    values["task"] = {"name": "classification"}
    values["data"] = {"source": {"files": {"train": str(file), "validation": str(file)}}}
    values["batch"]["max_seq_length"] = 8
    recipe = parse_recipe(values, "")
    with launched(recipe, tmp_path / "run") as accelerator:
        usage = check(export_untrained(recipe, accelerator, tmp_path), "labels")
    assert not any("[SEP]" in text for text in usage.inputs["texts"])
    assert any(text.count("so ") == 11 for text in usage.inputs["texts"])


def usage_of(kind: Kind) -> Usage:
    return Usage(kind=kind, imports="", example="", code="", remark="", inputs={})


LABELS = Expected(probabilities={"bad": 0.4, "good": 0.6})
FILL = Expected(token_probabilities=torch.tensor([0.1, 0.9]))
SPAN = Expected(text="the answer", score=4.0)
SURE, UNSURE = Expected(text="a b", gap=0.5), Expected(text="a b", gap=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected", "given", "clause"),
    [
        ("labels", LABELS, [{"label": "bad", "score": 0.4}, {"label": "good", "score": 0.6}], None),
        (
            "labels",
            LABELS,
            [{"label": "bad", "score": 0.6}, {"label": "good", "score": 0.4}],
            "bad has the probability 0.6000, not 0.4000",
        ),
        (
            "labels",
            LABELS,
            [{"label": "LABEL_0", "score": 0.4}, {"label": "LABEL_1", "score": 0.6}],
            "the labels ['LABEL_0', 'LABEL_1'], not ['bad', 'good']",
        ),
        ("fills", FILL, [{"token": 1, "token_str": "b", "score": 0.9}], None),
        (
            "fills",
            FILL,
            [{"token": 0, "token_str": "a", "score": 0.9}],
            "'a' has the probability 0.9000, not 0.1000",
        ),
        ("spans", SPAN, ["the answer", 4.0], None),
        ("spans", SPAN, ["its equal", 4.0], None),
        ("spans", SPAN, ["another", 5.0], "'another', not 'the answer'"),
        ("continuations", SURE, [{"generated_text": " a b"}], None),
        ("continuations", SURE, [{"generated_text": " a c"}], "'a c', not 'a b'"),
        ("continuations", UNSURE, [{"generated_text": " a c"}], None),
    ],
)
def test_another_answer_is_noticed(
    kind: Kind, expected: Expected, given: Any, clause: str | None
) -> None:
    found = differences(usage_of(kind), [expected], [given], BOUND)
    whole = f"the code of its card answers otherwise: {clause}"
    assert found == ([] if clause is None else [whole])


def test_a_missing_answer_is_noticed() -> None:
    found = differences(usage_of("labels"), [LABELS, LABELS], [[]], BOUND)
    assert found == ["the code of its card gives 1 answers to 2 inputs"]
