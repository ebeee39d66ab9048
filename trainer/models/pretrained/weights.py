"""Checks that a checkpoint contains all weights of a backbone, also under a wrapper's names."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer.errors import ConfigError
from trainer.models.pretrained.model_folder import shown
from trainer.models.structure import backbone_weights
from trainer.wording import excerpt

KEY = "model.name_or_path"
INSERTED = (
    *("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"),
    "_model",
)
"""Parts that wrappers insert into names: torch.compile, FSDP, checkpointing, Lightning."""
PREFIXES = (
    *("module", "model", "base_model", "net", "network", "backbone", "encoder", "transformer"),
    *("auto_model", "0", "lm", "llm", "plm", "language_model", "text_model", "text_encoder"),
    *("bert", "roberta", "distilbert", "electra", "albert", "deberta", "gpt", "llama", "hf_model"),
)
"""Parts that precede the names of a model that was saved as a part of another module."""
HEADS = (
    *("lm_head", "cls", "score", "classifier", "pre_classifier", "classification_head"),
    *("qa_outputs", "predictions", "embed_out", "lm_loss", "logits_proj", "pred_layer"),
)
"""Names of heads, which are not backbone weights even after the prefix of a wrapper."""
NO_WEIGHT = re.compile(
    r"(^|\.)(position_ids|token_type_ids|num_batches_tracked)$"
    r"|rotary[a-z_]*\.(inv_freq|original_inv_freq|cos_cached|sin_cached)$"
    r"|(attn|attention)\.(bias|masked_bias|causal_mask)$"  # GPT-2's mask, in old checkpoints
    r"|embed[a-z_]*\._weight$"  # left over from ELECTRA-style training, as in mDeBERTa
    r"|(^|\.)(version|_float_tensor)$"  # of fairseq
)
"""Names of stored values that are not weights: a model computes them or does without."""


@dataclass(frozen=True)
class Names:
    """How the names in a checkpoint differ from a model's, as transformers reports it."""

    missing: frozenset[str]
    unexpected: frozenset[str]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """Name, shape in the checkpoint and shape in the model; most dimensions first."""

    @classmethod
    def of(cls, info: dict[str, Any]) -> "Names":
        """Returns the names in a loading info of transformers."""
        shapes = [(key, tuple(old), tuple(new)) for key, old, new in info["mismatched_keys"]]
        missing = frozenset(info["missing_keys"]) - {key for key, _, _ in shapes}
        return cls(
            missing,
            frozenset(info["unexpected_keys"]),
            tuple(sorted(shapes, key=lambda entry: (-len(entry[1]), entry[0]))),
        )


@dataclass(frozen=True)
class Backbone:
    """The backbone of a model: everything outside its `head`."""

    model: Any
    head: tuple[str, ...]
    prefixes: tuple[str, ...]
    """Names of the backbone in models of this type, each with a dot at the end."""

    def holds(self, key: str) -> bool:
        """Returns whether a weight of the model belongs to the backbone."""
        return key.partition(".")[0] not in self.head

    def would_hold(self, key: str) -> bool:
        """Returns whether a name in a checkpoint looks like one of the backbone."""
        short = self.short(key)
        first = short.partition(".")[0]
        base: Any = self.model.base_model
        children = {name for name, _ in base.named_children()} - set(self.head)
        return first in children or (short != key and first not in HEADS)

    def short(self, key: str) -> str:
        """Returns a name without the prefix of the backbone."""
        prefix = next((prefix for prefix in self.prefixes if key.startswith(prefix)), "")
        return key.removeprefix(prefix)


