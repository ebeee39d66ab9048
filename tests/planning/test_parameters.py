"""The counts that reports print, from architecture numbers alone."""

import json

import pytest
from support.command_line import run
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from trainer.assembly.build import build_run
from trainer.engines.accelerator import build_accelerator
from trainer.models.architecture import build_model_config
from trainer.planning.outline import outline
from trainer.planning.parameters import count
from trainer.recipe.model import Model
from trainer.tasks.recipe import parse_recipe

LABELS = {"name": "classification", "labels": ["a", "b"]}
SPANS = {"name": "question_answering"}


def recipe_of(name, task, **tuning):
    return parse_recipe(
        {
            "model": {"name_or_path": name},
            "tuning": tuning,
            "task": task,
            "data": {"source": {"builtin": "reviews"}},
        },
        "test",
    )


@pytest.mark.parametrize(
    ("name", "task", "tuning", "before", "after"),
    [
        ("bert-base-uncased", LABELS, {}, 109_482_240, {"total": 109_483_778}),
        ("bert-base-uncased", SPANS, {}, 109_482_240, {"total": 108_893_186}),
        (
            "meta-llama/Llama-3.2-1B",
            LABELS,
            {"mode": "head_only"},
            1_235_814_400,
            {"total": 1_235_818_496, "trainable": 4_096, "frozen": 1_235_814_400},
        ),
        (
            "meta-llama/Llama-3.2-1B",
            SPANS,
            {"mode": "head_only"},
            1_235_814_400,
            {"total": 1_235_818_498, "trainable": 4_098},
        ),
        (
            "microsoft/phi-2",
            {"name": "classification", "labels": ["a", "b", "c"]},
            {"mode": "qlora", "r": 16, "target_modules": ["q_proj", "v_proj", "fc1", "fc2"]},
            2_648_560_640,
            {"total": 2_666_926_080, "trainable": 18_357_760, "stored": 1_408_634_880},
        ),
        (
            "bigscience/bloom-560m",
            {"name": "causal_lm"},
            {"mode": "lora", "r": 16, "target_modules": ["query_key_value"]},
            559_214_592,
            {"total": 560_787_456, "trainable": 1_572_864},
        ),
    ],
)
def test_the_counts_of_the_reports(name, task, tuning, before, after):
    found = count(recipe_of(name, task, **tuning))
    assert found.before.total == before
    assert {key: found.after.as_dict()[key] for key in after} == after
    assert found.model.get_parameter(next(found.model.named_parameters())[0]).is_meta


def test_what_a_head_adds_and_what_is_missing():
    found = count(recipe_of("bert-base-uncased", SPANS))
    assert {change.name for change in found.added} == {"qa_outputs.weight", "qa_outputs.bias"}
    assert {change.name for change in found.absent} == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
    }
    assert any("no pooler" in note for note in found.notes)


@pytest.mark.parametrize("mode", ["full", "head_only", "lora", "qlora", "int8_lora"])
def test_a_run_counts_the_same(mode, reviews_recipe, tmp_path):
    """What is counted on paper is what the real model, packed by bitsandbytes, holds."""
    reviews_recipe["tuning"] = {"mode": mode}
    # The tokenizer finds as many pieces as it is asked for, so that both have one vocabulary.
    reviews_recipe["model"]["tokenizer"]["vocab_size"] = 200
    recipe = parse_recipe(reviews_recipe, "test")
    run = build_run(recipe, build_accelerator(recipe, tmp_path), tmp_path)
    found = count(recipe).after
    assert (found.total, found.trainable, found.stored) == (
        run.parameter_counts.total,
        run.parameter_counts.trainable,
        run.parameter_counts.stored,
    )
    held = sum(one.numel() * one.element_size() for one in run.model.parameters())
    assert sum(found.bytes.values()) == held


def test_the_row_for_a_missing_padding_token_is_counted(reviews_recipe, tmp_path):
    wordlevel = Tokenizer(models.WordLevel({"<unk>": 0, "good": 1, "bad": 2}, unk_token="<unk>"))
    wordlevel.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path / "tokenizer"
    PreTrainedTokenizerFast(tokenizer_object=wordlevel, unk_token="<unk>").save_pretrained(folder)
    reviews_recipe["model"]["tokenizer"] = str(folder)
    recipe = parse_recipe(reviews_recipe, "test")
    run = build_run(recipe, build_accelerator(recipe, tmp_path), tmp_path)
    assert run.model.config.vocab_size == 4
    assert count(recipe).after.total == run.parameter_counts.total


def test_layers_are_folded_and_weights_counted_once():
    inner = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)]
    model = nn.Module()
    model.layers = nn.ModuleList([*inner, nn.Linear(4, 4)])
    model.first, model.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    model.second.weight = model.first.weight
    rows = {row.name: row for row in outline(model)}
    assert list(rows) == ["layers", "layers.0-2", "layers.0-2.0", "layers.3", "first", "second"]
    assert rows["layers.0-2"].repeats == 3
    assert rows["layers.0-2"].module.parameters == 20
    assert (rows["first"].module.parameters, rows["second"].module.parameters) == (16, 0)
    top = sum(row.module.parameters for row in outline(model, full=True) if row.depth == 0)
    assert top == sum(parameter.numel() for parameter in model.parameters())
    assert "layers.1.0" in {row.name for row in outline(model, full=True)}


def test_the_command_prints_a_table_or_json(write_recipe, reviews_recipe):
    file = write_recipe(reviews_recipe)
    text = run("params", file, "--set", "model.architecture.num_hidden_layers=3")
    assert "0-2 (3 of them, each:)" in text
    values = json.loads(run("params", file, "--json", "--full"))
    keys = {"total", "trainable", "frozen", "stored", "bytes", "before", "modules"}
    assert keys <= values.keys()
    assert {"total", "trainable", "frozen", "stored", "bytes"} <= values["before"].keys()
    tops = [one for one in values["modules"] if "." not in one["name"]]
    assert sum(one["parameters"] * one["repeats"] for one in tops) == values["total"]
    assert values["bytes"] == {"float32": 4 * values["total"]}


def test_what_nobody_can_count_is_said(write_recipe, reviews_recipe):
    reviews_recipe["task"]["labels"] = None
    text = run("params", write_recipe(reviews_recipe), code=2)
    assert "task.labels" in text
    reviews_recipe["task"]["labels"] = ["a", "b"]
    heads = "model.architecture.num_attention_heads=3"
    text = run("params", write_recipe(reviews_recipe), "--set", heads, code=2)
    assert "no model can be built with these numbers" in text
    reviews_recipe["model"] = {"name_or_path": "nobody/nothing"}
    text = run("params", write_recipe(reviews_recipe), code=2)
    assert "model.name_or_path" in text


def test_shipped_numbers_make_random_models_without_a_download(trained_tokenizer):
    tokenizer = trained_tokenizer("wordpiece", 100, ["some words to learn pieces from"])
    settings = Model(
        name_or_path="bert-base-uncased",
        initialization="random",
        tokenizer=tokenizer.name_or_path,
    )
    made = build_model_config(settings, tokenizer)
    assert (made.num_hidden_layers, made.vocab_size) == (12, 30522)
