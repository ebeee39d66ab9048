"""Trainer of Transformers and SFTTrainer of TRL, on the same model, examples and settings."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rivals import wait_for_device
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

LEARNING_RATE = 1e-4
MASK_SHARE = 0.15


class Time(NamedTuple):
    seconds: float
    processor_seconds: float
    """Of all threads: other work on the machine hardly enters."""

    def since(self, start: "Time") -> "Time":
        return Time(self[0] - start[0], self[1] - start[1])


def now() -> Time:
    wait_for_device()
    return Time(time.perf_counter(), time.process_time())


class Clock(TrainerCallback):
    """Times an epoch from its first fetch to the end of its last step."""

    def __init__(self) -> None:
        self.start = self.end = now()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start = now()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.end = now()


class Rival:
    """One of them over the examples, the tokenizer and the configuration kept in a folder.

    Names: trainer and sft pad each batch to its longest, trainer_grouped and sft_grouped put
    examples of like length into one, and sft_packed packs as TRL does unless told otherwise.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        batch: int,
        length: int,
        precision: str,
        checkpoints: bool,
        model: Any = None,
        use_cpu: bool = True,
    ) -> None:
        """Trains `model`, or a random one of that configuration."""
        self.clock = Clock()
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        examples = json.loads((folder / "examples.json").read_text())
        masked = "labels" not in examples[0]
        if model is None:
            auto: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
            model_config = AutoConfig.from_pretrained(folder / "model")
            torch.manual_seed(1)
            model = auto.from_config(model_config)
        settings: dict[str, Any] = {
            "output_dir": str(folder / name),
            "per_device_train_batch_size": batch,
            "num_train_epochs": 1,
            "learning_rate": LEARNING_RATE,
            "weight_decay": 0.01,
            "lr_scheduler_type": "constant",
            "train_sampling_strategy": "group_by_length" if "grouped" in name else "random",
            "gradient_checkpointing": checkpoints,
            "bf16": precision == "bf16",
            "use_cpu": use_cpu,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "logging_steps": 10,
        }
        if name.startswith("sft"):
            self.trainer = sft_trainer(
                model, tokenizer, examples, settings, length=length, packing=name == "sft_packed"
            )
        else:
            collate: Any = DataCollatorForSeq2Seq(tokenizer)
            if masked:
                collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASK_SHARE)
                settings["remove_unused_columns"] = False  # else special tokens are sought anew
            arguments = TrainingArguments(**settings)
            self.trainer = Trainer(model, arguments, collate, train_dataset=examples)
        self.trainer.add_callback(self.clock)

    def epoch(self) -> Time:
        """Returns the time of one more epoch."""
        self.trainer.train()
        return self.clock.end.since(self.clock.start)


def sft_trainer(
    model: Any,
    tokenizer: Any,
    examples: list[dict[str, Any]],
    settings: dict[str, Any],
    *,
    length: int,
    packing: bool,
) -> Any:
    """Returns an SFTTrainer over tokenised examples, whose labels leave the prompts out."""
    try:
        from trl import SFTConfig, SFTTrainer
    except ImportError as error:
        raise SystemExit("this benchmark needs TRL: pip install trl") from error
    from datasets import Dataset

    rows = Dataset.from_list(examples)
    arguments = SFTConfig(**settings, max_length=length, packing=packing)
    return SFTTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer)


@torch.no_grad()
def keeps_apart(trainer: Any) -> bool:
    """Returns whether a packed example of an SFTTrainer is to the model what it is alone."""
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    begin, end = (batch["position_ids"][0] == 0).nonzero().flatten()[1:3].tolist()
    model = trainer.model.base_model.eval()
    packed = model(**inputs, use_cache=False).last_hidden_state[0, begin:end]
    alone = model(batch["input_ids"][:, begin:end], use_cache=False).last_hidden_state[0]
    return torch.allclose(packed, alone, atol=0.05)
