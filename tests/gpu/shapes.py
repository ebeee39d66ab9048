"""Random models with the shapes of real ones, and rows of made-up words with real lengths.

Each word is one token, so lengths in tokens are those of the data sets named here.
"""

import json
import os
from pathlib import Path
from random import Random
from typing import Any

ARCHITECTURES = Path(__file__).parents[2] / "trainer" / "models" / "architectures"
SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
NUM_WORDS = 400
# Quantiles of lengths in tokens, at equal steps from the shortest to the longest.
SST2 = [1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 9, 11, 12, 14, 16, 18, 21, 25, 31, 64]
"""Sentences of SST-2's train.tsv under BERT's tokenizer, without special tokens."""
PROMPTS = [6, 9, 11, 12, 14, 15, 18, 21, 25, 32, 150]
"""Instructions with inputs of 1,000 rows of Alpaca under GPT-2's tokenizer."""
ANSWERS = [1, 10, 18, 33, 64, 107, 159, 220, 290, 365, 792]
"""Their outputs."""

TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY_LLAMA = {
    **TINY,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "vocab_size": 640,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
LLAMA_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 14336,
    "tie_word_embeddings": False,
}


def llama_1b(*, tiny: bool) -> dict[str, Any]:
    """Returns the configuration values of Llama-3.2-1B."""
    numbers = json.loads((ARCHITECTURES / "meta-llama--Llama-3.2-1B.json").read_text())
    return numbers | (TINY_LLAMA if tiny else {})


def llama_8b(*, tiny: bool) -> dict[str, Any]:
    """Returns the configuration values of Llama-3.1-8B: those of 3.2-1B with another size."""
    return llama_1b(tiny=tiny) | ({"tie_word_embeddings": False} if tiny else LLAMA_8B)


def bert_base(*, tiny: bool) -> dict[str, Any]:
    """Returns the configuration values of bert-base-uncased."""
    numbers = json.loads((ARCHITECTURES / "bert-base-uncased.json").read_text())
    return numbers | ({**TINY, "intermediate_size": 128, "vocab_size": 640} if tiny else {})


def words(generator: Random, count: int) -> str:
    """Returns `count` words, with roughly the frequencies of words in text."""
    drawn = (int(NUM_WORDS ** generator.random()) - 1 for _ in range(count))
    return " ".join(SYLLABLES[one // 20] + SYLLABLES[one % 20 + 20] for one in drawn)


def length(generator: Random, quantiles: list[int]) -> int:
    """Returns a length drawn from the distribution with these quantiles."""
    place = generator.random() * (len(quantiles) - 1)
    below = int(place)
    return round(quantiles[below] + (place - below) * (quantiles[below + 1] - quantiles[below]))


def write_sentences(file: Path, num_rows: int) -> Path:
    """Writes labelled sentences as long as SST-2's, with the columns of its files."""
    generator = Random(1)
    rows = [
        f"{number % 2}\t{words(generator, length(generator, SST2))}\n" for number in range(num_rows)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("label\tsentence\n" + "".join(rows))
    return file


def write_instructions(file: Path, num_rows: int) -> Path:
    """Writes instructions and answers as long as Alpaca's."""
    generator = Random(1)
    rows = [
        {
            "instruction": words(generator, length(generator, PROMPTS)),
            "output": words(generator, length(generator, ANSWERS)),
        }
        for _ in range(num_rows)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def model_folder(work: Path, name: str, numbers: dict[str, Any], device: str) -> Path:
    """Returns a folder with a causal language model of random bf16 weights, drawn on `device`.

    Several stages train the same model, which the first of them creates.
    """
    folder = work / name
    if folder.is_dir():
        return folder
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    values = dict(numbers)
    settings = CONFIG_MAPPING[values.pop("model_type")](**values)
    torch.manual_seed(1)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16)
    staging = work / f".{name}.{os.getpid()}"
    model.save_pretrained(staging)
    staging.rename(folder)
    return folder
