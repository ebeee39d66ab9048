"""The launch that a plan assumes: engine, processes, offload, read from Accelerate's YAML."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.errors import ConfigError
from trainer.planning.launch_files import CONFIG, read_deepspeed, read_launch, whole
from trainer.wording import excerpt

Engine = Literal["none", "ddp", "zero1", "zero2", "zero3", "hpz", "fsdp2"]
"""hpz is ZeRO-3 with a second copy of the weights in each node: `zero_hpz_partition_size`."""
SHARDED = ("zero1", "zero2", "zero3", "hpz", "fsdp2")
"""Engines that shard states."""
GATHERING = ("zero3", "hpz", "fsdp2")
"""Engines that shard weights, too, and gather them where they are read."""
Offload = Literal["none", "cpu", "nvme"]

BUCKET = 500_000_000
"""Gradients that ZeRO-1 and 2 reduce at once: DeepSpeed's default `reduce_bucket_size`."""
SUB_GROUP = 1_000_000_000
"""Weights that ZeRO-3 updates at once: DeepSpeed's default `sub_group_size`."""
LIVE = 1_000_000_000
"""Whole weights that ZeRO-3 keeps: `stage3_max_live_parameters` and `stage3_max_reuse_distance`."""
REFUSED_BY_FSDP = {
    "fsdp_offload_params": "use zero3-offload.yaml",
    "fsdp_activation_checkpointing": "set model.gradient_checkpointing in the recipe",
}


