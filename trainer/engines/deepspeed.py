"""DeepSpeed's configuration: filled in from the recipe, and rejected if it contradicts it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from trainer.engines.launch import asks_for_deepspeed, deepspeed_config_file
from trainer.engines.micro_batch import accumulation, resolve_micro_batch_size
from trainer.engines.topology import topology_of
from trainer.errors import ConfigError, LaunchError
from trainer.optim import OPTIMIZERS
from trainer.recipe.schema import Recipe

UNDERSTOOD = (
    *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"),
    *("gradient_clipping", "bf16", "fp16", "zero_optimization", "zero_allow_untested_optimizer"),
    *("zero_force_ds_cpu_optimizer", "steps_per_print", "wall_clock_breakdown", "comms_logger"),
    "aio",
)
"""Keys of a DeepSpeed configuration that this module fills in, or that do not change what is
learned."""
LOSS_SCALE = {"initial_scale_power": 16, "loss_scale_window": 2000, "hysteresis": 1}
"""Like torch's GradScaler: halved at an overflow, doubled after about 2,000 steps without one."""


def deepspeed_has_fp16() -> bool:
    """Returns whether the launch asks for DeepSpeed on a device that computes in fp16."""
    if not asks_for_deepspeed():
        return False
    from deepspeed.accelerator import get_accelerator

    device: Any = get_accelerator()
    return device.is_fp16_supported()


def check_deepspeed_file() -> None:
    """Raises LaunchError if the launch names a configuration that cannot be read or is not JSON."""
    file = deepspeed_config_file()
    if file is None:
        return
    try:
        json.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        raise LaunchError(
            f"the DeepSpeed configuration {file} cannot be read from {Path.cwd()}",
            key="ACCELERATE_DEEPSPEED_CONFIG_FILE",
            value=file,
            hint="start in the folder that holds it, or pass its path to --deepspeed_config_file",
        ) from error
    except ValueError as error:
        raise LaunchError(
            f"the DeepSpeed configuration {file} is not JSON: {error}",
            key="ACCELERATE_DEEPSPEED_CONFIG_FILE",
            value=file,
            hint="correct it, or use a file of ds_configs/",
        ) from error


def check_compiler() -> None:
    """Raises LaunchError if C++ compiler or ninja are missing, with which DeepSpeed compiles."""
    from torch.utils.cpp_extension import get_cxx_compiler, is_ninja_available

    compiler = get_cxx_compiler()
    if shutil.which(compiler.split()[0]) is None or not is_ninja_available():
        raise LaunchError(
            f"DeepSpeed compiles an extension here and needs {compiler} and ninja",
            key="CXX",
            value=compiler,
            hint="install a C++ compiler and `pip install ninja`",
        )