def key_mapping_of(backbone: Backbone, names: Names) -> tuple[dict[str, str], str]:
    """Returns patterns that remove wrappers from the names in a checkpoint, and a list of what they
    remove. Both are empty if no known wrapper explains the names."""
    missing = {backbone.short(key) for key in names.missing}
    prefixes: set[str] = set()
    inserted: set[str] = set()
    for key in names.unexpected:
        parts = [part for part in key.split(".") if part not in INSERTED]
        num_prefixes = next(
            (
                count
                for count in range(len(parts) == key.count(".") + 1, len(parts))
                if all(part in PREFIXES for part in parts[:count])
                and backbone.short(".".join(parts[count:])) in missing
            ),
            None,
        )
        if num_prefixes is not None:
            inserted |= set(key.split(".")) & set(INSERTED)
            prefixes |= {"".join(f"{part}." for part in parts[:num_prefixes])} - {""}
    mapping: dict[str, str] = {}
    if inserted:
        pattern = "|".join(map(re.escape, sorted(inserted)))
        # Each pattern is applied once, and a name may contain several insertions. "(?:)", which
        # matches nothing, makes equal patterns different keys.
        mapping |= {"(?:)" * turn + rf"(?:{pattern})\.": "" for turn in range(4)}
    if prefixes:
        pattern = "|".join(map(re.escape, sorted(prefixes, key=len, reverse=True)))
        mapping[f"^(?:{pattern})"] = ""
    return mapping, ", ".join([*sorted(prefixes), *sorted(f"{part}." for part in inserted)])


def check_backbone(backbone: Backbone, names: Names, name: str) -> None:
    """Raises ConfigError unless a checkpoint contains exactly the weights of the backbone.

    A pooler may be absent as a whole, because language models have none.
    """
    kind, shown_name = backbone.model.config.model_type, shown(name)
    mismatched = [entry for entry in names.mismatched if backbone.holds(entry[0])]
    if mismatched:
        key, stored, needed = mismatched[0]
        more = f" and {len(mismatched) - 1} more" if len(mismatched) > 1 else ""
        raise ConfigError(
            f"{KEY}: {key}{more} of {shown_name} is {list(stored)}, and should be {list(needed)} "
            "by its config.json",
            key=KEY,
            value=name,
            hint="name a checkpoint whose files belong together",
        )
    weights = [key for key in backbone.model.state_dict() if backbone.holds(key)]
    poolers = _absent_poolers(weights, names.missing)
    lost = [k for k in weights if k in names.missing - poolers and not NO_WEIGHT.search(k)]
    extra = sorted(
        key
        for key in names.unexpected
        if backbone.would_hold(key) and "pooler" not in key.split(".") and not NO_WEIGHT.search(key)
    )
    if extra:  # except for parts of the backbone that this task leaves out, as Funnel's decoder
        all_weights = backbone_weights(backbone.model)
        extra = [key for key in extra if backbone.short(key) not in all_weights]
    if lost:
        raise ConfigError(
            f"{KEY}: {len(lost):,} of the {len(weights):,} weights of the backbone are not in "
            f"{shown_name}, such as {lost[0]}{_instead(extra or sorted(names.unexpected))}",
            key=KEY,
            value=name,
            hint=f"name a complete checkpoint of a {kind}",
        )
    if extra:
        raise ConfigError(
            f"{KEY}: {shown_name} contains {len(extra):,} weights, such as {extra[0]}, that the "
            f"{kind} of its config.json does not have",
            key=KEY,
            value=name,
            hint="correct config.json, for example its number of layers, or name another "
            "checkpoint",
        )
    copies = sorted(key for key in names.unexpected if _is_wrapped_copy(backbone, weights, key))
    if copies:
        raise ConfigError(
            f"{KEY}: {shown_name} contains {len(copies):,} weights of the backbone twice, such as "
            f"{copies[0]}",
            key=KEY,
            value=name,
            hint="remove the copies that are not meant from its files",
        )


def check_head(backbone: Backbone, names: Names, name: str) -> None:
    """Raises ConfigError if a checkpoint contains only a part of a layer of the head."""
    ties = getattr(backbone.model, "all_tied_weights_keys", dict[str, str]())
    tied = {*ties, *ties.values()}  # such as the decoder of a masked language model
    for path, module in backbone.model.named_modules():
        own = [f"{path}.{key}" for key, _ in module.named_parameters(recurse=False)]
        own = [key for key in own if key not in tied]
        lost = [key for key in own if key in names.missing]
        if path and not backbone.holds(path) and lost and len(lost) < len(own):
            raise ConfigError(
                f"{KEY}: {shown(name)} lacks {lost[0]} but has the rest of that layer",
                key=KEY,
                value=name,
                hint="name a complete checkpoint, or set model.fresh_head: true for a new head",
            )


