"""GGUF: a causal language model as the single file that llama.cpp reads."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.checkpoints.saved_tensors import SavedTensors
from trainer.errors import CheckpointError
from trainer.exports.extras import needs
from trainer.exports.gguf_vocabulary import add_vocabulary, refused
from trainer.models.quiet import quiet_transformers
from trainer.wording import listed

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""The architecture of llama.cpp for a model type of transformers."""
SCALES_OF_ROPE = ("default", "linear", "llama3")


def write_gguf(folder: Path, file: Path) -> list[str]:
    """Writes the model in an exported folder to a GGUF file, and returns notes, a sentence each.

    Weights keep their type, except that vectors are stored in fp32, as llama.cpp expects. The file
    is read again, and its weights must equal those of the folder. Raises ConfigError if the model
    or its tokenizer has a part that llama.cpp would compute in another way, and CheckpointError if
    the weights that were read differ; then there is no file.
    """
    gguf = needs("gguf", "--gguf", "gguf")
    import transformers

    with quiet_transformers():
        config: Any = transformers.AutoConfig.from_pretrained(folder)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    notes = _check(config)
    weights = SavedTensors(sorted(folder.glob("*.safetensors")))
    try:
        writer = gguf.GGUFWriter(file, ARCHITECTURES[config.model_type], use_temp_file=True)
        _add_settings(writer, config)
        notes += add_vocabulary(writer, folder, tokenizer, config.vocab_size)
        for name, value in _tensors(weights, config, gguf):
            kind = _stored_type(value, gguf)
            plain = value.float().numpy()
            writer.add_tensor(name, gguf.quants.quantize(plain, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        _compare(folder, file, weights, config)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return notes


def _check(config: Any) -> list[str]:
    """Returns notes on a model that llama.cpp computes alike; raises ConfigError for others."""
    kind, architecture = config.model_type, (config.architectures or ["?"])[0]
    if kind not in ARCHITECTURES or not architecture.endswith("ForCausalLM"):
        raise refused(
            f"a {architecture} cannot be written, only causal language models of the types "
            f"{', '.join(ARCHITECTURES)}"
        )
    biases = [name for name in ("attention_bias", "mlp_bias") if getattr(config, name, False)]
    if biases:
        raise refused(f"the layers of this {kind} have biases ({', '.join(biases)})")
    scaling = _rope(config).get("rope_type", "default")
    if scaling not in SCALES_OF_ROPE:
        raise refused(
            f"its position embedding is scaled by {scaling}, and only {listed(SCALES_OF_ROPE)} are "
            f"written"
        )
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True):
        return [f"llama.cpp attends to all earlier tokens, not only to the last {window:,}"]
    return []


def _rope(config: Any) -> dict[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {})


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _add_settings(writer: Any, config: Any) -> None:
    rope = _rope(config)
    # transformers recognises a Mistral by its name, since llama.cpp calls it a Llama.
    writer.add_name(config.model_type)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(_head_size(config))
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    if rope.get("rope_type") == "linear":
        writer.add_string(f"{writer.arch}.rope.scaling.type", "linear")
        writer.add_rope_scaling_factor(float(rope["factor"]))
    writer.add_vocab_size(config.vocab_size)


def _tensors(weights: SavedTensors, config: Any, gguf: Any) -> Iterator[tuple[str, Tensor]]:
    """Yields each weight under its name in llama.cpp; queries and keys are permuted for it."""
    architecture = ARCHITECTURES[config.model_type]
    kinds: dict[Any, str] = gguf.MODEL_ARCH_NAMES
    number = next(kind for kind, name in kinds.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for own in weights:
        name = names.get_name(own, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise refused(f"llama.cpp has no weight such as {own}")
        value = weights[own]
        if architecture == "llama" and ".attn_q." in name:
            value = _permuted(value, config.num_attention_heads)
        if architecture == "llama" and ".attn_k." in name:
            value = _permuted(value, config.num_key_value_heads)
        yield name, value
    if _rope(config).get("rope_type") == "llama3":
        yield "rope_freqs.weight", torch.from_numpy(rope_factors(_rope(config), _head_size(config)))


def _permuted(weight: Tensor, num_heads: int) -> Tensor:
    """Returns a projection [heads * size, width] with the two halves of each head interleaved.

    transformers rotates the first half of a head with the second, llama.cpp even with odd rows.
    """
    halves = weight.reshape(num_heads, 2, weight.shape[0] // num_heads // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape).contiguous()


def rope_factors(rope: dict[str, Any], size: int) -> np.ndarray:
    """Returns by what Llama 3.1 divides each frequency of its position embedding, fp32 [size / 2].

    Long waves are stretched by `factor`, short ones are kept, and those between are interpolated,
    as in `_compute_llama3_parameters` of transformers.
    """
    exponents = np.arange(0, size, 2, dtype=np.float64) / size
    waves = 2 * math.pi * float(rope["rope_theta"]) ** exponents
    old = rope["original_max_position_embeddings"]
    low, high, factor = (rope[key] for key in ("low_freq_factor", "high_freq_factor", "factor"))
    share = np.clip((old / waves - low) / (high - low), 0, 1)  # 1 for short waves
    return (1 / ((1 - share) / factor + share)).astype(np.float32)


def _stored_type(value: Tensor, gguf: Any) -> Any:
    kinds = gguf.GGMLQuantizationType
    if value.dim() < 2:
        return kinds.F32
    return {torch.bfloat16: kinds.BF16, torch.float16: kinds.F16}.get(value.dtype, kinds.F32)


def _compare(folder: Path, file: Path, weights: SavedTensors, config: Any) -> None:
    """Raises CheckpointError unless transformers reads the weights of the folder from the file."""
    import transformers

    # The configuration is the folder's: transformers reads no scaling of positions from GGUF. It
    # has a reader for Llama but not for Mistral, whose weights have the same names and shapes.
    if config.model_type == "mistral":
        config = transformers.LlamaConfig.from_dict({**config.to_dict(), "model_type": "llama"})
    kind: Any = transformers.AutoModelForCausalLM
    with quiet_transformers():
        read = kind.from_pretrained(
            file.parent, gguf_file=file.name, config=config, dtype=torch.float32
        ).state_dict()
    wrong = [name for name in weights if not torch.equal(read[name], weights[name].float())]
    if wrong:
        raise CheckpointError(
            f"{file} does not hold the weights of {folder}: {listed(wrong, 3)} differ",
            key="--gguf",
            hint="export without --gguf",
        )