def fill_in_deepspeed(accelerator: Accelerator, recipe: Recipe) -> None:
    """Fills in what the recipe decides in DeepSpeed's configuration, except for the batch.

    Raises LaunchError if the configuration contradicts the recipe, and ConfigError for a recipe
    that DeepSpeed cannot train. Whether it states the sizes of a step is also checked here, unless
    they follow from a plan for the GPU.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    plugin: Any = accelerator.deepspeed_plugin
    settings: dict[str, Any] = plugin.deepspeed_config
    zero = settings.get("zero_optimization", {})
    _check_understood(settings, zero)
    _fill_in_nvme(zero)
    check_zero_trains(recipe)
    _set(settings, "gradient_clipping", recipe.optimizer.max_grad_norm or 0.0)
    if zero["stage"] > 1:  # ZeRO-1 accumulates in the type in which it computes
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    settings["fp16"] = {**settings.get("fp16", {}), **LOSS_SCALE}
    settings["zero_force_ds_cpu_optimizer"] = False  # the recipe's optimizer, even if it is slower
    batch, num_ranks = recipe.batch, topology_of(accelerator).dp_size
    if batch.micro_batch_size != "auto" or not torch.cuda.is_available():
        size = resolve_micro_batch_size(batch.global_batch_size, batch.micro_batch_size, num_ranks)
        for key, value in _batch_settings(recipe, size, num_ranks).items():
            _check_stated(settings, key, value)
    # Build models whole and shard them afterwards. If they were sharded while they are built,
    # random weights and 4-bit weights would differ from those of a single process.
    unset_hf_deepspeed_config()


def check_zero_trains(recipe: Recipe) -> None:
    """Raises ConfigError for a recipe that ZeRO cannot train."""
    if not OPTIMIZERS[recipe.optimizer.name].elementwise:
        raise ConfigError(
            f"optimizer.name: {recipe.optimizer.name} cannot be saved by name from ZeRO's shards",
            key="optimizer.name",
            value=recipe.optimizer.name,
            hint="use adamw, whose moments ZeRO shards",
        )


def fill_in_batch(accelerator: Accelerator, recipe: Recipe, micro_batch_size: int) -> None:
    """Fills in the sizes of a step in DeepSpeed's configuration.

    Raises LaunchError if the configuration states other ones.
    """
    plugin: Any = accelerator.deepspeed_plugin
    settings: dict[str, Any] = plugin.deepspeed_config
    decided = _batch_settings(recipe, micro_batch_size, topology_of(accelerator).dp_size)
    for key, value in decided.items():
        _set(settings, key, value)
    accelerator.gradient_accumulation_steps = decided["gradient_accumulation_steps"]


def _batch_settings(recipe: Recipe, micro_batch_size: int, num_ranks: int) -> dict[str, int]:
    return {
        "train_batch_size": recipe.batch.global_batch_size,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation(recipe, micro_batch_size, num_ranks),
    }


def _set(settings: dict[str, Any], key: str, value: float) -> None:
    """Sets a value; raises LaunchError if the configuration states another one."""
    _check_stated(settings, key, value)
    settings[key] = value


def _check_stated(settings: dict[str, Any], key: str, value: float) -> None:
    """Raises LaunchError if the configuration states another value than that of the run."""
    written = settings.get(key, "auto")
    if written not in ("auto", value):
        raise LaunchError(
            f"{key} is {written} in the DeepSpeed configuration and {value} in this run",
            key=key,
            value=written,
            hint='write "auto" there',
        )


def _check_understood(settings: dict[str, Any], zero: dict[str, Any]) -> None:
    """Raises LaunchError for keys that may change what is learned, and without a stage of ZeRO."""
    unknown = {key: value for key, value in settings.items() if key not in UNDERSTOOD}
    unknown |= {key: value for key, value in zero.items() if key.startswith("zero_quantized")}
    for name in ("bf16", "fp16"):
        scaling: dict[str, Any] = settings.get(name, {})
        unknown |= {key: value for key, value in scaling.items() if key != "enabled"}
    if unknown:
        key, value = next(iter(unknown.items()))
        raise LaunchError(
            f"{key} in the DeepSpeed configuration may change what is learned",
            key=key,
            value=value,
            hint="remove it",
        )
    stage = zero.get("stage", 0)
    if stage not in (1, 2, 3):
        raise LaunchError(
            "DeepSpeed without ZeRO shards nothing",
            key="zero_optimization.stage",
            value=stage,
            hint="use accelerate_configs/ddp.yaml",
        )


def _fill_in_nvme(zero: dict[str, Any]) -> None:
    """Fills in the folder of shards that are offloaded to a disk: TRAINER_NVME_PATH.

    Raises LaunchError if it is not a writable folder, or if libaio is missing.
    """
    offloads = [zero.get(key, {}) for key in ("offload_optimizer", "offload_param")]
    offloads = [offload for offload in offloads if offload.get("device") == "nvme"]
    if not offloads:
        return
    folder = os.environ.get("TRAINER_NVME_PATH", "")
    if not (folder and os.access(folder, os.W_OK) and Path(folder).is_dir()):
        raise LaunchError(
            f"TRAINER_NVME_PATH={folder!r} is not a writable folder",
            key="TRAINER_NVME_PATH",
            value=folder,
            hint="name one on a local NVMe disk of each machine, or offload to cpu",
        )
    check_compiler()
    from deepspeed.accelerator import get_accelerator

    device: Any = get_accelerator()
    if not device.create_op_builder("AsyncIOBuilder").is_compatible(verbose=False):
        raise LaunchError(
            "offload to NVMe needs libaio",
            key="offload_optimizer.device",
            value="nvme",
            hint="install libaio-dev, or offload to cpu",
        )
    for offload in offloads:
        offload["nvme_path"] = folder