def check_values(model: nn.Module, name: str, fresh: Iterable[str]) -> list[str]:
    """Returns a note, in a list, if some weight matrices of a loaded model are all zeros.

    Modules in `fresh` are skipped. Raises ConfigError if all matrices are zeros, or a weight is not
    finite.
    """
    zero: list[str] = []
    num_matrices = 0
    skipped = set(fresh)
    for key, weight in model.named_parameters():
        if key.rpartition(".")[0] in skipped:
            continue
        tensors = [weight] if weight.is_floating_point() else _scales(weight)
        for tensor in (tensor for tensor in tensors if tensor.numel()):
            least, most = torch.aminmax(tensor.detach())
            if not (torch.isfinite(least) and torch.isfinite(most)):
                kind = str(tensor.dtype).removeprefix("torch.")
                raise ConfigError(
                    f"{KEY}: {key} of {shown(name)} is not finite in {kind}",
                    key=KEY,
                    value=name,
                    hint="download the model again, or name another",
                )
            is_matrix = weight.ndim > 1 and not key.endswith("bias") and "token_type" not in key
            if weight.is_floating_point() and is_matrix:
                num_matrices += 1
                zero += [key] if least == most == 0 else []
    if zero and len(zero) == num_matrices:
        raise ConfigError(
            f"{KEY}: every weight of {shown(name)} is zero",
            key=KEY,
            value=name,
            hint="name a trained model",
        )
    if zero:
        count = f"{len(zero):,} of the {num_matrices:,} weight matrices"
        return [f"{count} of {shown(name)} are all zeros, such as {zero[0]}"]
    return []


def modules_of(keys: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of the modules that own the weights `keys`, sorted."""
    return tuple(sorted({key.rpartition(".")[0] for key in keys}))


def _absent_poolers(weights: list[str], missing: frozenset[str]) -> set[str]:
    """Returns the weights of poolers of which no weight is in the checkpoint."""
    by_pooler: dict[str, list[str]] = {}
    for key in weights:
        path, pooler, _ = key.partition("pooler.")
        if pooler and (not path or path.endswith(".")):
            by_pooler.setdefault(path, []).append(key)
    return {key for keys in by_pooler.values() if missing.issuperset(keys) for key in keys}


def _instead(names: list[str]) -> str:
    """Returns a clause about the names that a checkpoint has instead of the missing ones."""
    if not names:
        return ""
    if any("lora_" in name for name in names):
        return f" (it has {excerpt(names[0], 60)}: merge the adapters first)"
    first = names[0].partition(".")[0]
    is_shared = len(names) > 1 and all(name.startswith(f"{first}.") for name in names)
    prefix = f"; all names in it begin with {excerpt(first, 40)}." if is_shared else ""
    return f" (it has {len(names):,} others, such as {excerpt(names[0], 60)}{prefix})"


def _is_wrapped_copy(backbone: Backbone, weights: list[str], key: str) -> bool:
    """Returns whether a name is a wrapper's prefix followed by the name of a backbone weight."""
    parts = key.split(".")
    if parts[0] not in ("module", *INSERTED):
        return False
    rest = ".".join(part for part in parts[1:] if part not in INSERTED)
    return backbone.short(rest) in {backbone.short(weight) for weight in weights}


def _scales(packed: Any) -> list[torch.Tensor]:
    """Returns the numbers with which bitsandbytes scales a packed weight."""
    state = getattr(packed, "quant_state", None)
    nested = getattr(state, "state2", None)
    scales = [getattr(state, "offset", None), getattr(state, "absmax", None)]
    scales += [getattr(nested, "absmax", None), getattr(packed, "SCB", None)]
    return [scale for scale in scales if scale is not None and scale.is_floating_point()]
