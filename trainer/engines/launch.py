"""The engine that the launch asks for, by the environment variables of `accelerate launch`."""

import os

from trainer.distributed.environment_variables import whole_number

DATA_MESHES = ("dp_replicate", "dp_shard")
"""Meshes of ranks that split the examples of a step."""
MODEL_MESHES = ("tp", "cp", "sp")
"""Meshes of ranks that split layers or sequences of the same examples."""


def asks_for_deepspeed() -> bool:
    return _is_true("ACCELERATE_USE_DEEPSPEED")


def asks_for_fsdp() -> bool:
    return _is_true("ACCELERATE_USE_FSDP")


def deepspeed_config_file() -> str | None:
    """Returns the path of the DeepSpeed configuration, or None if the launch names none."""
    return os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")


def mesh_variable(mesh: str) -> str:
    """Returns the name of the environment variable with the size of a mesh."""
    return f"PARALLELISM_CONFIG_{mesh.upper()}_SIZE"


def mesh_size(mesh: str) -> int:
    """Returns the number of ranks in a mesh, by default 1; raises LaunchError if it is invalid."""
    return whole_number(mesh_variable(mesh), 1)


def _is_true(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"
