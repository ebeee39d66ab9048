"""DeepSpeed's configuration: what the recipe owns is filled in, what it does not say refused."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from trainer.engines.micro_batch import accumulation, resolve_micro_batch_size
from trainer.engines.topology import topology_of
from trainer.errors import ConfigError, LaunchError
from trainer.recipe.schema import Recipe

UNDERSTOOD = (
    *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"),
    *("gradient_clipping", "bf16", "fp16", "zero_optimization", "zero_allow_untested_optimizer"),
    *(
        "zero_force_ds_cpu_optimizer",
        "steps_per_print",
        "wall_clock_breakdown",
        "comms_logger",
        "aio",
    ),
)
"""Keys of a DeepSpeed configuration that are filled in here, or change nothing that is learned."""
LOSS_SCALE = {"initial_scale_power": 16, "loss_scale_window": 2000, "hysteresis": 1}
"""As torch's GradScaler has it: half at an overflow, twice after about 2,000 steps without one."""


def deepspeed_has_fp16() -> bool:
    """Returns whether DeepSpeed was launched, on what it can compute on in fp16."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return False
    from deepspeed.accelerator import get_accelerator

    device: Any = get_accelerator()
    return device.is_fp16_supported()


def check_deepspeed_file() -> None:
    """Raises LaunchError where the configuration that the launch names is not there or no JSON."""
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if file is None:
        return
    try:
        json.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        raise LaunchError(
            f"the DeepSpeed configuration {file} cannot be read from {Path.cwd()}; start where it "
            f"is, or name it by --deepspeed_config_file"
        ) from error
    except ValueError as error:
        raise LaunchError(f"the DeepSpeed configuration {file} is no JSON: {error}") from error


def check_compiler() -> None:
    """Raises LaunchError where DeepSpeed has to compile an extension and there is no compiler."""
    from torch.utils.cpp_extension import get_cxx_compiler, is_ninja_available

    if shutil.which(get_cxx_compiler().split()[0]) is None or not is_ninja_available():
        raise LaunchError(
            f"DeepSpeed compiles an extension here and needs {get_cxx_compiler()} and ninja; "
            f"install a C++ compiler and `pip install ninja`"
        )


def fill_in_deepspeed(accelerator: Accelerator, recipe: Recipe) -> None:
    """Writes into DeepSpeed's configuration what the recipe owns.

    Raises LaunchError where it says something else, and ConfigError for a recipe that this engine
    cannot train.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    plugin: Any = accelerator.deepspeed_plugin
    given: dict[str, Any] = plugin.deepspeed_config
    sharding = given.get("zero_optimization", {})
    unknown = [key for key in given if key not in UNDERSTOOD]
    unknown += [key for key in sharding if key.startswith("zero_quantized")]
    scaling = [key for name in ("bf16", "fp16") for key in given.get(name, {})]
    unknown += [key for key in scaling if key != "enabled"]
    if unknown:
        raise LaunchError(
            f"{unknown[0]} in the DeepSpeed configuration may change what is learned; remove it"
        )
    if sharding.get("stage", 0) not in (1, 2, 3):
        raise LaunchError("DeepSpeed without ZeRO shards nothing; use accelerate_configs/ddp.yaml")
    _fill_in_nvme(sharding)
    if "8bit" in recipe.optimizer.name:
        raise ConfigError(
            f"optimizer.name: {recipe.optimizer.name} cannot be saved by name from ZeRO's shards; "
            f"use adamw, whose moments ZeRO shards"
        )
    batch, processes = recipe.batch, topology_of(accelerator).dp_size
    size = resolve_micro_batch_size(batch.global_batch_size, batch.micro_batch_size, processes)
    owned = {
        "train_batch_size": batch.global_batch_size,
        "train_micro_batch_size_per_gpu": size,
        "gradient_accumulation_steps": accumulation(recipe, size, processes),
        "gradient_clipping": recipe.optimizer.max_grad_norm or 0.0,
    }
    for key, value in owned.items():
        said = given.get(key, "auto")
        if said not in ("auto", value):
            raise LaunchError(
                f"{key} is {said} in the DeepSpeed configuration and {value} by the recipe; write "
                f'"auto" there'
            )
        given[key] = value
    if sharding["stage"] > 1:  # ZeRO-1 adds up in the type in which it computes
        given["data_types"] = {"grad_accum_dtype": "fp32"}
    given["fp16"] = {**given.get("fp16", {}), **LOSS_SCALE}
    given["zero_force_ds_cpu_optimizer"] = False  # the recipe's optimizer, also where it is slower
    accelerator.gradient_accumulation_steps = owned["gradient_accumulation_steps"]
    # Models are made whole and sharded afterwards: sharded at once, random weights and those of
    # 4-bit models would be others than on one process.
    unset_hf_deepspeed_config()


def _fill_in_nvme(sharding: dict[str, Any]) -> None:
    """Writes where offloaded shards lie: TRAINER_NVME_PATH, a folder on a disk of each machine."""
    offloads = [sharding.get(key, {}) for key in ("offload_optimizer", "offload_param")]
    offloads = [one for one in offloads if one.get("device") == "nvme"]
    if not offloads:
        return
    folder = os.environ.get("TRAINER_NVME_PATH", "")
    if not (folder and os.access(folder, os.W_OK) and Path(folder).is_dir()):
        raise LaunchError(
            f"TRAINER_NVME_PATH={folder!r} is no folder that can be written; name one on a local "
            f"NVMe disk of each machine, or offload to cpu"
        )
    check_compiler()
    from deepspeed.accelerator import get_accelerator

    device: Any = get_accelerator()
    if not device.create_op_builder("AsyncIOBuilder").is_compatible(verbose=False):
        raise LaunchError("offload to NVMe needs libaio; install libaio-dev, or offload to cpu")
    for one in offloads:
        one["nvme_path"] = folder
