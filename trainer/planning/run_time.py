"""The time of an optimizer step of a run: of examples of mean length, on a GPU."""

from trainer.planning.collectives import volume_of
from trainer.planning.gpus import Gpu
from trainer.planning.memories import Memories
from trainer.planning.step_time import StepTime, bytes_of_update, kind_of, step_time
from trainer.planning.trace.model import num_layers


def time_of_step(
    memories: Memories, gpu: Gpu, size: int, num_micro_batches: int
) -> StepTime | None:
    """Returns the time of a step of examples of mean length."""
    recipe, launch, lengths = memories.recipe, memories.launch, memories.lengths
    padded = lengths.padded_tokens_per_epoch(size, launch.processes)
    mean = lengths.longest
    if padded is not None and lengths.num_examples:
        mean = max(1, round(padded / lengths.num_examples))
    planned = memories.of(size, mean)
    rank = planned.engine.rank
    return step_time(
        flops=planned.flops * num_micro_batches,
        kernels=planned.kernels * num_micro_batches,
        tokens=recipe.batch.global_batch_size * lengths.mean,
        accumulation=num_micro_batches,
        updated_bytes=bytes_of_update(rank.gradients + rank.masters + rank.moments),
        volume=volume_of(launch.engine, planned.parameters, memories.precision),
        num_layers=num_layers(memories.numbers),
        launch=launch,
        gpu=gpu,
        precision=memories.precision,
        kind=kind_of(recipe.tuning.mode, memories.precision),
        width=getattr(memories.numbers.get_text_config(), "hidden_size", 0),
    )
