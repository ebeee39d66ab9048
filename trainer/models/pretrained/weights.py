"""Checks that a checkpoint holds all weights of a backbone, and finds them under other names."""

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
INSIDE = (
    *("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"),
    "_model",
)
"""Parts that wrappers insert into names: torch.compile, FSDP, checkpointing, Lightning."""
IN_FRONT = (
    *("module", "model", "base_model", "net", "network", "backbone", "encoder", "transformer"),
    *("auto_model", "0", "lm", "llm", "plm", "language_model", "text_model", "text_encoder"),
    *("bert", "roberta", "distilbert", "electra", "albert", "deberta", "gpt", "llama", "hf_model"),
)
"""Parts that may precede the names of a model that was part of another module."""
HEADS = (
    *("lm_head", "cls", "score", "classifier", "pre_classifier", "classification_head"),
    *("qa_outputs", "predictions", "embed_out", "lm_loss", "logits_proj", "pred_layer"),
)
"""Names of heads of other tasks, which may follow the prefix of a wrapper."""
NO_WEIGHT = re.compile(
    r"(^|\.)(position_ids|token_type_ids|num_batches_tracked)$"
    r"|rotary[a-z_]*\.(inv_freq|original_inv_freq|cos_cached|sin_cached)$"
    r"|(attn|attention)\.(bias|masked_bias|causal_mask)$"  # GPT-2's mask, in old checkpoints
    r"|embed[a-z_]*\._weight$"  # which ELECTRA's way of training has left in mDeBERTa and others
    r"|(^|\.)(version|_float_tensor)$"  # of fairseq
)
"""Names of computed values that some versions of transformers stored."""


@dataclass(frozen=True)
class Names:
    """How the names of a checkpoint differ from those of a model, as transformers reports it."""

    missing: frozenset[str]
    unexpected: frozenset[str]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """Name, shape in the checkpoint and shape in the model."""

    @classmethod
    def of(cls, info: dict[str, Any]) -> "Names":
        """Returns the names in what `output_loading_info` gives."""
        shapes = [(key, tuple(old), tuple(new)) for key, old, new in info["mismatched_keys"]]
        missing = frozenset(info["missing_keys"]) - {key for key, _, _ in shapes}
        return cls(
            missing,
            frozenset(info["unexpected_keys"]),
            tuple(sorted(shapes, key=lambda one: (-len(one[1]), one[0]))),
        )


@dataclass(frozen=True)
class Backbone:
    """The backbone of a model: all but its `head`."""

    model: Any
    head: tuple[str, ...]
    prefixes: tuple[str, ...]
    """What this and other models of its type call their backbone, each with a dot at the end."""

    def holds(self, key: str) -> bool:
        """Returns whether a weight of the model is one of the backbone."""
        return key.partition(".")[0] not in self.head

    def would_hold(self, key: str) -> bool:
        """Returns whether a name in a checkpoint is that of a module of the backbone."""
        short = self.short(key)
        first = short.partition(".")[0]
        base: Any = self.model.base_model
        children = {name for name, _ in base.named_children()} - set(self.head)
        return first in children or (short != key and first not in HEADS)

    def short(self, key: str) -> str:
        """Returns a name without the prefix of the backbone."""
        prefix = next((one for one in self.prefixes if key.startswith(one)), "")
        return key.removeprefix(prefix)


def key_mapping_of(backbone: Backbone, names: Names) -> tuple[dict[str, str], str]:
    """Returns patterns that remove wrappers from the names of a checkpoint, and what they remove.

    Both are empty if the names are those of the model, or no known pattern makes them so.
    """
    wanted = {backbone.short(key) for key in names.missing}
    prefixes: set[str] = set()
    inside: set[str] = set()
    for key in names.unexpected:
        parts = [part for part in key.split(".") if part not in INSIDE]
        found = next(
            (
                count
                for count in range(len(parts) == key.count(".") + 1, len(parts))
                if all(part in IN_FRONT for part in parts[:count])
                and backbone.short(".".join(parts[count:])) in wanted
            ),
            None,
        )
        if found is not None:
            inside |= set(key.split(".")) & set(INSIDE)
            prefixes |= {"".join(f"{part}." for part in parts[:found])} - {""}
    mapping: dict[str, str] = {}
    if inside:
        pattern = "|".join(map(re.escape, sorted(inside)))
        # A pattern is applied once, and a name may have been wrapped several times.
        mapping |= {"(?:)" * turn + rf"(?:{pattern})\.": "" for turn in range(4)}
    if prefixes:
        pattern = "|".join(map(re.escape, sorted(prefixes, key=len, reverse=True)))
        mapping[f"^(?:{pattern})"] = ""
    return mapping, ", ".join([*sorted(prefixes), *sorted(f"{part}." for part in inside)])


