"""Checks that model.name_or_path is a model, and not something that looks like one."""

import json
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.recipe.model import Model
from trainer.wording import excerpt, listed

KEY = "model.name_or_path"
ATTENTION = ("eager", "sdpa", "flex_attention")
FLASH_ATTENTION = ("flash_attention_2", "flash_attention_3")
"""Without the package, transformers would fetch the kernel from the hub."""
EXPERTS = ("eager", "batched_mm", "grouped_mm")
FORMATS = {
    "*.gguf": "GGUF",
    "*.onnx": "ONNX",
    "*.h5": "TensorFlow",
    "*.msgpack": "Flax",
    "*.nemo": "NeMo",
    "*.distcp": "a distributed checkpoint of torch",
    "shard-*-model-*.safetensors": "a distributed checkpoint of transformers",
    "mp_rank_*": "a checkpoint of DeepSpeed",
    "global_step*": "a checkpoint of DeepSpeed",
    "pytorch_model_fsdp*": "a checkpoint of FSDP",
    "consolidated.*": "the format of its authors",
    "*.pth": "a file of torch",
    "*.pt": "a file of torch",
    "*.ckpt": "a file of torch or TensorFlow",
}
"""File patterns of weights in formats that are not read, and the names of the formats."""
WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


def shown(name: object) -> str:
    """Returns a hub name or path for a message, long enough to be read in full."""
    return excerpt(name, 150)


def check_origin(model: Model) -> None:
    """Raises ConfigError if model.name_or_path names something that cannot be a model.

    Looks at local folders only: the content of a hub name is checked when it is loaded.
    """
    if model.name_or_path is None:
        return
    path = Path(model.name_or_path)
    name = shown(model.name_or_path)
    if not model.name_or_path.strip():
        raise ConfigError(
            f"{KEY} is empty",
            key=KEY,
            hint="give a hub name or a folder",
        )
    try:
        if path.is_dir():
            _check_folder(path, name)
            if model.initialization == "pretrained":
                check_weight_files(path)
        elif path.exists():
            raise ConfigError(
                f"{KEY}: {name} is a file",
                key=KEY,
                hint="give the folder with its config.json",
            )
    except OSError as error:
        raise ConfigError(
            f"{KEY}: {name} cannot be read: {error.strerror}",
            key=KEY,
        ) from error


def check_hub_adapter(name: str, revision: str | None) -> None:
    """Raises ConfigError for a hub name that is an adapter: its base would be loaded instead."""
    from transformers.utils.peft_utils import find_adapter_config_file

    if Path(name).is_dir():
        return
    try:
        found = find_adapter_config_file(name, revision=revision)
    except (OSError, ValueError):  # loading the model reports it
        return
    if found is not None:
        raise ConfigError(
            f"{KEY}: {shown(name)} is an adapter of PEFT",
            key=KEY,
            hint="load it on its base, merge it by merge_and_unload, and give the folder that "
            "save_pretrained writes",
        )


def check_config(model_config: Any, key: str) -> None:
    """Raises ConfigError for configuration values that would make a model fetch or run code.

    `key` is the key of the recipe that names the configuration.
    """
    from transformers.utils import import_utils

    allowed: list[str] = [*ATTENTION]
    for name in FLASH_ATTENTION:
        available = getattr(import_utils, f"is_flash_attn_{name[-1]}_available", None)
        if available is not None and available():
            allowed.append(name)
    for part in (model_config, *_parts(model_config)):
        for name, known in (("attn", allowed), ("experts", list(EXPERTS))):
            value = getattr(part, f"_{name}_implementation", None)
            if value is not None and value not in known:
                raise ConfigError(
                    f"{key}: {name}_implementation {excerpt(value)!r} of its configuration is "
                    f"none of {', '.join(known)}, and kernels are not fetched from the hub",
                    key=key,
                    hint="remove it",
                )
    for name in ("fusion_config", "kernel_config"):
        if getattr(model_config, name, None) is not None:
            raise ConfigError(
                f"{key}: its configuration has a {name}, which is not supported",
                key=key,
            )
    if hasattr(model_config, "transformers_weights"):
        raise ConfigError(
            f"{key}: its configuration names its file of weights by transformers_weights, which "
            "is not supported",
            key=key,
            hint="call the file model.safetensors and remove the entry",
        )


