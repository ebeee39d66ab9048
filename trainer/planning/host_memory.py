"""The memory of the machine that a run takes: libraries, loading, offload, saving and export."""

from dataclasses import dataclass
from typing import Any

from torch.backends import cuda

from trainer.checkpoints.disk_space import CheckpointSize
from trainer.checkpoints.shards import SHARD_BYTES
from trainer.models.load import QUANTISED
from trainer.planning.launches import PlannedLaunch
from trainer.recipe.schema import Recipe
from trainer.recipe.tuning import ADAPTER_MODES

LIBRARIES = 560 * 2**20
"""Of a process that has imported torch, transformers, datasets, peft and DeepSpeed, and opened its
data: measured with torch 2.13 for CPUs, 530 to 590 MiB. About 140 MiB of it are files that the
processes of a machine share."""
CUDA_LIBRARIES = 2**30
"""Of a process that uses a GPU, in addition: an estimate, for CUDA's libraries and pinned
buffers."""
CUDA_BUILD = 400 * 2**20
"""Of a process on a CPU whose torch is built for CUDA, in addition: measured with torch 2.11 and
2.14, 310 to 490 MiB. With a GPU it is part of `CUDA_LIBRARIES`."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The sizes of a model that decide how much memory a run takes."""

    num_weights: int
    """Weights, however they are stored."""
    largest: int
    """Weights of the largest tensor."""
    itemsize: int
    """Bytes of a weight in the precision of the run."""
    stored: int
    """Bytes of all weights on the device, packed ones included."""


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """Bytes of resident memory. Data is mapped from files, and counts as little as page cache."""

    libraries: int
    """Of a process before it loads a model."""
    loading: int
    """What the main process holds of the model while it loads, at most."""
    loading_others: int
    """The same of every other process."""
    training: int
    """What a process holds in training: everything on a CPU, what is offloaded from a GPU."""
    saving: int
    """What a process holds while it saves a checkpoint."""
    exporting: int
    """What the main process holds while it exports the model at the end."""
    processes: int
    """Processes of a machine."""
    notes: tuple[str, ...]
    """What is estimated or left out, a sentence each."""

    @property
    def process(self) -> int:
        """Peak of the main process, which takes most."""
        return self.libraries + max(self.loading, self.training, self.saving, self.exporting)

    @property
    def machine(self) -> int:
        """Peak of all processes of a machine."""
        ranks = self.processes
        alike = max(self.training, self.saving) * ranks
        loading = self.loading + self.loading_others * (ranks - 1)
        exporting = self.exporting + self.training * (ranks - 1)
        return self.libraries * ranks + max(alike, loading, exporting)

    def as_dict(self) -> dict[str, Any]:
        values = {**vars(self), "notes": list(self.notes)}
        return {"process": self.process, "machine": self.machine, **values}


def planned_host_memory(
    recipe: Recipe,
    launch: PlannedLaunch,
    model: Model,
    checkpoint: CheckpointSize,
    *,
    offloaded: int,
    device_bytes: int | None = None,
) -> HostMemory:
    """Returns the memory of a machine that a run takes.

    `offloaded` is what the engine holds on the host for each process. `device_bytes` is the planned
    peak of weights, gradients, moments and activations of a process if it trains on a CPU; None if
    it trains on a GPU.
    """
    on_gpu, mode = device_bytes is None, recipe.tuning.mode
    whole = 4 if mode == "full" else model.itemsize
    loading = _loading(recipe, model, on_gpu=on_gpu)
    from_main = launch.engine in ("zero3", "hpz") and mode not in QUANTISED
    resting = 0 if on_gpu else (model.stored + checkpoint.moments) // launch.shards
    # The merged copy of adapters is made on the CPU; so is the file's copy of weights on a GPU.
    copied = whole * model.num_weights if on_gpu or mode in ADAPTER_MODES else 0
    notes = ["verifying the export takes the model once more, and is left out if it does not fit"]
    if on_gpu:
        notes.append(f"the {CUDA_LIBRARIES // 2**30} GiB of each process for CUDA is an estimate")
    if "nvme" in (launch.offload_optimizer, launch.offload_parameters):
        notes.append("DeepSpeed's buffers for weights on the NVMe disk are not counted")
    return HostMemory(
        libraries=LIBRARIES + (CUDA_LIBRARIES if on_gpu else CUDA_BUILD * cuda.is_built()),
        loading=loading,
        loading_others=0 if from_main else loading,
        training=offloaded if device_bytes is None else device_bytes,
        saving=resting + offloaded + _saving(recipe, launch, checkpoint, on_gpu=on_gpu),
        exporting=resting + offloaded + copied,
        processes=launch.node_size,
        notes=tuple(notes),
    )


def _loading(recipe: Recipe, model: Model, *, on_gpu: bool) -> int:
    """Returns what loading holds of the model; random weights are drawn in fp32."""
    mode = recipe.tuning.mode
    drawn = 4 * model.num_weights if recipe.model.initialization == "random" else 0
    if mode not in QUANTISED:
        return max(drawn, (4 if mode == "full" else model.itemsize) * model.num_weights)
    # A tensor at a time is read, quantised and moved.
    one = model.itemsize * model.largest
    return drawn + one + (0 if on_gpu else model.stored)


def _saving(
    recipe: Recipe, launch: PlannedLaunch, checkpoint: CheckpointSize, *, on_gpu: bool
) -> int:
    """Returns the copies that a process makes while it saves: of everything that it writes, or of
    two files at a time; none of what lies whole in the memory of the machine."""
    if recipe.checkpoint.in_background:
        return checkpoint.total // launch.processes
    if not on_gpu and launch.shards == 1:
        return 0
    return min(2 * SHARD_BYTES, checkpoint.total)
