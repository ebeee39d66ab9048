"""Lengths for a plan: exact if the data is prepared, and otherwise the longest, without failing."""

import os

import numpy as np
import pytest
from support.task_cases import CASES

from trainer.assembly.inputs import build_inputs
from trainer.files.cache import cache_folder
from trainer.order import DataOrder
from trainer.planning.lengths import prepared_lengths
from trainer.process.switches import hub_offline
from trainer.tasks.recipe import parse_recipe


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache, and a function that lists what is in it."""
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))

    def entries():
        return {
            (path, path.stat().st_mtime_ns)
            for path in (tmp_path / "cache").rglob("*")
            if path.name != "atime"
        }

    return entries


def recipe_of(values):
    return parse_recipe(values, "test")


def test_prepared_data_gives_the_lengths_that_the_run_trains_on(reviews_recipe, own_cache):
    recipe = recipe_of(reviews_recipe)
    splits = build_inputs(recipe, None).splits
    before = own_cache()
    lengths = prepared_lengths(recipe)
    assert own_cache() == before
    assert (lengths.exact, lengths.note) == (True, None)
    assert lengths.train is not None
    assert (lengths.train == splits["train"].lengths).all()
    assert lengths.longest == splits["train"].lengths.max()
    assert lengths.longest_evaluated == max(
        splits[name].lengths.max() for name in ("validation", "test")
    )
    assert lengths.num_evaluated == len(splits["validation"])
    assert lengths.num_steps == 2 * lengths.steps_per_epoch
    stored = sum(
        path.stat().st_size
        for path in (cache_folder() / "prepared").rglob("*")
        if path.suffix in (".values", ".ends")
    )
    assert lengths.prepared_bytes == stored


def test_pairs_can_be_longer_than_what_is_prepared(own_cache):
    recipe = recipe_of(CASES["masked_lm-pairs"].recipe())
    inputs = build_inputs(recipe, None)
    train, lengths = inputs.splits["train"], prepared_lengths(recipe)
    batch = inputs.task.collate(train, np.arange(len(train.lengths)), 1)
    width = batch.inputs["input_ids"].shape[1]
    assert train.lengths.max() < width <= lengths.longest == recipe.batch.max_seq_length
    assert lengths.longest_evaluated == recipe.batch.max_seq_length


def test_padded_tokens_are_those_of_the_micro_batches(reviews_recipe, own_cache):
    recipe = recipe_of(reviews_recipe)
    train = build_inputs(recipe, None).splits["train"].lengths
    lengths = prepared_lengths(recipe)
    order = DataOrder(seed=recipe.seed, lengths=train, global_batch_size=16, length_bucketing=True)
    parts = [
        ids
        for step in range(order.steps_per_epoch)
        for rank in range(2)
        for ids in order.micro_batches(step, rank=rank, world_size=2, micro_batch_size=4)
    ]
    expected = sum(len(ids) * train[ids].max() for ids in parts if len(ids))
    assert lengths.padded_tokens_per_epoch(4, 2) == expected
    assert lengths.tokens_per_epoch == train.sum() <= expected


def test_padding_of_a_long_epoch_is_estimated(reviews_recipe, own_cache, monkeypatch):
    recipe = recipe_of(reviews_recipe)
    build_inputs(recipe, None)
    exact = prepared_lengths(recipe).padded_tokens_per_epoch(4, 1)
    monkeypatch.setattr("trainer.planning.lengths.MOST_STEPS", 4)
    estimate = prepared_lengths(recipe).padded_tokens_per_epoch(4, 1)
    assert estimate != exact
    assert estimate == pytest.approx(exact, rel=0.1)


def test_built_in_rows_are_counted_though_they_are_not_prepared(reviews_recipe, own_cache):
    lengths = prepared_lengths(recipe_of(reviews_recipe))
    assert not own_cache()
    assert not lengths.exact
    assert (lengths.longest, lengths.longest_evaluated, lengths.mean) == (32, 32, 32)
    assert lengths.num_examples == 160
    assert lengths.note == (
        "the data is not prepared: every example counts with max_seq_length=32 tokens, and each of "
        "the 160 train rows as one example; `trainer prepare RECIPE` gives exact lengths"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"source": {"hub": "nobody/nothing"}}},
        {"data": {"source": {"files": {"train": "missing.jsonl"}}}},
        {"model": {"name_or_path": "nobody/nothing"}},
        {"model": {"name_or_path": "/nowhere/model"}},
    ],
)
def test_what_is_missing_is_assumed(change, reviews_recipe, own_cache):
    recipe = recipe_of(reviews_recipe | change)
    lengths = prepared_lengths(recipe)
    assert not own_cache()
    assert (lengths.exact, lengths.longest) == (False, 32)
    assert "`trainer prepare RECIPE`" in str(lengths.note)
    assert lengths.num_examples == (None if "data" in change else 160)
    assert lengths.padded_tokens_per_epoch(8, 1) == (None if "data" in change else 160 * 32)


def test_steps_of_the_schedule_are_known_without_data(reviews_recipe, own_cache):
    reviews_recipe["data"] = {"source": {"hub": "nobody/nothing"}}
    reviews_recipe["schedule"] = {"name": "linear", "steps": 7}
    assert prepared_lengths(recipe_of(reviews_recipe)).num_steps == 7


def test_a_damaged_cache_counts_as_not_prepared(reviews_recipe, own_cache):
    recipe = recipe_of(reviews_recipe)
    build_inputs(recipe, None)
    file = next((cache_folder() / "prepared").rglob("input_ids.values"))
    file.write_bytes(b"")
    before = own_cache()
    assert not prepared_lengths(recipe).exact
    assert own_cache() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_cache_that_cannot_be_read_counts_as_not_prepared(reviews_recipe, own_cache):
    recipe = recipe_of(reviews_recipe)
    build_inputs(recipe, None)
    (cache_folder() / "prepared").chmod(0)
    assert not prepared_lengths(recipe).exact
    (cache_folder() / "prepared").chmod(0o755)


def test_the_hub_is_asked_again_afterwards():
    from huggingface_hub import constants

    constants_before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = False
    try:
        with hub_offline():
            assert constants.is_offline_mode()
        assert not constants.is_offline_mode()
    finally:
        constants.HF_HUB_OFFLINE = constants_before
