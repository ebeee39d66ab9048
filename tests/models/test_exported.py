"""An exported folder that cannot be read is refused in a sentence."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertConfig, BertForMaskedLM

from trainer.errors import CheckpointError
from trainer.models.exported import load_exported


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: os.truncate(folder / "model.safetensors", 500),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("{}"),
    ],
    ids=["cut off", "no weights", "no JSON", "no settings"],
)
def test_a_damaged_folder_is_refused(damage: Callable[[Path], object], tmp_path: Path) -> None:
    shape = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=9,
    )
    BertForMaskedLM(shape).save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_exported(tmp_path)
