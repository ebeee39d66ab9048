"""What engines send, and how long a step waits for it, against published and counted figures."""

import json
from pathlib import Path

import pytest
from scaling import ENGINES, H100, MODELS, RANKS, T4, smallest_fitting, waiting_share

from trainer.planning.collectives import (
    Volume,
    collectives,
    kept_weights,
    sent_bytes,
    sent_within_and_between,
)
from trainer.planning.engine_steps import Work, ring_seconds, step_seconds

PARAMETERS = 1_000_000_000
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
COUNTED = json.loads((RESULTS / "scaling.json").read_text())["cases"]
every_engine = pytest.mark.parametrize("engine", ENGINES)


def sent(engine, ranks, **settings) -> float:
    return sum(
        sent_bytes(*call)
        for call in collectives(engine, Volume.of(engine, PARAMETERS), ranks, **settings)
    )


def test_zero3_sends_one_and_a_half_times_an_all_reduce():
    all_reduce = sent_bytes("all_reduce", 2 * PARAMETERS, 64)
    assert sent("zero3", 64, live=0) == pytest.approx(1.5 * all_reduce)
    assert sent("zero3", 64, live=0, accumulation=4) == pytest.approx(6 * all_reduce)
    assert sent("ddp", 64, accumulation=4) == pytest.approx(2 * all_reduce)  # fp32


@every_engine
def test_one_rank_sends_nothing_and_more_ranks_never_send_less(engine):
    volumes = [sent(engine, ranks, accumulation=3) for ranks in RANKS]
    assert volumes[0] == 0
    assert volumes == sorted(volumes)


@every_engine
def test_traffic_within_and_between_nodes_adds_up(engine):
    for ranks in RANKS:
        calls = collectives(engine, Volume.of(engine, PARAMETERS), ranks, accumulation=2)
        inside, between = sent_within_and_between(calls)
        assert inside + between == pytest.approx(sent(engine, ranks, accumulation=2))
        assert (between == 0) == (ranks <= 8)


def test_a_second_copy_keeps_backward_and_later_micro_batches_in_the_node():
    volume = Volume.of("hpz", PARAMETERS)
    for accumulation in (1, 8):
        inside, between = sent_within_and_between(
            collectives("hpz", volume, 64, accumulation=accumulation, live=0)
        )
        expected = 2 * PARAMETERS * (1 + accumulation) * 63 / 64 / 8
        assert between == pytest.approx(expected)
        assert inside + between < sent("zero3", 64, accumulation=accumulation, live=0)


def test_kept_weights_have_bounds():
    assert kept_weights(5, live=0) == 0
    assert kept_weights(5, live=100) == 5
    assert kept_weights(8e9) == 1e9


@pytest.mark.parametrize("case", COUNTED, ids=lambda case: f"{case['engine']}-{case['ranks']}")
def test_bytes_sent_are_those_that_were_counted(case):
    settings = {name: case[name] for name in ("node_size", "live")}
    engine, parameters, ranks = case["engine"], case["parameters"], case["ranks"]
    calls = collectives(engine, Volume.of(engine, parameters), ranks, accumulation=2, **settings)
    assert sum(sent_bytes(*call) for call in calls) == pytest.approx(case["sent_bytes"], rel=2e-3)


def work(accumulation: int = 2) -> Work:
    return Work(forward=1.0, backward=2.0, update=0.5, num_layers=10, accumulation=accumulation)


@every_engine
def test_a_step_that_sends_nothing_takes_the_time_of_its_computation(engine):
    assert step_seconds(
        engine, Volume.of(engine, 1e10), 1, work(), lambda *_: 1e9
    ) == pytest.approx(6.5)
    assert step_seconds(
        engine, Volume.of(engine, 1e10), 64, work(), lambda *_: 0.0
    ) == pytest.approx(6.5)


