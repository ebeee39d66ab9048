"""What Transformers' Trainer gives for one step of 32 examples, cut in four ways.

    python tests/benchmarks/cuts.py

Prints loss and gradient norm of the first step for each (ranks x micro-batch x accumulation), BERT
and Llama classifiers without dropout; the same examples in the same order, so that all should be
equal. tests/distributed/test_cut_of_the_step.py asserts the same of this package's loop.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CUTS = {"1x32x1": (1, 32, 1), "1x8x4": (1, 8, 4), "1x4x8": (1, 4, 8), "2x4x4": (2, 4, 4)}
SHAPE = {
    "vocab_size": 200,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "pad_token_id": 0,
}


def first_step(architecture: str, micro_batch: int, accumulation: int) -> dict[str, float]:
    """Returns loss and gradient norm of the Trainer's first step, as it logs them."""
    import torch
    import transformers

    folder = tempfile.mkdtemp()
    generator = random.Random(0)
    rows = [
        {
            "input_ids": [generator.randrange(1, 200) for _ in range(generator.randint(3, 40))],
            "labels": generator.randrange(2),
        }
        for _ in range(32)
    ]

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        ids = [row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in batch]
        input_ids = torch.tensor(ids)
        labels = torch.tensor([row["labels"] for row in batch])
        return {"input_ids": input_ids, "attention_mask": (input_ids > 0).long(), "labels": labels}

    transformers.set_seed(1)
    config: Any
    if architecture == "bert":
        config = transformers.BertConfig(
            **SHAPE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
        model = transformers.BertForSequenceClassification(config)
    else:
        config = transformers.LlamaConfig(**SHAPE, num_key_value_heads=2)
        model = transformers.LlamaForSequenceClassification(config)
    arguments = transformers.TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        train_sampling_strategy="sequential",
        logging_steps=1,
        use_cpu=True,
        ddp_backend="gloo" if "RANK" in os.environ else None,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, data_collator=collate)  # type: ignore[arg-type]
    trainer.train()
    log = trainer.state.log_history[0]
    return {"loss": float(log["loss"]), "grad_norm": float(log["grad_norm"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=3, metavar=("ARCHITECTURE", "MICRO", "ACCUMULATION"))
    given = parser.parse_args()
    if given.one:
        architecture, micro, accumulation = given.one
        result = first_step(architecture, int(micro), int(accumulation))
        if os.environ.get("RANK", "0") == "0":
            print("RESULT", json.dumps(result))
        return
    config = ROOT / "accelerate_configs" / "cpu-2.yaml"
    for architecture in ("bert", "llama"):
        for name, (ranks, micro, accumulation) in CUTS.items():
            launcher = [sys.executable]
            if ranks == 2:
                launcher += ["-m", "accelerate.commands.launch", "--config_file", str(config)]
            command = [*launcher, __file__, "--one", architecture, str(micro), str(accumulation)]
            done = subprocess.run(command, capture_output=True, text=True)
            found = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
            print(architecture, name, found[0] if found else done.stderr[-2000:], flush=True)


if __name__ == "__main__":
    main()
