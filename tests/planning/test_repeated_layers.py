"""The log of four layers, expanded, equals that of all layers traced whole."""

import pytest
from support.task_cases import BERT, CASES, LLAMA

from trainer.models.architecture import shape_config
from trainer.planning.trace.ledger import add_up
from trainer.planning.trace.model import has_equal_layers, planned_model
from trainer.planning.trace.repeated_layers import TRACED
from trainer.planning.trace.step import Shape, trace_step
from trainer.tasks.recipe import parse_recipe

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 7, "n_head": 4, "n_positions": 128}
BLOOM = {"model_type": "bloom", "hidden_size": 32, "n_layer": 7, "n_head": 4}
SEVEN = {"num_hidden_layers": 7}
SHAPE = Shape(micro_batch_size=4, length=64, num_micro_batches=2, evaluation_length=64)


def recipe_of(case, architecture, mode, *, checkpointing, **tuning):
    values = CASES[case].recipe()
    values["model"] |= {"architecture": architecture, "gradient_checkpointing": checkpointing}
    values["tuning"] = {"mode": mode, **tuning}
    return parse_recipe(values, case)


def traced(recipe, numbers, layers, *, on_gpu):
    precision = "fp16" if on_gpu else "fp32"
    planned = planned_model(recipe, numbers, precision, on_gpu=on_gpu, layers=layers)
    return planned, trace_step(planned, SHAPE, recipe.optimizer, precision, on_gpu=on_gpu)


@pytest.mark.parametrize(
    ("case", "architecture", "mode", "checkpointing", "on_gpu"),
    [
        ("classification", BERT | SEVEN, "full", False, True),
        ("question_answering", BERT | SEVEN, "full", True, True),
        ("question_answering-llama", LLAMA | SEVEN, "lora", False, False),
        ("causal_lm", LLAMA | SEVEN, "full", False, False),
        ("causal_lm-instructions", LLAMA | SEVEN, "lora", True, True),
        ("causal_lm-instructions", LLAMA | SEVEN, "qlora", False, True),
        ("causal_lm-instructions", LLAMA | SEVEN, "qlora", True, True),
        ("causal_lm", GPT2, "full", True, True),
        ("causal_lm", GPT2, "lora", False, True),
        ("causal_lm-instructions", BLOOM, "lora", True, True),
        ("masked_lm-pairs", BERT | SEVEN, "int8_lora", True, True),
        ("classification", BERT | SEVEN, "head_only", False, True),
    ],
)
def test_four_layers_tell_of_seven(case, architecture, mode, checkpointing, on_gpu):
    recipe = recipe_of(case, architecture, mode, checkpointing=checkpointing)
    numbers = shape_config(recipe.model)
    assert has_equal_layers(recipe, numbers)
    (planned, few), (_, all_) = (traced(recipe, numbers, n, on_gpu=on_gpu) for n in (TRACED, None))
    assert planned.repeats == 7
    assert len(planned.layers) == TRACED
    expanded, whole = add_up(few.log), add_up(all_.log)
    for phase, peak in whole.peaks.items():
        assert expanded.peaks[phase].held == peak.held, phase
        assert expanded.peaks[phase].allocated == peak.allocated
        assert expanded.peaks[phase].module == peak.module
        assert expanded.peaks[phase].section == peak.section
    assert (expanded.allocated, expanded.reserved) == (whole.allocated, whole.reserved)
    assert (few.flops, few.kernels) == (all_.flops, all_.kernels)
