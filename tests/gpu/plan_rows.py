"""The runs whose plan is held against a GPU: every task, three tuning modes, two lengths each."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from shapes import bert_base, llama_1b, model_folder, words
from stage import Stage

Kind = Literal["classification", "question_answering", "masked_lm", "sft"]
TASKS: dict[str, dict[str, Any]] = {
    "classification": {"name": "classification", "labels": ["no", "yes"]},
    "question_answering": {"name": "question_answering", "stride": 8},
    "masked_lm": {"name": "masked_lm"},
    "sft": {
        "name": "causal_lm",
        "prompt": "{instruction}\n",
        "completion": "{output}",
        "generation": {"num_examples": 0},
    },
}
TINY_LENGTH, TINY_BATCH = 32, 2


@dataclass(frozen=True)
class Row:
    task: Kind
    mode: str
    length: int
    """Tokens of every example."""
    micro_batch_size: int
    """A step has two of them."""

    @property
    def name(self) -> str:
        return f"{self.task} {self.mode} {self.micro_batch_size} x {self.length}"


ROWS = (
    Row("classification", "full", 128, 32),
    Row("sft", "qlora", 2048, 4),
    Row("masked_lm", "full", 512, 16),
    Row("question_answering", "lora", 384, 32),
    Row("sft", "full", 512, 4),
    Row("sft", "lora", 2048, 2),
    Row("masked_lm", "lora", 128, 64),
    Row("classification", "qlora", 512, 16),
    Row("question_answering", "full", 128, 64),
    Row("sft", "qlora", 512, 8),
)
"""BERT-base, and the Llama-3.2-1B shape for `sft`; the first ones say most."""


def recipe_of(stage: Stage, row: Row) -> dict[str, Any]:
    """Returns the recipe of a row; creates its examples and, for `sft`, its model."""
    length = TINY_LENGTH if stage.tiny else row.length
    size = TINY_BATCH if stage.tiny else row.micro_batch_size
    files: dict[str, str] = {}
    for split, number in (("train", 4 * size), ("validation", 2 * size)):
        file = stage.work / f"{row.name}-{split}.jsonl".replace(" ", "-")
        lines = (json.dumps(values) + "\n" for values in examples(row.task, number, length, split))
        file.write_text("".join(lines))
        files[split] = str(file)
    model: dict[str, Any] = {"tokenizer": {"train": "wordpiece", "vocab_size": 600}}
    if row.task == "sft":
        name = "llama-tiny" if stage.tiny else "llama-1b"
        folder = model_folder(stage.work, name, llama_1b(tiny=stage.tiny), stage.device)
        model = {"name_or_path": str(folder), "tokenizer": {"train": "bpe", "vocab_size": 600}}
    else:
        model |= {"architecture": bert_base(tiny=stage.tiny), "initialization": "random"}
    return {
        "seed": 1,
        "model": model,
        "tuning": {"mode": row.mode},
        "task": TASKS[row.task],
        "data": {"source": {"files": files}},
        "batch": {
            "global_batch_size": 2 * size,
            "micro_batch_size": size,
            "max_seq_length": length,
        },
        "optimizer": {"learning_rate": 1e-4},
        "schedule": {"name": "constant", "steps": 8},
        "precision": "bf16",
        "evaluation": {"baseline": False},
        "checkpoint": {"verify_export": False},
        "tracking": {"trackers": []},
    }


def examples(task: Kind, number: int, length: int, split: str) -> Iterator[dict[str, Any]]:
    """Yields rows of made-up words, which fill at least `length` tokens each."""
    generator = Random(split)
    for index in range(number):
        text = words(generator, length)
        if task == "classification":
            yield {"text": text, "label": TASKS[task]["labels"][index % 2]}
        elif task == "question_answering":
            answer = text.split()[1]
            answers = {"text": [answer], "answer_start": [text.index(f" {answer}") + 1]}
            question = words(generator, 8)
            yield {"id": f"{index}", "question": question, "context": text, "answers": answers}
        elif task == "masked_lm":
            yield {"text": text}
        else:
            yield {"instruction": words(generator, length // 4), "output": text}
