"""Small random models of each architecture, loaded as the package loads any other."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from transformers import AutoModel

from trainer.models.architecture import build_model_config
from trainer.models.load import LoadedModel, ModelSpec, load_model
from trainer.models.tokenizers.tokenizer import load_tokenizer, train_tokenizer
from trainer.recipe.model import Model, TrainedTokenizer
from trainer.recipe.tuning import Tuning

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
MODES = ("full", "head_only", "lora", "qlora", "int8_lora")


def architectures(**numbers: Any) -> dict[str, dict[str, Any]]:
    """Returns the numbers of the four architectures, each with its size and `numbers`."""
    return {
        name: {**SIZES, **numbers, **({"type_vocab_size": 1} if name == "roberta" else {})}
        for name in ("bert", "roberta", "llama", "phi")
    }


def random_model(name: str, numbers: dict[str, Any], texts: list[str], folder: Path) -> Model:
    """Returns the settings of a model from numbers, with a tokenizer trained into `folder`."""
    kind = "wordpiece" if name == "bert" else "bpe"
    train_tokenizer(TrainedTokenizer(train=kind, vocab_size=300), texts, folder)
    return Model(
        architecture={"model_type": name, **numbers},
        initialization="random",
        tokenizer=str(folder),
    )


def save_backbones(
    root: Path, numbers: dict[str, dict[str, Any]], texts: list[str]
) -> dict[str, Path]:
    """Returns a folder for each architecture with backbone and tokenizer, in the hub's format."""
    for name, values in numbers.items():
        settings = random_model(name, values, texts, root / f"{name}-tokenizer")
        tokenizer = load_tokenizer(settings)
        torch.manual_seed(0)
        base = AutoModel.from_config(build_model_config(settings, tokenizer))
        base.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in numbers}


def tuning_of(mode: str, **settings: Any) -> Tuning:
    """Returns the tuning section of a recipe; modes without adapters ignore adapter keys."""
    section: TypeAdapter[Tuning] = TypeAdapter(Tuning)
    return section.validate_json(json.dumps({"mode": mode, **settings}))


def build_config(settings: Model, values: dict[str, Any], tokenizer: Any) -> Any:
    """Returns the configuration of a model with the values that a task gives it."""
    config = build_model_config(settings, tokenizer)
    for name, value in values.items():
        setattr(config, name, value)
    return config


def load(
    settings: Model,
    values: dict[str, Any],
    *,
    mode: str = "full",
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
) -> tuple[LoadedModel, Any]:
    """Returns a classifier with the configuration `values`, before tuning, and its tokenizer."""
    tokenizer = load_tokenizer(settings)
    loaded = load_model(
        ModelSpec(
            settings,
            build_config(settings, values, tokenizer),
            auto_model="AutoModelForSequenceClassification",
            tokenizer_size=len(tokenizer),
            mode=mode,
            frozen_dtype=dtype,
            seed=seed,
        )
    )
    return loaded, tokenizer
