"""The launch of this process as a plan describes it."""

from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType

from trainer.distributed.environment_variables import whole_number
from trainer.planning.launches import PlannedLaunch, zero_settings


def running_launch(accelerator: Accelerator) -> PlannedLaunch:
    """Returns the launch of the ranks that run now, with the sizes that their engine uses."""
    processes = accelerator.num_processes
    node_size = max(1, whole_number("LOCAL_WORLD_SIZE", processes))
    settings: dict[str, Any] = {"engine": "ddp" if processes > 1 else "none"}
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        plugin: Any = accelerator.deepspeed_plugin
        settings = zero_settings(plugin.deepspeed_config["zero_optimization"])
    elif accelerator.distributed_type == DistributedType.FSDP:
        mesh: Any = getattr(accelerator, "parallelism_config", None)
        replicas = getattr(mesh, "dp_replicate_size", 1) or 1
        plugin: Any = accelerator.state.fsdp_plugin
        resharding = bool(plugin.reshard_after_forward)
        settings = {"engine": "fsdp2", "replicas": replicas, "resharding": resharding}
    return PlannedLaunch(processes=processes, nodes=-(-processes // node_size), **settings)
