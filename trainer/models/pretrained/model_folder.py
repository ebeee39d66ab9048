"""Checks that model.name_or_path names a model that can be loaded, before it is loaded."""

import json
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.recipe.model import Model
from trainer.wording import excerpt, listed

KEY = "model.name_or_path"
ATTENTION = ("eager", "sdpa", "flex_attention")
FLASH_ATTENTION = ("flash_attention_2", "flash_attention_3")
"""Allowed if installed. Otherwise transformers would fetch the kernel from the hub."""
EXPERTS = ("eager", "batched_mm", "grouped_mm")
FORMATS = {
    "*.gguf": "GGUF",
    "*.onnx": "ONNX",
    "*.h5": "TensorFlow",
    "*.msgpack": "Flax",
    "*.nemo": "NeMo",
    "*.distcp": "a distributed torch checkpoint",
    "shard-*-model-*.safetensors": "a distributed transformers checkpoint",
    "mp_rank_*": "a DeepSpeed checkpoint",
    "global_step*": "a DeepSpeed checkpoint",
    "pytorch_model_fsdp*": "an FSDP checkpoint",
    "consolidated.*": "in its authors' own format",
    "*.pth": "a torch file",
    "*.pt": "a torch file",
    "*.ckpt": "a torch or TensorFlow file",
}
"""Formats of weights that cannot be loaded, by file pattern."""
WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Files of weights that are loaded, in transformers' order of preference."""
MERGE_ADAPTER = (
    "load it on its base, merge it with merge_and_unload, and give the folder that "
    "save_pretrained writes"
)
"""Hint for an adapter given as a model."""


def shown(name: object) -> str:
    """Returns a hub name or path for a message, shortened only if it is very long."""
    return excerpt(name, 150)


def check_origin(model: Model) -> None:
    """Raises ConfigError if model.name_or_path names a file or folder that is not a model.

    Only local paths are checked; what a hub name contains is checked when it is loaded.
    """
    if model.name_or_path is None:
        return
    path = Path(model.name_or_path)
    name = shown(model.name_or_path)
    if not model.name_or_path.strip():
        raise ConfigError(
            f"{KEY} is empty",
            key=KEY,
            value=model.name_or_path,
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
                value=model.name_or_path,
                hint="give the folder with its config.json",
            )
    except OSError as error:
        raise ConfigError(
            f"{KEY}: {name} cannot be read: {error.strerror}", key=KEY, value=model.name_or_path
        ) from error


def check_hub_adapter(name: str, revision: str | None) -> None:
    """Raises ConfigError if a hub name is an adapter: transformers would load its base instead."""
    from transformers.utils.peft_utils import find_adapter_config_file

    if Path(name).is_dir():
        return
    try:
        adapter_config = find_adapter_config_file(name, revision=revision)
    except (OSError, ValueError):  # loading the model reports it
        return
    if adapter_config is not None:
        raise ConfigError(
            f"{KEY}: {shown(name)} is a PEFT adapter", key=KEY, value=name, hint=MERGE_ADAPTER
        )


def check_config(model_config: Any, key: str) -> None:
    """Raises ConfigError for configuration values that would make transformers fetch or run code.

    `key` is the recipe key that names the configuration.
    """
    from transformers.utils import import_utils

    allowed: list[str] = [*ATTENTION]
    for name in FLASH_ATTENTION:
        available = getattr(import_utils, f"is_flash_attn_{name[-1]}_available", None)
        if available is not None and available():
            allowed.append(name)
    for part in (model_config, *_parts(model_config)):
        for name, supported in (("attn", allowed), ("experts", list(EXPERTS))):
            value = getattr(part, f"_{name}_implementation", None)
            if value is not None and value not in supported:
                raise ConfigError(
                    f"{key}: {name}_implementation {excerpt(value)!r} of its configuration is not "
                    f"one of {', '.join(supported)}, and kernels are not fetched from the hub",
                    key=key,
                    value=value,
                    hint="remove it",
                )
    for name in ("fusion_config", "kernel_config"):
        if getattr(model_config, name, None) is not None:
            raise ConfigError(
                f"{key}: its configuration has a {name}, which is not supported",
                key=key,
                value=name,
                hint="remove it, or name another model",
            )
    if hasattr(model_config, "transformers_weights"):
        raise ConfigError(
            f"{key}: its configuration names the file with its weights (transformers_weights), "
            "which is not supported",
            key=key,
            value="transformers_weights",
            hint="rename the file to model.safetensors and remove the entry",
        )


def check_quantisation(model_config: Any, mode: str) -> None:
    """Raises ConfigError if a model is stored quantised, unless `mode` quantises it alike."""
    stored = getattr(model_config, "quantization_config", None)
    if stored is None:
        return
    values = stored if isinstance(stored, dict) else getattr(stored, "__dict__", {})
    method = excerpt(values.get("quant_method", "an unknown method"))
    settings = {"qlora": "load_in_4bit", "int8_lora": "load_in_8bit"}
    alike = [
        fitting
        for fitting, setting in settings.items()
        if values.get(f"_{setting}", values.get(setting))
    ]
    if method.endswith("bitsandbytes") and mode in alike:
        return
    other_modes = "".join(f", or set tuning.mode: {fitting}" for fitting in alike)
    raise ConfigError(
        f"{KEY}: its weights are stored quantised ({method}), and tuning.mode {mode} needs the "
        "original ones",
        key=KEY,
        value=method,
        hint=f"name the model that was quantised{other_modes}",
    )


