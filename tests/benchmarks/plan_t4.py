"""Memory and time of LoRA and QLoRA steps on one T4: planned by tracing, beside what was measured.

    python tests/benchmarks/plan_t4.py --data measured.csv

Every row of the file is a step of a bare PEFT loop: no autocast, fp32 embeddings and head if the
base is 4-bit, one fp32 scale for 64 weights. The tracer is the one of `trainer plan`; only the loop
is the measured one. No figure of memory is fitted to the rows; the shares of the peak with which
time is planned come from the SDPA rows of the file that ships with the project's test data.
"""

import argparse
import csv
import statistics
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.planning.collectives import Volume
from trainer.planning.gpus import GPUS
from trainer.planning.launches import PlannedLaunch
from trainer.planning.step_time import Span, bytes_of_update, step_time
from trainer.planning.trace.cuda import ComputingLikeCuda, recompute_like_cuda, whole_sequences
from trainer.planning.trace.ledger import add_up
from trainer.planning.trace.memory import allocate
from trainer.planning.trace.operations import Operations
from trainer.planning.trace.packed_layers import Packed4bit
from trainer.planning.trace.step import WORKSPACE
from trainer.planning.trace.storages import Storages

MIB, STEPS = 2**20, 2
MEMORY = 14_912 * MIB
CONTEXT = 140.875 * MIB  # of every row but the first ones
FAMILIES = {"qwen2": "qwen2", "mistral": "mistral", "phi-3": "phi3", "gemma": "gemma"}


@dataclass(frozen=True)
class Planned:
    loaded: int
    allocated: int
    process: float
    flops: int
    """Floating-point operations of a step."""
    kernels: int
    """Operations that a GPU launches for a step, those of the update included."""


def model_of(row: dict[str, str]) -> Any:
    import transformers

    name = row["model_id"].lower()
    kind = next((kind for part, kind in FAMILIES.items() if part in name), "llama")
    config = transformers.CONFIG_MAPPING[kind](
        hidden_size=int(row["hidden_size"]),
        num_hidden_layers=int(row["num_layers"]),
        num_attention_heads=int(row["num_attention_heads"]),
        num_key_value_heads=int(row["num_kv_heads"]),
        head_dim=int(row["head_dim"]),
        intermediate_size=int(row["intermediate_size"]),
        vocab_size=int(row["vocab_size"]),
        tie_word_embeddings=row["tie_word_embeddings"] == "true",
        pad_token_id=None,
        max_position_embeddings=max(8192, int(row["seq_len"])),
        attn_implementation=row["attn_implementation"],
    )
    config.use_cache = False
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float16)


