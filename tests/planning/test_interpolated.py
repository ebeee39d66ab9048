"""A step made from three other lengths holds what the traced step of that length holds."""

import pytest

from trainer.models.architecture import shape_config
from trainer.planning.launches import PlannedLaunch
from trainer.planning.lengths import prepared_lengths
from trainer.planning.memories import Memories
from trainer.planning.trace.interpolated import Interpolation
from trainer.planning.trace.step import TracedStep
from trainer.planning.trace.storages import BEGINS, FREED, Event
from trainer.tasks.recipe import load_recipe, parse_recipe


@pytest.mark.parametrize(
    ("name", "size", "lengths", "length"),
    [
        ("llama-3.2-1b-squad-head", 32, (384, 768, 1536), 3584),
        ("bloom-560m-instruct-lora", 16, (512, 1024, 2048), 1536),  # scores are quadratic
    ],
)
def test_it_equals_the_traced_step(name, size, lengths, length):
    recipe = load_recipe(name, [f"batch.micro_batch_size={size}"])
    numbers, prepared = shape_config(recipe.model), prepared_lengths(recipe)

    def memories() -> Memories:
        return Memories(recipe, numbers, PlannedLaunch(), "fp16", prepared)

    known, traced = memories(), memories().of(size, length)
    for each in lengths:
        known.of(size, each)
    made = known.of(size, length)
    assert (size, length) not in known._traced
    assert made.peaks == traced.peaks
    assert (made.reserved, made.flops, made.kernels) == (
        traced.reserved,
        traced.flops,
        traced.kernels,
    )


def step(*sizes: int) -> TracedStep:
    events = [Event(number, size, "activations", None) for number, size in enumerate(sizes)]
    begin = Event(-1, BEGINS, "forward", None)
    freed = [Event(number, FREED, "", None) for number in range(len(sizes))]
    return TracedStep(log=[begin, *events, *freed], flops=sum(sizes), kernels=len(sizes))


def test_lengths_beyond_a_window_of_attention_are_not_made_from_shorter_ones():
    """Beyond it, there is a mask."""
    recipe = parse_recipe(
        {
            "model": {
                "architecture": {
                    "model_type": "mistral",
                    "hidden_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "num_key_value_heads": 2,
                    "intermediate_size": 128,
                    "sliding_window": 256,
                    "vocab_size": 500,
                },
                "initialization": "random",
                "tokenizer": "none",
            },
            "task": {"name": "causal_lm"},
            "data": {"source": {"files": {"train": "none.txt"}}, "columns": {"text": "text"}},
            "batch": {"global_batch_size": 16, "micro_batch_size": 16, "max_seq_length": 64},
            "schedule": {"steps": 1},
        },
        "test",
    )
    numbers = shape_config(recipe.model)
    numbers.pad_token_id = 0

    def memories() -> Memories:
        return Memories(recipe, numbers, PlannedLaunch(), "fp16", prepared_lengths(recipe))

    known = memories()
    for length in (64, 128, 192):
        known.of(16, length)
    assert known.of(16, 320).peaks == memories().of(16, 320).peaks
    assert (16, 320) in known._traced


def made_at(known: dict[int, TracedStep], length: int) -> TracedStep | None:
    interpolation = Interpolation.of(known)
    return None if interpolation is None else interpolation.at(length)


def test_sizes_follow_the_length():
    known = {64: step(640, 64**2, 7), 128: step(1280, 128**2, 7), 256: step(2560, 256**2, 7)}
    made = made_at(known, 512)
    assert made is not None
    assert [event.size for event in made.log[1:4]] == [5120, 512**2, 7]
    assert made.flops == 5120 + 512**2 + 7


def test_a_rest_that_does_not_grow_gets_its_largest_size():
    made = made_at({64: step(30), 128: step(10), 256: step(20)}, 512)
    assert made is not None
    assert made.log[1].size == 30


@pytest.mark.parametrize(
    ("known", "length"),
    [
        ({64: step(1), 128: step(2)}, 256),
        ({64: step(1), 128: step(2), 256: step(3, 4)}, 512),
        ({64: step(1), 128: step(2), 200: step(3)}, 512),
        ({64: step(1), 128: step(2), 256: step(4)}, 500),
    ],
    ids=["two", "another log", "no multiple", "no multiple wanted"],
)
def test_what_cannot_be_made_is_traced(known, length):
    assert made_at(known, length) is None


def test_the_order_in_which_storages_are_freed_does_not_matter():
    known = {64: step(1, 2), 128: step(2, 4), 256: step(4, 8)}
    log = known[128].log
    log[-1], log[-2] = log[-2], log[-1]
    assert made_at(known, 192) is not None
