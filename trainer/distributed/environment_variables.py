"""Environment variables that launchers and users set, validated before libraries read them."""

import os
import re

from trainer.errors import LaunchError, TrainerError
from trainer.wording import excerpt

LARGEST = 10**6
WHOLE_NUMBERS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), (1, LARGEST)),
    **dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK"), (0, LARGEST)),
    **dict.fromkeys(("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS"), (0, LARGEST)),
    "MASTER_PORT": (1, 65535),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (1, LARGEST),
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": (0, 3),
    "FSDP_VERSION": (1, 2),
    **{
        f"PARALLELISM_CONFIG_{name}_SIZE": (1, LARGEST)
        for name in ("DP_REPLICATE", "DP_SHARD", "TP", "CP", "SP")
    },
    **{
        f"{kind}_{what}": (least, LARGEST)
        for kind in ("PMI", "OMPI_COMM_WORLD", "MV2_COMM_WORLD")
        for what, least in (("SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
    },
}
"""The smallest and the largest value of each."""
SECONDS = {
    "TRAINER_MEETING_SECONDS": "10 minutes",
    "TRAINER_STEP_TIMEOUT_SECONDS": "30 minutes",
}
"""How long ranks wait by default; see trainer.distributed.timeouts."""
MOST_SECONDS = 365 * 24 * 3600
TRUTHS = {
    f"ACCELERATE_{name}"
    for name in "USE_CPU USE_DEEPSPEED USE_FSDP USE_MEGATRON_LM DEBUG_MODE USE_MPS_DEVICE".split()
}
TRUTH_VALUES = ("", "0", "1", "true", "false", "yes", "no", "on", "off", "y", "n", "t", "f")
_LIBRARIES = (
    *("ACCELERATE_", "BNB_", "CUDA_", "DATASETS_", "DEEPSPEED_", "DS_", "FSDP_", "GLOO_", "HF_"),
    *("HUGGINGFACE_", "MKL_", "MLFLOW_", "NCCL_", "OMP_", "PARALLELISM_", "PET_", "PYTORCH_"),
    *("SAFETENSORS_", "TENSORBOARD_", "TOKENIZERS_", "TORCH", "TQDM_", "TRANSFORMERS_", "TRITON_"),
    *("WANDB_", "XLA_"),
)
"""Prefixes of variables that libraries read."""


def whole_number(name: str, default: int) -> int:
    """Returns the integer in a variable, or `default` if it is not set.

    Raises LaunchError for other text, or an integer outside the range of the variable.
    """
    value = os.environ.get(name)
    if value is None:
        return default
    least, most = WHOLE_NUMBERS[name]
    # Unlike C, Python also reads digits of other scripts, blanks and underscores.
    if not re.fullmatch(r"-?[0-9]{1,18}", value) or not least <= int(value) <= most:
        raise LaunchError(
            f"{name}={shown(value)} is not a whole number from {least} to {most}",
            key=name,
            value=value,
            hint="unset it, or have the launcher set it",
        )
    return int(value)


def check_variables() -> None:
    """Raises LaunchError for a variable whose value is not a number, or impossible.

    Valid numbers are normalised, as libraries in C read them.
    """
    for name in WHOLE_NUMBERS:
        if name not in os.environ:
            continue
        try:
            os.environ[name] = str(whole_number(name, 0))
        except LaunchError:
            os.environ.pop(name)  # with an impossible rank, this process would print nothing
            raise
    for name in SECONDS:
        seconds(name)
    for name in TRUTHS:
        value = os.environ.get(name, "")
        if value.lower() not in TRUTH_VALUES:
            raise LaunchError(
                f"{name}={shown(value)} is neither true nor false",
                key=name,
                value=value,
                hint="unset it",
            )
    for name in (*TRUTHS, "ACCELERATE_TORCH_DEVICE", "ACCELERATE_DYNAMO_BACKEND"):
        if os.environ.get(name, "set").strip() == "":
            del os.environ[name]
    size = whole_number("WORLD_SIZE", 1)
    num_local = min(whole_number("LOCAL_WORLD_SIZE", size), size)
    for name, number in (("RANK", size), ("LOCAL_RANK", num_local)):
        if whole_number(name, 0) >= number:
            value = os.environ.pop(name)
            raise LaunchError(
                f"{name}={value} must be less than {number}, as WORLD_SIZE={size} and "
                f"LOCAL_WORLD_SIZE={num_local} say",
                key=name,
                value=value,
                hint="unset it, or have the launcher set it",
            )

    if size == 1 and "MASTER_ADDR" not in os.environ:
        os.environ.pop("LOCAL_RANK", None)  # with it Accelerate would look for other processes


def seconds(name: str) -> float | None:
    """Returns the seconds that a variable holds, or None if it is not set.

    Raises LaunchError if the value is not a positive duration.
    """
    value = os.environ.get(name)
    if value is None:
        return None
    # float() also accepts digits of other scripts, nan, and more than libraries count to.
    number = float(value) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) else 0
    if not 0 < number <= MOST_SECONDS:
        raise LaunchError(
            f"{name}={shown(value)} is not a number of seconds above 0 and up to {MOST_SECONDS}",
            key=name,
            value=value,
            hint=f"unset it for {SECONDS[name]}",
        )
    return number


def shown(value: str) -> str:
    """Returns a value for a message, quoted if part of it would be invisible."""
    is_visible = value != "" and value.isprintable() and value == value.strip()
    return excerpt(value if is_visible else repr(value))


def num_ranks() -> int:
    """Returns the number of processes of the launch; 1 if WORLD_SIZE is not set, or invalid."""
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if re.fullmatch("[1-9][0-9]{0,6}", size) else 1


def is_main() -> bool:
    """Returns whether this is the main process: rank 0, or a process without a valid rank."""
    return re.fullmatch("[1-9][0-9]*", os.environ.get("RANK", "0")) is None


def is_local_main() -> bool:
    """Returns whether this process prints errors: one of each machine does."""
    return re.fullmatch("[1-9][0-9]*", os.environ.get("LOCAL_RANK", "0")) is None


def launched_by_accelerate() -> bool:
    """Returns whether `accelerate launch` started this process."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ


def value_error(error: BaseException) -> TrainerError | None:
    """Returns the error for a variable that a library could not parse, or None for other errors.

    Libraries read variables when they are imported, and their messages name only the value.
    """
    if not isinstance(error, ValueError | TypeError | KeyError | RuntimeError):
        return None
    text = str(error).lower()
    parsing = re.search(r"invalid literal|could not convert|truth value|not a valid", text)
    for name, value in sorted(os.environ.items()):
        lower = value.lower()
        is_named = bool(lower.strip()) and (f"'{lower}'" in text or text.endswith(f" {lower}"))
        if not parsing and re.fullmatch(r"[-+.0-9]*|.{1,2}", lower):
            continue  # many messages contain numbers
        if name.startswith(_LIBRARIES) and is_named:
            return LaunchError(
                f"{name}={shown(value)} is not understood ({excerpt(error)})",
                key=name,
                value=value,
                hint="unset it",
            )
    return None
