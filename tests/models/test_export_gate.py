"""Exports of many families equal the trained models when a process without this package loads them.

A cell is a family, a task and a tuning mode. Each loads and answers alike, or is refused before.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version
from support.export_families import DECODERS, ENCODERS, LANGUAGE_ONLY, save_base
from support.export_gate import Cell, distance, export_cell, load_afresh
from support.tiny_models import MODES

from trainer.models.load import QUANTISED

# Of logits, in their standard deviations. An int8 layer also rounds its inputs, to 1/127 of the
# largest of a token; the merged model does not, and may choose other experts for it.
BOUNDS = {**dict.fromkeys(MODES, 1e-4), "int8_lora": 0.25}
OTHER_EXPERTS = ("olmoe", "int8_lora")
EVERY: dict[str, list[str]] = {
    "classification": [*ENCODERS, *DECODERS],
    "causal_lm": [*DECODERS, *LANGUAGE_ONLY],
    "masked_lm": ENCODERS,
    "question_answering": "bert roberta distilbert electra gpt2 llama qwen2 falcon".split(),
}
FEW = ("roberta", "distilbert", "deberta-v2", "gpt2", "llama", "phi", "mixtral")
# PEFT before 0.20 cannot load adapters on models with experts under transformers 5.17.
OLD_PEFT = Version(version("peft")) < Version("0.20")
EXPERTS = ("mixtral", "olmoe", "qwen3_moe")
pytestmark = pytest.mark.filterwarnings("ignore:.*MatMul8bitLt.*")


def language_model(kind: str) -> str:
    return "AutoModelForMaskedLM" if kind in ENCODERS else "AutoModelForCausalLM"


def go_through(
    parts: Sequence[tuple[str, Sequence[str]]], folder: Path
) -> dict[tuple[str, str, str], str]:
    """Returns the result for each task, family and mode: equal, the difference, or a refusal."""
    cells: dict[tuple[str, str, str], Cell] = {}
    table: dict[tuple[str, str, str], str] = {}
    for task, kinds in parts:
        for kind in kinds:
            base = save_base(kind, folder / f"{task}-{kind}", language_model(kind))
            for mode in MODES:
                outcome = export_cell(base, folder / f"{task}-{kind}-{mode}", task, mode)
                if isinstance(outcome, Cell):
                    cells[task, kind, mode] = outcome
                else:
                    table[task, kind, mode] = outcome
    found = load_afresh(list(cells.values()), folder)
    for key, cell in cells.items():
        (wrong, logits), mode = found[cell.name], key[2]
        answered = {name.partition(".")[0] for name in logits}
        merged = 1.5 if key[1:] == OTHER_EXPERTS else BOUNDS[mode]
        for part, bound in (("model", merged), ("adapter", 1e-5)):
            gap = distance(cell, part, logits) if part in answered else 0.0
            wrong += [f"{part} differs by {gap:.1e}"] if gap > bound else []
        assert ("adapter" in answered) == (mode in ("lora", *QUANTISED)) or wrong
        table[key] = "; ".join(wrong) or "equal"
    return table


def check(table: dict[tuple[str, str, str], str]) -> None:
    def expected(task: str, kind: str, mode: str) -> str:
        if mode == "head_only" and task in ("causal_lm", "masked_lm"):
            return "tuning.mode: head_only needs a head that belongs to the task"
        if mode == "full" and (task, kind) == ("masked_lm", "funnel"):
            return "tuning.mode: full moves the padding row"
        if OLD_PEFT and kind in EXPERTS and mode in ("lora", *QUANTISED):
            return "TypeError: WeightConverter.__init__() got an unexpected keyword argument"
        return "equal"

    assert {cell: now for cell, now in table.items() if not now.startswith(expected(*cell))} == {}


def test_what_leaves_is_what_was_measured(tmp_path: Path) -> None:
    check(go_through([("classification", ("bert",)), ("causal_lm", ("llama",))], tmp_path))


@pytest.mark.distributed
def test_what_leaves_is_what_was_measured_of_a_few_families(tmp_path: Path) -> None:
    languages = [("causal_lm", ("gpt2",)), ("masked_lm", ("bert",))]
    check(go_through([("classification", FEW), *languages], tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("task", EVERY)
def test_what_leaves_is_what_was_measured_of_every_family(task: str, tmp_path: Path) -> None:
    table = go_through([(task, EVERY[task])], tmp_path)
    for cell, found in table.items():
        print(*cell, found)  # the table, with -s
    check(table)
