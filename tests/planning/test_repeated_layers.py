"""The log of five layers, expanded, equals that of all layers traced whole."""

import pytest
from support.task_cases import BERT, CASES, LLAMA

from trainer.models.architecture import shape_config
from trainer.planning.trace.ledger import add_up
from trainer.planning.trace.model import has_equal_layers, planned_model
from trainer.planning.trace.repeated_layers import TRACED, is_repeatable
from trainer.planning.trace.step import Shape, trace_step
from trainer.planning.trace.storages import Event, Section
from trainer.tasks.recipe import parse_recipe

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 8, "n_head": 4, "n_positions": 128}
BLOOM = {"model_type": "bloom", "hidden_size": 32, "n_layer": 8, "n_head": 4}
EIGHT = {"num_hidden_layers": 8}
PHI = {"model_type": "phi", "num_hidden_layers": 8} | {
    name: LLAMA[name] for name in ("hidden_size", "num_attention_heads", "intermediate_size")
}
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
        ("classification", BERT | EIGHT, "full", False, True),
        ("causal_lm-instructions", LLAMA | EIGHT, "qlora", True, True),
        ("causal_lm", GPT2, "full", True, True),
        ("classification", PHI, "qlora", False, True),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                ("question_answering", BERT | EIGHT, "full", True, True),
                ("question_answering-llama", LLAMA | EIGHT, "lora", False, False),
                ("causal_lm", LLAMA | EIGHT, "full", False, False),
                ("causal_lm-instructions", LLAMA | EIGHT, "lora", True, True),
                ("causal_lm-instructions", LLAMA | EIGHT, "qlora", False, True),
                ("causal_lm-instructions", BLOOM, "lora", True, True),
                ("masked_lm-pairs", BERT | EIGHT, "int8_lora", True, True),
                ("classification", BERT | EIGHT, "head_only", False, True),
            )
        ),
    ],
)
def test_five_layers_tell_of_eight(case, architecture, mode, checkpointing, on_gpu):
    recipe = recipe_of(case, architecture, mode, checkpointing=checkpointing)
    numbers = shape_config(recipe.model)
    assert has_equal_layers(recipe, numbers)
    (planned, few), (_, all_) = (traced(recipe, numbers, n, on_gpu=on_gpu) for n in (TRACED, None))
    assert planned.repeats == 8
    assert len(planned.layers) == TRACED
    expanded, whole = add_up(few.log), add_up(all_.log)
    for phase, peak in whole.peaks.items():
        assert expanded.peaks[phase].held == peak.held, phase
        assert expanded.peaks[phase].allocated == peak.allocated
        assert expanded.peaks[phase].module == peak.module
        assert expanded.peaks[phase].section == peak.section
    assert (expanded.allocated, expanded.reserved) == (whole.allocated, whole.reserved)
    assert (few.flops, few.kernels) == (all_.flops, all_.kernels)


GEMMA = {
    **{name: LLAMA[name] for name in ("hidden_size", "num_attention_heads", "intermediate_size")},
    "model_type": "gemma3_text",
    "num_hidden_layers": 8,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
MIXTURE = {
    **{name: LLAMA[name] for name in ("hidden_size", "num_attention_heads", "intermediate_size")},
    "model_type": "qwen2_moe",
    "num_hidden_layers": 8,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "mlp_only_layers": [0],
}


@pytest.mark.parametrize(
    ("architecture", "tuning"),
    [
        (GEMMA, {"mode": "full"}),
        (MIXTURE, {"mode": "full"}),
        (LLAMA | EIGHT, {"mode": "lora", "target_modules": ["layers.3.mlp.up_proj"]}),
    ],
)
def test_different_layers_are_not_repeated(architecture, tuning):
    recipe = recipe_of("causal_lm", architecture, checkpointing=False, **tuning)
    assert not has_equal_layers(recipe, shape_config(recipe.model))


def test_a_log_of_different_layers_is_not_repeatable():
    def log(sizes):
        sections = [
            (Section(phase, layer), size)
            for phase in ("forward", "backward")
            for layer, size in enumerate(sizes)
        ]
        return [Event(n, size, "activations", one) for n, (one, size) in enumerate(sections)]

    assert is_repeatable(log([1, 5, 5, 5, 9]))
    assert not is_repeatable(log([5, 1, 5, 5, 5]))
    assert not is_repeatable(log([5, 5, 5, 1, 5]))
