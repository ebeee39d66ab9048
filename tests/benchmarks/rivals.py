"""The loops that people would use instead, on the same model, rows and optimizer settings."""

import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from trainer.run import Run

BATCH = 32
LEARNING_RATE = 1e-4


def recipe_values(data: Path, tokenizer: Path, precision: str, seed: int) -> dict[str, Any]:
    """Returns the recipe of the benchmarks: BERT 4 x 256 from scratch on SST-2's train file."""
    return {
        "seed": seed,
        "model": {
            "architecture": {
                "model_type": "bert",
                "hidden_size": 256,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "intermediate_size": 1024,
            },
            "initialization": "random",
            "tokenizer": str(tokenizer),
        },
        "task": {"name": "classification", "labels": ["negative", "positive"]},
        "data": {
            "source": {"files": {"train": str(data / "train.tsv"), "test": str(data / "dev.tsv")}},
            "columns": {"text": "sentence", "label": "label"},
            "split": {"validation": None},
            "max_rows": 20_000,
        },
        "batch": {"global_batch_size": BATCH, "micro_batch_size": BATCH, "max_seq_length": 128},
        "optimizer": {"learning_rate": LEARNING_RATE},
        "schedule": {"name": "constant", "steps": 1_000_000},
        "precision": precision,
        "evaluation": {"baseline": False},
        "checkpoint": {"keep_last": 1},
        "tracking": {"trackers": [], "log_every_steps": 10},
    }


def examples(run: Run) -> list[dict[str, Any]]:
    """Returns the run's tokenised training examples as lists."""
    split = run.splits["train"]
    labels = split.array("label").tolist()
    return [
        {"input_ids": split.ragged("input_ids")[index].tolist(), "labels": label}
        for index, label in enumerate(labels)
    ]


def fresh_model(run: Run) -> Any:
    torch.manual_seed(run.recipe.seed)
    return AutoModelForSequenceClassification.from_config(run.model.config)


class PlainLoop:
    """The loop of Accelerate's examples: shuffled loader, dynamic padding, clip, step."""

    def __init__(self, run: Run, accelerator: Any) -> None:
        generator = torch.Generator().manual_seed(run.recipe.seed)
        loader = DataLoader(
            examples(run),  # type: ignore[arg-type]
            batch_size=BATCH,
            shuffle=True,
            collate_fn=DataCollatorWithPadding(run.tokenizer),
            generator=generator,
        )
        model = fresh_model(run)
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
        self.accelerator = accelerator
        self.model, self.optimizer, self.loader = accelerator.prepare(model, optimizer, loader)
        self.batches = iter(self.loader)

    def seconds(self, num_steps: int) -> float:
        """Returns the seconds of the next steps."""
        self.model.train()
        start = time.perf_counter()
        for _ in range(num_steps):
            batch = next(self.batches, None)
            if batch is None:
                self.batches = iter(self.loader)
                batch = next(self.batches)
            loss = self.model(**batch).loss
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return time.perf_counter() - start


def wait_for_device() -> None:
    """Waits until a GPU has done what it was given, so that a clock on the host is right."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _Clock(TrainerCallback):
    """Times a training from its first step to the end of its last."""

    def __init__(self) -> None:
        self.start = self.end = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start = self.start or time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        wait_for_device()
        self.end = time.perf_counter()


class TransformersTrainer:
    """Transformers' Trainer with batches grouped by length.

    It sorts 50 batches together, longest first: time multiples of 50 steps, or a part is chosen.
    """

    def __init__(self, run: Run, precision: str, folder: Path, *, use_cpu: bool = True) -> None:
        self.run, self.precision, self.folder = run, precision, folder
        self.use_cpu = use_cpu
        self.rows = examples(run)
        self.model = fresh_model(run)

    def seconds(self, num_steps: int) -> float:
        """Returns the seconds of `num_steps` steps."""
        clock = _Clock()
        arguments = TrainingArguments(
            output_dir=str(self.folder / "rival"),
            per_device_train_batch_size=BATCH,
            max_steps=num_steps,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            train_sampling_strategy="group_by_length",
            bf16=self.precision == "bf16",
            use_cpu=self.use_cpu,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_steps=10,
        )
        Trainer(
            model=self.model,
            args=arguments,
            train_dataset=self.rows,  # type: ignore[arg-type]
            data_collator=DataCollatorWithPadding(self.run.tokenizer),
            callbacks=[clock],
        ).train()
        return clock.end - clock.start
