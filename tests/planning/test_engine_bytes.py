"""What engines hold: against the ZeRO paper, counted figures, real engines and the table."""

import json
import math
import re

import pytest
import torch
from scaling import ENGINES, MODELS, RANKS, held_bytes
from support.paths import ROOT

from trainer.planning.engine_bytes import engine_memory
from trainer.planning.held_memory import PlannedParameter
from trainer.planning.launches import PlannedLaunch
from trainer.recipe.training import Optimizer

BENCHMARKS = ROOT / "tests" / "benchmarks"
COUNTED = json.loads((BENCHMARKS / "results" / "scaling.json").read_text())["cases"]
ADAMW = Optimizer(name="adamw", learning_rate=1e-4)
WEIGHTS = 1_000_000 * 64
SMALL, MIDDLE, LARGE = MODELS


def weights(*shape, dtype=torch.float32, trainable=True, layer=None):
    return PlannedParameter(shape=shape, dtype=dtype, trainable=trainable, layer=layer)


def held_by(engine, ranks, *parameters, precision="bf16", width=0, **settings):
    launch = PlannedLaunch(engine=engine, processes=ranks, **settings)
    return engine_memory(parameters, launch, precision, ADAMW, width=width)


def states_of(engine, ranks, **settings):
    """Returns the bytes of the states for each weight of one matrix."""
    held = held_by(engine, ranks, weights(WEIGHTS // 1000, 1000), **settings)
    return held.rank.states / WEIGHTS


def test_bytes_are_those_of_the_zero_paper():
    """2 + 2 + 12 bytes a parameter, of which stage 1 shards 12; gradients are in fp32 from 2 on."""
    assert states_of("zero1", 1) == 2 + 2 + 12
    assert states_of("zero1", 64) == 4 + 12 / 64
    assert states_of("zero2", 64) == 2 + 16 / 64
    assert states_of("zero3", 64) == 18 / 64
    assert states_of("hpz", 64, nodes=8, second_copy=8) == 18 / 64 + 2 / 8
    assert states_of("ddp", 64) == 16
    assert states_of("fsdp2", 64) == 16 / 64
    assert states_of("fsdp2", 64, replicas=8) == 16 / 8


def test_masters_exist_in_fp32_under_zero_and_not_under_fsdp2():
    assert states_of("zero3", 64, precision="fp32") == 20 / 64
    assert states_of("fsdp2", 64, precision="fp32") == 16 / 64


@pytest.mark.parametrize("engine", ENGINES)
def test_more_ranks_never_hold_more(engine):
    totals = [held_bytes(SMALL, engine, ranks) for ranks in RANKS[1:]]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("case", COUNTED, ids=lambda case: f"{case['engine']}-{case['ranks']}")
def test_states_are_those_that_were_counted(case):
    """A Llama of 512 by 6 layers, of which rank 0 was counted."""
    layer = [*4 * [(512, 512)], *3 * [(512, 2048)], (512,), (512,)]
    shapes = [(512, 512), (512, 512), (512,), *6 * layer]
    assert sum(map(math.prod, shapes)) == case["parameters"]
    engine, near = case["engine"], case["node_size"]
    held = held_by(
        engine,
        case["ranks"],
        *(weights(*shape) for shape in shapes),
        width=512,
        live=case["live"],
        nodes=2 if engine == "hpz" else 1,
        second_copy=near if engine == "hpz" else 0,
        overlapping=engine == "zero2",
    ).rank
    counted = case["held_bytes"]
    assert (held.weights, held.gradients) == (counted["weights"], counted["gradients"])
    assert held.masters == counted["master"]
    assert held.moments == pytest.approx(counted["moments"], abs=300)  # with the counts of steps
    if engine != "ddp":  # whose copies of autocast were counted, too
        peak = max(held.buckets, held.update)
        assert peak == pytest.approx(counted["working"], rel=0.03)


def test_frozen_weights_have_neither_gradients_nor_moments():
    base = weights(1000, 64, dtype=torch.bfloat16, trainable=False)
    adapter = weights(16, 64)
    held = held_by("zero3", 8, base, adapter).rank
    assert held.weights == 2 * (1000 * 64 + 16 * 64) / 8
    assert held.gradients == held.masters == held.moments / 2 == 4 * 16 * 64 / 8
    held = held_by("zero2", 8, base, adapter).rank
    assert held.weights == 2 * (1000 * 64 + 16 * 64)
    assert held.moments == 8 * 16 * 64 / 8


def test_packed_weights_keep_their_size_and_only_zero3_shards_them():
    packed = weights(4096, 1, dtype=torch.uint8, trainable=False)
    adapter = weights(16, 64)
    for precision in ("bf16", "fp32"):
        alone = held_by("zero2", 8, adapter, precision=precision).rank.weights
        assert held_by("zero2", 8, packed, adapter, precision=precision).rank.weights == (
            alone + 4096
        )
        alone = held_by("zero3", 8, adapter, precision=precision).rank.weights
        assert held_by("zero3", 8, packed, adapter, precision=precision).rank.weights == (
            alone + 4096 / 8
        )


def test_each_parameter_is_padded_under_zero3_and_each_group_under_zero2():
    parameters = [weights(3, 3), weights(5), weights(7)]
    assert held_by("zero3", 4, *parameters).rank.moments == 8 * (3 + 2 + 2)
    assert held_by("zero2", 4, *parameters).rank.moments == 8 * (16 / 4 + 16 / 4)
    assert held_by("fsdp2", 4, *parameters).rank.moments == 8 * (3 + 2 + 2)


def test_offload_moves_states_to_the_host_and_the_disk():
    matrix = weights(WEIGHTS // 1000, 1000)
    held = held_by("zero2", 8, matrix, offload_optimizer="cpu")
    assert held.rank.states == (2 + 4 / 8) * WEIGHTS
    assert held.host.states == 18 * WEIGHTS / 8
    held = held_by("zero3", 8, matrix, offload_optimizer="cpu", offload_parameters="cpu")
    assert held.rank.states == 0
    assert held.host.states == 22 * WEIGHTS / 8
    held = held_by("zero3", 8, matrix, offload_optimizer="nvme", offload_parameters="nvme")
    assert (held.rank.states, held.nvme.states) == (0, 18 * WEIGHTS / 8)


def test_the_table_of_how_far_it_goes_is_that_of_the_formulas():
    """Every cell of the table in benchmarks/README.md."""
    text = (BENCHMARKS / "README.md").read_text()
    names = {"DDP": "ddp", "ZeRO-1": "zero1", "ZeRO-2": "zero2", "ZeRO-3": "zero3"}
    rows = re.findall(r"^\| (\d+B) (DDP|ZeRO-[123]) ((?:\| [\d,.]+ ){8})\|$", text, re.M)
    assert len(rows) == 12
    models = {model.name: model for model in MODELS}
    for name, engine, cells in rows:
        for ranks, cell in zip(RANKS, cells.strip("| ").split(" | "), strict=True):
            gigabytes = held_bytes(models[name], names[engine], ranks) / 1e9
            digits = len(cell.partition(".")[2])
            assert round(gigabytes, digits) == float(cell.replace(",", "")), (name, engine, ranks)
