"""Stage 2: QLoRA of the Llama-3.2-1B shape, packed, next to a bare PEFT loop and TRL.

Only the loops differ: examples, adapters, optimizer, precision and packed sequences a step are the
same, and none uses gradient checkpointing.
"""

import itertools
import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from causal_runs import LEARNING_RATE, build, free_memory, peak_bytes, recipe_values, size_of
from causal_speed import about_mfu, check_losses, figures, measure_ours, needed_of
from stage import Stage
from torch import Tensor


def main() -> None:
    stage = Stage.from_arguments()
    stage.figure("mfu", about_mfu(stage))
    values = recipe_values(stage, "qlora")
    begun = time.perf_counter()
    run, accelerator = build(values, stage.work / "qlora")
    stage.figure("seconds_to_build_the_run", time.perf_counter() - begun)
    needed, sequences = needed_of(run), packed_sequences(run)
    write_examples(run, sequences, stage.work / "rival")
    with stage.guarded("ours"):
        found = measure_ours(stage, run, accelerator)
        stage.figure("ours", found)
        keys = ("tokens_per_second", "peak_bytes", "mfu")
        stage.figure("headline", {"ours": {key: found[key] for key in keys}})
        check_losses(stage, "ours", found)
    del run, accelerator
    folder = Path(values["model"]["name_or_path"])
    for name, loop in (("bare_peft", bare_loop), ("trl_sft", trl_loop)):
        if name == "trl_sft" and find_spec("trl") is None:
            stage.not_run(name, "trl is not installed")
            continue
        with stage.guarded(name):
            free_memory(stage.device)
            stage.figure(f"bytes_held_before_{name}", peak_bytes(stage.device))
            stage.figure(name, loop(stage, folder, needed, sequences))
            stage.check(name, True)
            compare(stage, name)


Sequence = dict[str, np.ndarray]


def packed_sequences(run: Any) -> list[Sequence]:
    """Returns the packed sequences of one epoch of a run, in the order of its steps."""
    split = run.splits["train"]
    steps = range(run.order.steps_per_epoch)
    names = ("input_ids", "position_ids", "learned")
    return [
        {name: np.asarray(split.ragged(name)[index]).astype(np.int64) for name in names}
        for step in steps
        for index in run.order.examples(step)
    ]


def write_examples(run: Any, sequences: list[Sequence], folder: Path) -> None:
    """Writes the examples one by one, for TRL to pack, and the tokenizer."""
    examples: list[dict[str, list[int]]] = []
    for sequence in sequences:
        ids = sequence["input_ids"]
        starts = [*np.flatnonzero(sequence["position_ids"] == 0).tolist(), len(ids)]
        labels = np.where(sequence["learned"], ids, -100)
        examples += [
            {"input_ids": ids[a:b].tolist(), "labels": labels[a:b].tolist()}
            for a, b in itertools.pairwise(starts)
        ]
    folder.mkdir()
    (folder / "examples.json").write_text(json.dumps(examples))
    run.tokenizer.save_pretrained(folder / "tokenizer")


def peft_model(stage: Stage, folder: Path) -> Any:
    """Returns the 4-bit model with adapters, built as in the guides of PEFT and bitsandbytes."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    packing = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        quantization_config=packing,
        device_map={"": 0} if stage.on_gpu else None,
    )
    model.config.use_cache = False
    adapters = LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, adapters)


def bare_loop(
    stage: Stage, folder: Path, needed: dict[str, Any], sequences: list[Sequence]
) -> dict[str, Any]:
    """Returns the figures of a loop of forward, backward, clipping and step."""
    from trainer.tasks.causal_lm.packed import apart

    size, model = size_of(stage), peft_model(stage, folder)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    starts = range(0, len(sequences) - size.batch + 1, size.batch)
    batches = [padded(sequences[start : start + size.batch]) for start in starts]

    def take(step: int) -> int:
        ids, positions, labels = batches[step % len(batches)]
        num_tokens = int((labels != -200).sum())
        labels = labels.clamp(min=-100).to(stage.device)
        positions = positions.to(stage.device, non_blocking=True)
        with torch.autocast(stage.device, torch.bfloat16):
            mask = apart(positions, torch.bfloat16)
            loss = model(
                input_ids=ids.to(stage.device, non_blocking=True),
                position_ids=positions,
                attention_mask=mask,
                labels=labels,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return num_tokens

    model.train()
    free_memory(stage.device)
    for step in range(size.warm_up):
        take(step)
    wait(stage)
    begun = time.perf_counter()
    tokens = sum(take(step) for step in range(size.warm_up, size.warm_up + size.steps))
    wait(stage)
    seconds = time.perf_counter() - begun
    return figures(stage, needed, seconds=seconds, tokens=tokens, steps=size.steps)


def padded(sequences: list[Sequence]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns ids, positions and labels [batch, seq]; -200 in the labels is padding."""
    width = max(len(sequence["input_ids"]) for sequence in sequences)
    ids, positions = (torch.zeros(len(sequences), width, dtype=torch.int64) for _ in range(2))
    labels = torch.full((len(sequences), width), -200)
    for row, sequence in enumerate(sequences):
        size = len(sequence["input_ids"])
        ids[row, :size] = torch.from_numpy(sequence["input_ids"])
        positions[row, :size] = torch.from_numpy(sequence["position_ids"])
        learned = np.where(sequence["learned"], sequence["input_ids"], -100)
        labels[row, :size] = torch.from_numpy(learned)
    return ids, positions, labels


def trl_loop(
    stage: Stage, folder: Path, needed: dict[str, Any], sequences: list[Sequence]
) -> dict[str, Any]:
    """Returns the figures of SFTTrainer's second epoch; it packs the same examples itself."""
    from language_rivals import Rival

    size, model = size_of(stage), peft_model(stage, folder)
    rival = Rival(
        "sft_packed",
        stage.work / "rival",
        batch=size.batch,
        length=size.sequence,
        precision="bf16",
        checkpoints=False,
        model=model,
        use_cpu=not stage.on_gpu,
    )
    free_memory(stage.device)
    rival.epoch()
    seconds = rival.epoch().seconds
    steps = rival.trainer.state.global_step
    tokens = sum(len(sequence["input_ids"]) for sequence in sequences)
    return figures(stage, needed, seconds=seconds, tokens=tokens, steps=steps)


def wait(stage: Stage) -> None:
    if stage.on_gpu:
        torch.cuda.synchronize()


def compare(stage: Stage, name: str) -> None:
    """Adds the ratios of our loop to another one to the headline."""
    mine, theirs = stage.figures["ours"], stage.figures[name]
    ratios = {"speed": mine["tokens_per_second"] / theirs["tokens_per_second"]}
    if mine["peak_bytes"]:
        ratios["memory"] = mine["peak_bytes"] / theirs["peak_bytes"]
    stage.figure("headline", {**stage.figures["headline"], f"ours_over_{name}": ratios})


if __name__ == "__main__":
    main()