@every_engine
@pytest.mark.parametrize("slowness", [0.01, 1.0, 100.0])
def test_a_step_takes_at_least_the_longer_and_at_most_the_sum_of_both(engine, slowness):
    sending: list[float] = []

    def seconds(_operation, num_bytes, _ranks, _calls):
        sending.append(slowness * num_bytes * 1e-11)
        return sending[-1]

    taken = step_seconds(engine, Volume.of(engine, 1e10), 64, work(), seconds)
    total = sum(sending)
    assert max(6.5, total) <= taken * (1 + 1e-9)
    assert taken <= (6.5 + total) * (1 + 1e-9)
    sending.clear()
    in_turn = step_seconds(engine, Volume.of(engine, 1e10), 64, work(), seconds, overlapping=False)
    assert in_turn == pytest.approx(6.5 + sum(sending))


@every_engine
def test_the_simulation_sends_what_the_formulas_say(engine):
    moved = 0.0

    def seconds(operation, num_bytes, ranks, _calls):
        nonlocal moved
        moved += sent_bytes(operation, num_bytes, ranks)
        return 0.0

    step_seconds(engine, Volume.of(engine, PARAMETERS), 64, work(), seconds)
    assert moved == pytest.approx(sent(engine, 64, accumulation=2))


def test_a_ring_takes_the_slower_of_its_links():
    within = ring_seconds(H100.links, "all_gather", 8e9, 8)
    assert within == pytest.approx(7e9 / 450e9 / 0.8 + 14e-6 + 7 * 1.9e-6)
    ethernet = ring_seconds(T4.links, "all_gather", 8e9, 8)
    assert ethernet == pytest.approx(7e9 / 3.125e9 / 0.8, rel=1e-3)


def test_which_engine_fits_and_how_long_it_waits():
    small, middle, large = MODELS
    assert smallest_fitting(small, 1, H100) == "ddp"
    assert smallest_fitting(middle, 8, H100) == "zero1"
    assert smallest_fitting(large, 16, H100) == "none"
    assert smallest_fitting(large, 64, H100) == "zero3"
    assert waiting_share(middle, "zero3", 1, H100) == pytest.approx(0, abs=1e-9)
    assert waiting_share(middle, "zero3", 64, T4) > 0.5 > waiting_share(middle, "zero3", 64, H100)


def test_fsdp2_sends_what_zero3_sends_without_keeping_weights_but_gradients_in_fp32():
    gathered, scattered = collectives("fsdp2", Volume.of("fsdp2", 10), 64, accumulation=3)
    assert gathered == ("all_gather", 2 * 2 * 10 * 3, 64)
    assert scattered == ("reduce_scatter", 4 * 10 * 3, 64)


def test_a_hybrid_mesh_sends_only_shards_of_gradients_between_its_replicas():
    calls = collectives("fsdp2", Volume.of("fsdp2", 80), 16, replicas=2)
    assert calls == [
        ("all_gather", 320, 8),
        ("reduce_scatter", 320, 8),
        ("all_reduce", 40, 2),
    ]


@pytest.mark.parametrize("replicas", [1, 4])
def test_the_simulation_of_fsdp2_sends_what_the_formulas_say(replicas):
    moved = 0.0

    def seconds(operation, num_bytes, ranks, _calls):
        nonlocal moved
        moved += sent_bytes(operation, num_bytes, ranks)
        return 0.0

    volume = Volume.of("fsdp2", PARAMETERS)
    step_seconds("fsdp2", volume, 64, work(), seconds, replicas=replicas)
    assert moved == pytest.approx(sent("fsdp2", 64, accumulation=2, replicas=replicas))


def test_frozen_weights_are_gathered_and_not_reduced():
    frozen = Volume(weights=1e9, weight_bytes=5e8, gradient_bytes=1e7)
    assert sum(sent_bytes(*call) for call in collectives("zero2", frozen, 8)) < 3e7
    gathered, reduced = collectives("zero3", frozen, 8, live=0)
    assert (gathered[1], reduced[1]) == (1e9, 1e7)
