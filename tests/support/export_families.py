"""Tiny random models of the families in the export gate, saved in the format of the hub."""

from pathlib import Path
from typing import Any

import torch
import transformers
from support.tiny_models import SIZES
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from trainer.models.tokenizers.tokenizer import train_tokenizer
from trainer.recipe.model import TrainedTokenizer

TEXTS = [
    "dull",
    "a film that is long and has no end, and no beginning either",
    "a lovely one",
    "good and bad film",
]
NUMBERS: dict[str, Any] = {
    **SIZES,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "embedding_size": 16,
    "initializer_range": 0.1,
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "num_hidden_groups": 1,
    "type_vocab_size": 2,
}
"""Sizes of a tiny model; each family uses those that its configuration has."""
OWN: dict[str, dict[str, Any]] = {
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
    "deberta-v2": {"pos_att_type": ["p2c", "c2p"], "relative_attention": True},
    "falcon": {"head_dim": None},
    "funnel": {
        **dict.fromkeys(SIZES),
        "block_sizes": [1, 1],
        "d_model": 32,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 64,
    },
    "mobilebert": {"true_hidden_size": 32, "intra_bottleneck_size": 32, "hidden_size": 32},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
    "ctrl": {"dff": 64},
    "xglm": {"ffn_dim": 64, "d_model": 32},
    "squeezebert": {"embedding_size": 32},
    "codegen": {"rotary_dim": 4},
}
ENCODERS = (
    "albert bert big_bird camembert convbert deberta deberta-v2 distilbert electra ernie funnel "
    "megatron-bert mobilebert modernbert mpnet nomic_bert nystromformer rembert roberta roformer "
    "squeezebert xlm-roberta"
).split()
DECODERS = (
    "biogpt bloom ctrl falcon gemma gemma2 gemma3_text gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss "
    "gptj llama mistral mixtral mpt olmo olmo2 openai-gpt opt persimmon phi phi3 qwen2 qwen3 "
    "qwen3_moe smollm3 stablelm starcoder2"
).split()
LANGUAGE_ONLY = "codegen cohere granite olmoe xglm".split()  # without a class for classification


def numbers_of(kind: str) -> dict[str, Any]:
    """Returns the numbers of a tiny model of a family."""
    known, own = transformers.CONFIG_MAPPING[kind](), OWN.get(kind, {})
    general = {name: number for name, number in NUMBERS.items() if hasattr(known, name)}
    return {name: n for name, n in {**general, **own}.items() if n is not None}


def save_tokenizer(kind: str, folder: Path, *, pad: str | None = "[PAD]") -> Any:
    """Returns a tokenizer of the family's kind: of words, or of bytes with an end-of-text token."""
    if kind in ENCODERS:
        train_tokenizer(TrainedTokenizer(train="wordpiece", vocab_size=200), TEXTS, folder)
        return PreTrainedTokenizerFast.from_pretrained(folder)
    special = ["<s>", "</s>", *([pad] if pad is not None else [])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    pretrained = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token=pad
    )
    pretrained.save_pretrained(folder)
    return pretrained


def save_base(kind: str, folder: Path, auto_model: str, **numbers: Any) -> Path:
    """Returns a folder with a random model of a family and its tokenizer, in the hub's format."""
    tokenizer = save_tokenizer(kind, folder)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos")}
    ids |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    settings = transformers.CONFIG_MAPPING[kind](**{**ids, **numbers_of(kind), **numbers})
    torch.manual_seed(0)
    model = getattr(transformers, auto_model).from_config(settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # norms and biases are 1 and 0 at first
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
            assert parameter.isfinite().all(), name
    model.save_pretrained(folder)
    return folder
