"""Stage 6: the longest sequence of the Llama-3.1-8B shape that QLoRA trains under 16 GiB.

One sequence a step, gradient checkpointing, bf16, adapters on every linear layer, AdamW in fp32.
Torch's allocator is capped; the CUDA context, about 0.5 GiB, comes on top.
"""

import dataclasses
import gc
import time
from typing import Any

import torch
from causal_runs import build, free_memory, peak_bytes, recipe_values
from shapes import llama_8b
from stage import Stage
from torch import nn

CAP = 16 * 2**30
TITLE = "the longest sequence under 16 GiB"
GRAIN = 256
"""All tried lengths are multiples of it."""
SHORTEST, LONGEST = 2048, 65_536
SECONDS = 50
"""No further length is tried after this time."""


def main() -> None:
    begun = time.monotonic()
    stage = Stage.from_arguments()
    with stage.guarded(TITLE):
        run, accelerator = build_large_run(stage)
        stage.figure("seconds_to_build", time.monotonic() - begun)
        grain, shortest, longest = (16, 32, 64) if stage.tiny else (GRAIN, SHORTEST, LONGEST)
        try_length(stage, run, accelerator, grain)  # allocates the moments
        trained, refused = 0, None
        length = shortest
        while length is not None and time.monotonic() - begun < SECONDS + 200 * stage.tiny:
            if try_length(stage, run, accelerator, length):
                trained = length
            else:
                refused = length
            stage.figure("headline", {"longest_sequence": trained, "shortest_refused": refused})
            length = next_length(trained, refused, grain, longest)
        if not stage.on_gpu:
            stage.not_run(TITLE, "no GPU, no cap; steps of these lengths ran")
            return
        narrow = trained > 0 and (refused is None or refused - trained <= 4 * GRAIN)
        stage.check(TITLE, narrow, trained=trained, refused=refused, cap_bytes=CAP)


def next_length(trained: int, refused: int | None, grain: int, longest: int) -> int | None:
    """Returns the next length to try, or None at the end of the search.

    Lengths double until one does not fit, then the search bisects; if the first does not fit, the
    next is half of it.
    """
    if refused is None:
        return None if trained >= longest else 2 * trained
    middle = (trained + refused) // 2 // grain * grain
    return None if middle <= trained else middle


def build_large_run(stage: Stage) -> tuple[Any, Any]:
    """Returns a run with a model of the 8B shape in place of the small one it was built with.

    The package itself would first draw a random model in 16 bits on the CPU.
    """
    from trainer.models.load import LoadedModel
    from trainer.models.output_layer import install_output_layer
    from trainer.models.parameters import trainable_parameters
    from trainer.models.tuning import apply_tuning
    from trainer.optim import build_optimizer
    from trainer.tasks.base import Objective

    run, accelerator = build(recipe_values(stage, "qlora", tiny=True), stage.work / "longest")
    if stage.on_gpu:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(CAP / whole, 1.0))
    base = random_in_4_bits(stage)
    assert install_output_layer(base) is None
    model = apply_tuning(
        LoadedModel(base, head=("lm_head",), fresh=()),
        run.recipe.tuning,
        trains_head=False,
        gradient_checkpointing=True,
    )
    learned = trainable_parameters(model)
    made = build_optimizer(learned, run.recipe.optimizer)
    objective = Objective(model, run.task).to(accelerator.device).train()
    objective, optimizer = accelerator.prepare(objective, made)
    stage.figure("parameters_of_adapters", sum(weight.numel() for weight in learned.values()))
    large: Any = {"model": model, "objective": objective, "optimizer": optimizer}
    return dataclasses.replace(run, **large, parameters=learned), accelerator


def random_in_4_bits(stage: Stage) -> Any:
    """Returns the model with random weights, drawn and quantized layer by layer."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    numbers = llama_8b(tiny=stage.tiny)
    settings = CONFIG_MAPPING[numbers.pop("model_type")](**numbers)
    num_layers, settings.num_hidden_layers = settings.num_hidden_layers, 1
    torch.manual_seed(1)
    with torch.device(stage.device):
        model: Any = AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16)
        model.config.num_hidden_layers = num_layers
        layers = model.model.layers
        kind = type(layers[0])
        pack(layers[0], stage.device)
        for index in range(1, num_layers):
            layer = kind(model.config, index).to(torch.bfloat16)
            pack(layer, stage.device)
            layers.append(layer)
    model.is_loaded_in_4bit = True  # by which PEFT chooses its adapters
    return model


def pack(layer: nn.Module, device: str) -> None:
    """Replaces the linear layers of a layer by 4-bit ones, as qlora loads them."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for parent in list(layer.modules()):
        for name, linear in list(parent.named_children()):
            if not isinstance(linear, nn.Linear):
                continue
            packed: Any = Linear4bit(
                linear.in_features,
                linear.out_features,
                bias=False,
                compute_dtype=torch.bfloat16,
                compress_statistics=True,
                quant_type="nf4",
                device="meta",
            )
            weight = Params4bit(
                linear.weight.detach(), requires_grad=False, quant_type="nf4", module=packed
            )
            packed.weight = weight.to(device)
            setattr(parent, name, packed)


def try_length(stage: Stage, run: Any, accelerator: Any, length: int) -> bool:
    """Returns whether a step on one sequence of that length fits, and records its cost."""
    free_memory(stage.device)
    begun = time.perf_counter()
    fits = step_fits(run, accelerator, length)
    found = {
        "length": length,
        "fits": fits,
        "seconds": time.perf_counter() - begun,
        "peak_bytes": peak_bytes(stage.device),
    }
    stage.figure("tried", [*stage.figures.get("tried", []), found])
    return fits


def step_fits(run: Any, accelerator: Any, length: int) -> bool:
    """Takes one optimizer step; returns False if the GPU ran out of memory."""
    from trainer.loop import optimizer_step
    from trainer.tasks.batch import Batch

    ids = torch.randint(0, run.model.config.vocab_size, (1, length))
    labels = torch.cat([ids[:, 1:], torch.full((1, 1), -100)], 1)
    counts = torch.tensor([length - 1.0], dtype=torch.float64)
    batch = Batch(inputs={"input_ids": ids}, targets={"labels": labels}, counts=counts)
    try:
        optimizer_step(run, accelerator, [batch.to(accelerator.device)], step=1)
    except Exception as error:
        if "out of memory" not in f"{error} {error.__cause__}":
            raise
        error.__traceback__ = None  # it holds references to tensors
        fits = False
    else:
        fits = True
    run.optimizer.zero_grad()
    gc.collect()
    return fits


if __name__ == "__main__":
    main()
