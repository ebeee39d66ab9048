"""Targets that are masked or padding, provoked by tasks and texts that are wrong."""

import json
from dataclasses import replace

import pytest
from support import step_recipes
from support.findings import by_code

from trainer.assembly.inputs import build_inputs
from trainer.doctor.preflight import about_data
from trainer.doctor.targets import about_targets
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.recipe import parse_recipe


def recipe_for(task):
    return parse_recipe(step_recipes.of_task(task), "the recipe")


def test_every_task_that_ships_has_sound_data():
    for task in step_recipes.TASKS:
        findings = by_code(about_data(recipe_for(task), readable=True))
        wrong = {"masked-rows", "padding-learned", "padding-token-learned", "not-examined"}
        assert not wrong & findings.keys(), task
        assert {"lengths", "padding"} <= findings.keys()


class Masked(CausalLM):
    """Forgets the targets of the first three examples."""

    def collate(self, split, ids, epoch):
        batch = super().collate(split, ids, epoch)
        batch.targets["labels"][ids < 3] = -100
        return batch


class Unpadded(CausalLM):
    """Gives padded positions a target."""

    def collate(self, split, ids, epoch):
        batch = super().collate(split, ids, epoch)
        if "attention_mask" in batch.inputs:
            batch.targets["labels"][batch.inputs["attention_mask"] == 0] = 0
        return batch


def with_task(kind, recipe):
    inputs = build_inputs(recipe, None)
    rows = inputs.splits["train"].rows
    task = kind.build(recipe, rows, inputs.tokenizer, inputs.model_config)
    return by_code(about_targets(replace(inputs, task=task)))


def test_examples_whose_every_target_is_masked_are_named():
    recipe = recipe_for("instructions")
    assert not with_task(CausalLM, recipe)
    finding = with_task(Masked, recipe)["masked-rows"]
    assert finding.level == "warning"
    assert finding.figures["examples"] == 3
    assert "such as rows 1, 2 and 3" in finding.message


def test_padding_that_is_learned_is_a_failure():
    findings = with_task(Unpadded, recipe_for("instructions"))
    assert findings.keys() == {"padding-learned"}
    assert findings["padding-learned"].level == "failure"


def test_padding_of_packed_sequences_is_looked_at_too():
    recipe = recipe_for("packed")

    class Packed(CausalLM):
        def collate(self, split, ids, epoch):
            batch = super().collate(split, ids, epoch)
            batch.targets["labels"][:] = 5
            return batch

    assert not with_task(CausalLM, recipe)
    assert "padding-learned" in with_task(Packed, recipe)


def test_a_padding_token_in_the_text_is_learned(tmp_path):
    values = step_recipes.of_task("instructions")
    recipe = parse_recipe(values, "the recipe")
    pad = build_inputs(recipe, None).tokenizer.pad_token
    rows = [{"instruction": f"say {i}", "input": "", "output": f"{i} {pad} is"} for i in range(30)]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values["data"] = {"source": {"files": {"train": str(file)}}, "special_tokens": "parsed"}
    inputs = build_inputs(parse_recipe(values, "the recipe"), None)
    if inputs.tokenizer.pad_token_id == inputs.tokenizer.eos_token_id:
        pytest.skip("this tokenizer pads with its end")
    finding = next(about_targets(inputs))
    assert (finding.code, finding.figures["of"]) == ("padding-token-learned", 27)