@dataclass(frozen=True, kw_only=True)
class PlannedLaunch:
    """Processes are those of all nodes, one for each GPU. Sizes count weights, not bytes."""

    engine: Engine = "none"
    processes: int = 1
    nodes: int = 1
    offload_optimizer: Offload = "none"
    offload_parameters: Offload = "none"
    bucket: int | None = None
    """`reduce_bucket_size`; None under ZeRO-3 if it follows from the model's width."""
    live: int = LIVE
    sub_group: int = SUB_GROUP
    persistence: int | None = None
    """Size below which ZeRO-3 keeps a weight whole: `stage3_param_persistence_threshold`; None if
    it follows from the model's width."""
    overlapping: bool = False
    """`overlap_comm` of ZeRO-2, with a second bucket."""
    second_copy: int = 0
    """Processes that share the second copy of hpz."""
    replicas: int = 1
    """Groups of FSDP2's hybrid mesh, each of which holds all shards."""
    resharding: bool = True
    """Whether FSDP2 gives gathered layers back after the forward: `fsdp_reshard_after_forward`."""

    @property
    def node_size(self) -> int:
        """Returns the number of processes on a node, the most of any."""
        return -(-self.processes // self.nodes)

    @property
    def shards(self) -> int:
        """Returns over how many processes states are sharded."""
        if self.engine in ("none", "ddp"):
            return 1
        return self.processes // self.replicas


def planned_launch(
    config: Path | None, processes: int | None = None, nodes: int | None = None
) -> PlannedLaunch:
    """Returns the launch of an Accelerate YAML, with other processes and nodes if given.

    Without a YAML: one process, or DDP for several. As with `accelerate launch`, the DeepSpeed JSON
    that the YAML names is looked up from the working directory, then beside the YAML's folder. A
    hybrid mesh keeps a replica on each node. Raises ConfigError if a file cannot be read or asks
    for what the trainer refuses.
    """
    values = read_launch(config) if config is not None else {}
    stated = whole(values, "num_processes", 1)
    num_nodes = nodes or whole(values, "num_machines", 1)
    num_processes = processes or max(stated, num_nodes)
    if num_processes % num_nodes:
        raise ConfigError(
            f"--processes: {num_processes} cannot be spread evenly over {num_nodes} nodes",
            key="--processes",
            value=num_processes,
            hint="count the GPUs of all nodes",
        )
    kind = str(values.get("distributed_type", "NO")).upper()
    settings: dict[str, Any] = {}
    if kind == "DEEPSPEED":
        assert config is not None
        settings = _deepspeed_settings(config, values)
    elif kind == "FSDP":
        settings = {
            "engine": "fsdp2",
            "replicas": _replicas(values, num_processes, num_nodes),
            "resharding": _reshards(values),
        }
    elif kind in ("NO", "MULTI_GPU", "MULTI_CPU"):
        settings = {"engine": "ddp" if num_processes > 1 else "none"}
    else:
        raise ConfigError(
            f"{CONFIG}: distributed_type {excerpt(kind)} is not supported",
            key="distributed_type",
            value=kind,
            hint="use a file of accelerate_configs/",
        )
    launch = PlannedLaunch(processes=num_processes, nodes=num_nodes, **settings)
    if launch.second_copy and num_processes % launch.second_copy:
        raise ConfigError(
            f"zero_hpz_partition_size: {launch.second_copy} does not divide "
            f"{num_processes} processes",
            key="zero_hpz_partition_size",
            value=launch.second_copy,
            hint="use the number of GPUs of a node",
        )
    return launch


def _deepspeed_settings(config: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of PlannedLaunch that a DeepSpeed JSON decides."""
    section = values.get("deepspeed_config")
    named: Any = section.get("deepspeed_config_file") if isinstance(section, dict) else None
    if not isinstance(named, str):
        raise ConfigError(
            f"{CONFIG}: {excerpt(config)} names no deepspeed_config_file",
            key="deepspeed_config_file",
            value=named,
            hint="use a file of accelerate_configs/",
        )
    beside = config.resolve().parent.parent / named
    file = Path(named) if Path(named).is_file() else beside
    return zero_settings(read_deepspeed(file, named))


def zero_settings(zero: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of PlannedLaunch that the section zero_optimization decides.

    Raises ConfigError for a stage or a device that DeepSpeed does not know.
    """
    stage = zero.get("stage")
    if type(stage) is not int or stage not in (1, 2, 3):
        raise ConfigError(
            f"zero_optimization.stage: {excerpt(repr(stage))} is none of 1, 2 and 3",
            key="zero_optimization.stage",
            value=stage,
            hint="use accelerate_configs/ddp.yaml to shard nothing",
        )
    second = whole(zero, "zero_hpz_partition_size", 1)
    return {
        "engine": "hpz" if stage == 3 and second > 1 else f"zero{stage}",
        "offload_optimizer": _offload(zero, "offload_optimizer"),
        "offload_parameters": _offload(zero, "offload_param") if stage == 3 else "none",
        "bucket": _auto(zero, "reduce_bucket_size", BUCKET),
        "live": min(
            whole(zero, "stage3_max_live_parameters", LIVE, least=0),
            whole(zero, "stage3_max_reuse_distance", LIVE, least=0),
        ),
        "sub_group": whole(zero, "sub_group_size", SUB_GROUP),
        "persistence": _auto(zero, "stage3_param_persistence_threshold", 100_000, least=0),
        "overlapping": stage == 2 and zero.get("overlap_comm") is True,
        "second_copy": second if stage == 3 and second > 1 else 0,
    }


def _auto(zero: Mapping[str, Any], key: str, default: int, least: int = 1) -> int | None:
    """Returns a size, or None if it is "auto"."""
    return None if zero.get(key) == "auto" else whole(zero, key, default, least)


def _offload(zero: Mapping[str, Any], key: str) -> Offload:
    section = zero.get(key)
    device: Any = section.get("device", "none") if isinstance(section, dict) else "none"
    if device not in ("none", "cpu", "nvme"):
        raise ConfigError(
            f"{key}.device: {excerpt(device)} is not known",
            key=f"{key}.device",
            value=device,
            hint="use cpu or nvme",
        )
    return device


def _replicas(values: Mapping[str, Any], processes: int, nodes: int) -> int:
    mesh = values.get("parallelism_config")
    stated = whole(mesh, "parallelism_config_dp_replicate_size", 1) if mesh else 1
    if stated == 1:
        return 1
    replicas = nodes if nodes > 1 else stated
    if processes % replicas:
        raise ConfigError(
            f"--processes: {replicas} replicas do not divide {processes} processes",
            key="parallelism_config_dp_replicate_size",
            value=replicas,
            hint=f"use a multiple of {replicas}",
        )
    return replicas


def _reshards(values: Mapping[str, Any]) -> bool:
    """Returns whether FSDP2 reshards after the forward; raises ConfigError for what the trainer
    refuses under FSDP."""
    section: Any = values.get("fsdp_config")
    settings: dict[str, Any] = section if isinstance(section, dict) else {}
    if str(settings.get("fsdp_version", 1)) != "2":
        raise ConfigError(
            "fsdp_version: only the second version of FSDP is supported",
            key="fsdp_version",
            value=settings.get("fsdp_version", 1),
            hint="set fsdp_version: 2",
        )
    for key, hint in REFUSED_BY_FSDP.items():
        if str(settings.get(key, False)).lower() in ("true", "1"):
            raise ConfigError(
                f"{key}: this is not supported", key=key, value=settings[key], hint=hint
            )
    return str(settings.get("fsdp_reshard_after_forward", True)).lower() != "false"