def pack(model: Any, row: dict[str, str]) -> None:
    """Replaces the linear layers of the blocks by packed ones."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and ".layers." in name:
            parent, _, leaf = name.rpartition(".")
            layer = Packed4bit(module, torch.float16, double=row["double_quant"] == "true")
            setattr(model.get_submodule(parent), leaf, layer)
    model.is_loaded_in_4bit = True


def with_adapters(model: Any, row: dict[str, str]) -> Any:
    from peft import LoraConfig, get_peft_model

    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    rank, targets = int(row["lora_rank"]), row["lora_targets"].split("+")
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    recompute_like_cuda(model)
    model = get_peft_model(model, settings)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.train()


def plan(row: dict[str, str]) -> Planned:
    model = model_of(row)
    packs = row["quantization"] == "nf4"
    if packs:
        pack(model, row)
    model = with_adapters(model, row)
    storages = Storages()
    operations = Operations(storages, on_gpu=True)
    with whole_sequences(), FakeTensorMode(), storages, operations, ComputingLikeCuda():
        storages.begin("loading")
        allocate(model, storages, unpacked=torch.float16)
        for parameter in model.parameters():  # as prepare_model_for_kbit_training does
            if packs and parameter.dtype == torch.float16:
                parameter.data = parameter.data.float()
        loading = list(storages.log)
        for _ in range(2):  # one for the thread of forward and one for that of backward
            storages.keep("workspaces", WORKSPACE)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, foreach=True)  # the default on a GPU
        ids = torch.empty(int(row["batch_size"]), int(row["seq_len"]), dtype=torch.long)
        for _ in range(STEPS):  # the warm-up, then the step that was measured
            storages.begin("step")
            output = model(input_ids=ids, labels=ids)
            output.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            del output
    ledger = add_up(storages.log)
    return Planned(
        loaded=add_up(loading).allocated,
        allocated=ledger.peaks["step"].allocated,
        process=ledger.reserved + CONTEXT,
        flops=operations.flops.total() // STEPS,
        kernels=operations.kernels.total() // STEPS,
    )


def seconds_of(row: dict[str, str], planned: Planned) -> Span:
    """Returns the planned range of seconds of a step."""
    found = step_time(
        flops=planned.flops,
        kernels=planned.kernels,
        tokens=int(row["batch_size"]) * int(row["seq_len"]),
        accumulation=1,
        updated_bytes=bytes_of_update(16 * int(row["trainable_params"])),
        volume=Volume.of("none", 1),
        num_layers=int(row["num_layers"]),
        launch=PlannedLaunch(),
        gpu=GPUS["t4"],
        precision="fp16",
        kind="4-bit" if row["quantization"] == "nf4" else "16-bit",
        width=int(row["hidden_size"]),
    )
    assert found is not None
    return found.step


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--only", default="", help="part of the name of a model")
    options = arguments.parse_args()
    warnings.simplefilter("ignore")
    with options.data.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shapes = {row["model_id"]: row for row in rows if row["hidden_size"]}
    columns = ("hidden_size", "num_layers", "num_attention_heads", "num_kv_heads")
    columns += ("intermediate_size", "vocab_size", "head_dim", "tie_word_embeddings")
    plans: dict[tuple[str, ...], Planned] = {}
    errors: dict[tuple[str, str], list[float]] = {}
    inside: dict[str, list[bool]] = {}
    for row in rows:
        if options.only not in row["model_id"]:
            continue
        row |= {name: row[name] or shapes[row["model_id"]][name] for name in columns}
        names = ("model_id", "attn_implementation", "quantization", "batch_size", "seq_len")
        names += ("lora_rank", "lora_targets", "double_quant", *columns)
        key = tuple(row[name] for name in names)
        began = time.monotonic()
        if key not in plans:
            plans[key] = plan(row)
        planned = plans[key]
        shown = [" ".join(key[:5])]
        for name, value in (
            ("after_load_allocated_mib", planned.loaded),
            ("peak_allocated_mib", planned.allocated),
            ("process_mib", planned.process),
        ):
            if row[name]:
                measured = float(row[name])
                error = value / MIB / measured - 1
                errors.setdefault((row["attn_implementation"], name), []).append(error)
                shown.append(f"{name} {value / MIB:.0f} for {measured:.0f} ({error:+.2%})")
        if row["step_seconds"]:
            span, seconds = seconds_of(row, planned), float(row["step_seconds"])
            inside.setdefault(row["attn_implementation"], []).append(
                span.low <= seconds <= span.high
            )
            shown.append(f"step_seconds {span.low:.2f} to {span.high:.2f} for {seconds:.2f}")
        shown.append("fits" if planned.process <= MEMORY else "does not fit")
        print(", ".join(shown), f"{time.monotonic() - began:.1f} s", flush=True)
    for (attention, name), found in errors.items():
        sizes = [abs(error) for error in found]
        print(
            f"{attention} {name}: {len(found)} rows, mean {statistics.mean(sizes):.2%}, "
            f"worst {max(sizes):.2%}"
        )
    for attention, within in inside.items():
        print(f"{attention} step_seconds: {sum(within)} of {len(within)} rows in the range")


if __name__ == "__main__":
    main()
