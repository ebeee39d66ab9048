"""Launches with FSDP that would train something else are refused."""

import pytest
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from trainer.errors import LaunchError
from trainer.fsdp_settings import check_mesh, layer_classes
from trainer.launch import build_accelerator
from trainer.recipe import parse_recipe


def test_what_accelerate_ignores_on_cpus_is_refused(reviews_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(LaunchError, match="Accelerate ignores it elsewhere"):
        build_accelerator(parse_recipe(reviews_recipe, "test"), tmp_path)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"DP_REPLICATE": 2, "DP_SHARD": 8}, "2 copies of 8 shards are not the 4 processes"),
        ({"DP_SHARD": 2, "TP": 2}, "parallelism_config_tp_size: only data is parallel"),
        ({"CP": 4}, "parallelism_config_cp_size"),
    ],
)
def test_a_mesh_that_is_not_the_launch_is_refused(sizes, sentence, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    for name, size in sizes.items():
        monkeypatch.setenv(f"PARALLELISM_CONFIG_{name}_SIZE", str(size))
    with pytest.raises(LaunchError, match=sentence):
        check_mesh()


def test_layers_without_tied_weights_are_gathered_one_at_a_time():
    config = BertConfig(vocab_size=50, hidden_size=8, num_attention_heads=2, num_hidden_layers=2)
    tied, untied = nn.Module(), nn.Module()
    tied.model = BertForMaskedLM(config)
    untied.model = BertForSequenceClassification(config)
    assert layer_classes(tied) == ["BertLayer"]
    assert set(layer_classes(untied)) == {"BertEmbeddings", "BertLayer"}