def check_backbone(backbone: Backbone, names: Names, name: str) -> None:
    """Raises ConfigError unless a checkpoint holds exactly the weights of the backbone.

    Whole poolers may be absent, as they are from language models.
    """
    name, kind = shown(name), backbone.model.config.model_type
    wrong = [one for one in names.mismatched if backbone.holds(one[0])]
    if wrong:
        key, stored, needed = wrong[0]
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ConfigError(
            f"{KEY}: {key}{more} of {name} is {list(stored)}, and {list(needed)} by its "
            "config.json",
            key=KEY,
            hint="name a checkpoint whose files belong together",
        )
    weights = [key for key in backbone.model.state_dict() if backbone.holds(key)]
    poolers = _whole_poolers(weights, names.missing)
    lost = [k for k in weights if k in names.missing - poolers and not NO_WEIGHT.search(k)]
    extra = sorted(
        key
        for key in names.unexpected
        if backbone.would_hold(key) and "pooler" not in key.split(".") and not NO_WEIGHT.search(key)
    )
    if extra:  # except what this task leaves out, such as Funnel's decoder
        whole = backbone_weights(backbone.model)
        extra = [key for key in extra if backbone.short(key) not in whole]
    if lost:
        raise ConfigError(
            f"{KEY}: {len(lost):,} of the {len(weights):,} weights of the backbone are not in "
            f"{name}, such as {lost[0]}{_instead(extra or sorted(names.unexpected))}",
            key=KEY,
            hint=f"name a complete checkpoint of a {kind}",
        )
    if extra:
        raise ConfigError(
            f"{KEY}: {name} holds weights of a backbone for which the {kind} of its config.json "
            f"has no place ({len(extra):,}, such as {extra[0]})",
            key=KEY,
            hint="correct config.json, for example its number of layers, or name another "
            "checkpoint",
        )
    twice = sorted(key for key in names.unexpected if _is_wrapped_copy(backbone, weights, key))
    if twice:
        raise ConfigError(
            f"{KEY}: {name} holds {len(twice):,} weights of the backbone twice, such as {twice[0]}",
            key=KEY,
            hint="remove those that are not meant from its files",
        )


def check_head(backbone: Backbone, names: Names, name: str) -> None:
    """Raises ConfigError if a checkpoint holds only a part of a layer of the head."""
    ties = getattr(backbone.model, "all_tied_weights_keys", dict[str, str]())
    tied = {*ties, *ties.values()}  # such as the decoder of a masked language model
    for path, module in backbone.model.named_modules():
        own = [f"{path}.{key}" for key, _ in module.named_parameters(recurse=False)]
        own = [key for key in own if key not in tied]
        lost = [key for key in own if key in names.missing]
        if path and not backbone.holds(path) and lost and len(lost) < len(own):
            raise ConfigError(
                f"{KEY}: {shown(name)} lacks {lost[0]} and has the rest of that layer",
                key=KEY,
                hint="name a complete checkpoint, or set model.fresh_head: true for a new head",
            )


def check_values(model: nn.Module, name: str, fresh: Iterable[str]) -> list[str]:
    """Returns a note if some weight matrices of a loaded model are all zeros.

    `fresh` modules are not looked at. Raises ConfigError if all matrices are zeros, or a weight is
    not finite.
    """
    zero: list[str] = []
    num_matrices = 0
    new = set(fresh)
    for key, weight in model.named_parameters():
        if key.rpartition(".")[0] in new:
            continue
        tensors = [weight] if weight.is_floating_point() else _scales(weight)
        for tensor in (one for one in tensors if one.numel()):
            least, most = torch.aminmax(tensor.detach())
            if not (torch.isfinite(least) and torch.isfinite(most)):
                kind = str(tensor.dtype).removeprefix("torch.")
                raise ConfigError(
                    f"{KEY}: {key} of {shown(name)} is not finite in {kind}",
                    key=KEY,
                    hint="download the model again, or name another",
                )
            learned = weight.ndim > 1 and not key.endswith("bias") and "token_type" not in key
            if weight.is_floating_point() and learned:
                num_matrices += 1
                zero += [key] if least == most == 0 else []
    if zero and len(zero) == num_matrices:
        raise ConfigError(
            f"{KEY}: every weight of {shown(name)} is zero",
            key=KEY,
            hint="name a trained model",
        )
    if zero:
        many = f"{len(zero):,} of the {num_matrices:,} weight matrices"
        return [f"{many} of {shown(name)} are all zeros, such as {zero[0]}"]
    return []


def modules_of(keys: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of the modules that own the weights `keys`."""
    return tuple(sorted({key.rpartition(".")[0] for key in keys}))


def _whole_poolers(weights: list[str], missing: frozenset[str]) -> set[str]:
    """Returns the weights of poolers that are missing as a whole."""
    by_pooler: dict[str, list[str]] = {}
    for key in weights:
        before, found, _ = key.partition("pooler.")
        if found and (not before or before.endswith(".")):
            by_pooler.setdefault(before, []).append(key)
    return {key for keys in by_pooler.values() if missing.issuperset(keys) for key in keys}


def _instead(names: list[str]) -> str:
    """Returns a clause on the names that a checkpoint has instead."""
    if not names:
        return ""
    if any("lora_" in one for one in names):
        return f" (it has {excerpt(names[0], 60)}: merge the adapters first)"
    first = names[0].partition(".")[0]
    alike = len(names) > 1 and all(one.startswith(f"{first}.") for one in names)
    whose = f"; all names in it begin with {excerpt(first, 40)}." if alike else ""
    return f" (it has {len(names):,} others, such as {excerpt(names[0], 60)}{whose})"


def _is_wrapped_copy(backbone: Backbone, weights: list[str], key: str) -> bool:
    """Returns whether a name is one of the backbone's behind the prefix of a wrapper."""
    parts = key.split(".")
    if parts[0] not in ("module", *INSIDE):
        return False
    rest = ".".join(part for part in parts[1:] if part not in INSIDE)
    return backbone.short(rest) in {backbone.short(one) for one in weights}


def _scales(packed: Any) -> list[torch.Tensor]:
    """Returns the numbers by which bitsandbytes scales a packed weight."""
    state = getattr(packed, "quant_state", None)
    nested = getattr(state, "state2", None)
    found = [getattr(state, "offset", None), getattr(state, "absmax", None)]
    found += [getattr(nested, "absmax", None), getattr(packed, "SCB", None)]
    return [one for one in found if one is not None and one.is_floating_point()]