def check_weight_files(folder: Path) -> None:
    """Raises ConfigError if the index of a folder's shards is damaged or names absent files, or
    files outside the folder."""
    # transformers reads the first that exists; an index next to it is ignored.
    name = next((name for name in WEIGHTS if (folder / name).is_file()), "")
    if not name.endswith(".index.json"):
        return
    index = folder / name
    try:
        files = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        allowed = _folders_of_shards(index)
        outside = [file for file in files if not _lies_in(index.parent / file, allowed)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{KEY}: {shown(index)} is not an index of a model's files ({excerpt(error)})",
            key=KEY,
            value=str(index),
            hint="download it again",
        ) from error
    if outside:
        raise ConfigError(
            f"{KEY}: {shown(index)} names files outside its folder, which are not read: "
            f"{listed(outside, 2)}",
            key=KEY,
            value=str(index),
        )
    absent = sorted(file for file in files if not (index.parent / file).is_file())
    if absent or not files:
        problem = f"lacks {listed(absent, 3)}, {len(absent)} of its {len(files)} files"
        raise ConfigError(
            f"{KEY}: {shown(folder)} {problem if files else f'lists no files in {name}'}",
            key=KEY,
            value=str(folder),
            hint="download it again",
        )


def other_format(folder: Path) -> tuple[str, str] | None:
    """Returns what a folder's weights are if they cannot be loaded in their format, and a hint."""
    if any((folder / name).exists() for name in WEIGHTS):
        return None
    for pattern, kind in FORMATS.items():
        files = sorted(folder.glob(pattern))
        if files:
            return f"{excerpt(files[0].name)} is {kind}", "convert it with save_pretrained"
    return None


def _check_folder(folder: Path, name: str) -> None:
    """Raises ConfigError, which names the folder to give instead, unless this one is a model."""
    if (folder / "adapter_config.json").exists():
        merged = folder.parent / "model"
        if (merged / "config.json").is_file():
            raise ConfigError(
                f"{KEY}: {name} contains only adapters",
                key=KEY,
                value=str(folder),
                hint=f"give {shown(merged)}",
            )
        raise ConfigError(
            f"{KEY}: {name} is a PEFT adapter (adapter_config.json)",
            key=KEY,
            value=str(folder),
            hint=MERGE_ADAPTER,
        )
    if (folder / "config.json").exists():
        return
    run = _run_of(folder)
    if run is not None:
        kind = "a run directory" if run == folder else f"part of the run {shown(run)}"
        if (run / "model").is_dir():
            raise ConfigError(
                f"{KEY}: {name} is {kind}",
                key=KEY,
                value=str(folder),
                hint=f"give {shown(run / 'model')}",
            )
        raise ConfigError(
            f"{KEY}: {name} is {kind}, which has no model/ yet",
            key=KEY,
            value=str(folder),
            hint=f"finish its training, then give {shown(run / 'model')}",
        )
    inside = sorted(file.parent.name for file in folder.glob("*/config.json"))
    if inside:
        raise ConfigError(
            f"{KEY}: {name} has no config.json, but folders inside it have one",
            key=KEY,
            value=str(folder),
            hint=f"give {name}/ and one of {listed(inside, 4)}",
        )
    format_and_hint = other_format(folder)
    if format_and_hint is not None:
        description, hint = format_and_hint
        raise ConfigError(
            f"{KEY}: the folder {name} has no config.json: {description}",
            key=KEY,
            value=str(folder),
            hint=hint,
        )


def _run_of(folder: Path) -> Path | None:
    """Returns the run directory that a folder is or, as one of its checkpoints, belongs to."""
    folder = folder.absolute()
    for run in (folder, folder.parent, folder.parent.parent):
        if (run / "config.yaml").is_file() and (run / "checkpoints").is_dir():
            return run
    return None


def _folders_of_shards(index: Path) -> list[Path]:
    """Returns the folders that may contain the files of an index: its own, the one that it links
    to, and the blobs of a hub cache."""
    folders = [index.parent.resolve(), index.resolve().parent]
    snapshots = folders[0].parent
    if snapshots.name == "snapshots":
        folders.append(snapshots.parent / "blobs")
    return folders


def _lies_in(file: Path, folders: list[Path]) -> bool:
    return any(file.resolve().is_relative_to(folder) for folder in folders)


def _parts(model_config: Any) -> list[Any]:
    """Returns the configurations inside a configuration, such as text_config, at any depth."""
    parts = [getattr(model_config, name, None) for name in getattr(model_config, "sub_configs", {})]
    return [inner for part in parts if part is not None for inner in (part, *_parts(part))]