def check_quantisation(model_config: Any, mode: str) -> None:
    """Raises ConfigError for a model that is stored quantised, unless `mode` quantises it so."""
    stored = getattr(model_config, "quantization_config", None)
    if stored is None:
        return
    values = stored if isinstance(stored, dict) else getattr(stored, "__dict__", {})
    method = excerpt(values.get("quant_method", "an unknown method"))
    bits = {"qlora": "load_in_4bit", "int8_lora": "load_in_8bit"}
    kept = {name: mode for mode, name in bits.items() if values.get(f"_{name}", values.get(name))}
    if method.endswith("bitsandbytes") and kept.get(bits.get(mode, "")) == mode:
        return
    hint = "".join(f", or set tuning.mode: {one}" for one in kept.values())
    raise ConfigError(
        f"{KEY}: its weights are stored quantised ({method}), and tuning.mode {mode} needs them "
        "as they were before",
        key=KEY,
        hint=f"name the model that it was made of{hint}",
    )


def check_weight_files(folder: Path) -> None:
    """Raises ConfigError for an index of shards that is damaged or names files elsewhere."""
    read = next((name for name in WEIGHTS if (folder / name).is_file()), "")
    for name in [read] if read.endswith(".index.json") else []:  # what else lies there is not read
        index = folder / name
        try:
            files = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
            homes = _homes(index)
            outside = [one for one in files if not _lies_in(index.parent / one, homes)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(
                f"{KEY}: {shown(index)} is no list of the files of a model ({excerpt(error)})",
                key=KEY,
                hint="download it again",
            ) from error
        if outside:
            raise ConfigError(
                f"{KEY}: {shown(index)} names files outside of its folder, which are not read: "
                f"{listed(outside, 2)}",
                key=KEY,
            )
        absent = sorted(one for one in files if not (index.parent / one).is_file())
        if absent or not files:
            what = f"lacks {listed(absent, 3)}, {len(absent)} of its {len(files)} files"
            raise ConfigError(
                f"{KEY}: {shown(folder)} {what if files else 'has no file in ' + name}",
                key=KEY,
                hint="download it again",
            )


def other_format(folder: Path) -> str:
    """Returns a clause on the format of a folder's weights; empty if that format is read."""
    if any((folder / name).exists() for name in WEIGHTS):
        return ""
    for pattern, kind in FORMATS.items():
        found = sorted(folder.glob(pattern))
        if found:
            return f": {excerpt(found[0].name)} is {kind}; convert it by save_pretrained"
    return ""


def _check_folder(folder: Path, name: str) -> None:
    if (folder / "adapter_config.json").exists():
        whole = folder.parent / "model"
        if (whole / "config.json").is_file():
            raise ConfigError(
                f"{KEY}: {name} holds adapters alone",
                key=KEY,
                hint=f"give {shown(whole)}",
            )
        raise ConfigError(
            f"{KEY}: {name} holds adapters of PEFT (adapter_config.json)",
            key=KEY,
            hint="load them on their base, merge them by merge_and_unload, and give the folder "
            "that save_pretrained writes",
        )
    if (folder / "config.json").exists():
        return
    run = _run_of(folder)
    if run is not None:
        what = "a run directory" if run == folder else f"part of the run {shown(run)}"
        if (run / "model").is_dir():
            raise ConfigError(
                f"{KEY}: {name} is {what}",
                key=KEY,
                hint=f"give {shown(run / 'model')}",
            )
        raise ConfigError(
            f"{KEY}: {name} is {what}, which has no model/ yet: train it to its end, then give "
            f"{shown(run / 'model')}",
            key=KEY,
        )
    inside = sorted(file.parent.name for file in folder.glob("*/config.json"))
    if inside:
        raise ConfigError(
            f"{KEY}: {name} holds no config.json, but folders that do",
            key=KEY,
            hint=f"give {name}/ and one of {listed(inside, 4)}",
        )
    clause = other_format(folder)
    if clause:
        raise ConfigError(
            f"{KEY}: the folder {name} holds no config.json{clause}",
            key=KEY,
        )


def _run_of(folder: Path) -> Path | None:
    """Returns the run directory that a folder is, or in whose checkpoints it lies."""
    folder = folder.absolute()
    for run in (folder, folder.parent, folder.parent.parent):
        if (run / "config.yaml").is_file() and (run / "checkpoints").is_dir():
            return run
    return None


def _homes(index: Path) -> list[Path]:
    """Returns the folders in which the files of an index may lie: its own, that of the index
    itself if it is a link, and the blobs of a hub cache."""
    homes = [index.parent.resolve(), index.resolve().parent]
    snapshots = homes[0].parent
    if snapshots.name == "snapshots":
        homes.append(snapshots.parent / "blobs")
    return homes


def _lies_in(file: Path, homes: list[Path]) -> bool:
    return any(file.resolve().is_relative_to(home) for home in homes)


def _parts(model_config: Any) -> list[Any]:
    """Returns the configurations inside of one, such as text_config."""
    found = [getattr(model_config, name, None) for name in getattr(model_config, "sub_configs", {})]
    return [part for one in found if one is not None for part in (one, *_parts(one))]
