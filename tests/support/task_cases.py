"""A small run of each task, and what its model says of a batch by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

BERT: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,
}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
INSTRUCTIONS = {"prompt": "{instruction}\n{input}\n", "completion": "{output}"}

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the protocol tests need to know of a task."""

    task: dict[str, Any]
    builtin: str
    architecture: dict[str, Any]
    num_targets: Callable[[Tensors], list[float]]
    """Counts what a batch supervises, term by term."""
    own_loss: Callable[[Any, Tensors, Tensors], Tensor]
    """The loss that the model itself computes for a batch."""
    perfect: Callable[[Any, Tensors], Any]
    """Outputs that answer a batch as its targets do."""
    score: tuple[str, float]
    """A metric, and what perfect outputs reach."""
    columns: dict[str, Any] | None = None
    max_seq_length: int = 64

    def recipe(self) -> dict[str, Any]:
        return {
            "seed": 1,
            "model": {
                "architecture": self.architecture,
                "initialization": "random",
                "tokenizer": {"train": "wordpiece", "vocab_size": 600},
            },
            "task": self.task,
            "data": {
                "source": {"builtin": self.builtin, "num_rows": 60},
                "columns": self.columns or {},
            },
            "batch": {"global_batch_size": 16, "max_seq_length": self.max_seq_length},
            "schedule": {"epochs": 1},
            "optimizer": {"learning_rate": 1e-3},
            "precision": "fp32",
            "checkpoint": {"verify_export": False},
            "tracking": {"trackers": []},
        }


def num_labels(targets: Tensors) -> list[float]:
    return [float((targets["labels"] != -100).sum())]


def masked_and_pairs(targets: Tensors) -> list[float]:
    return [*num_labels(targets), float(len(targets["next_sentence"]))]


def loss_of_labels(model: Any, inputs: Tensors, targets: Tensors) -> Tensor:
    return model(**inputs, labels=targets["labels"]).loss


def loss_of_pairs(model: Any, inputs: Tensors, targets: Tensors) -> Tensor:
    labels, follows = targets["labels"], targets["next_sentence"]
    return model(**inputs, labels=labels, next_sentence_label=follows).loss


def loss_of_next_tokens(model: Any, inputs: Tensors, targets: Tensors) -> Tensor:
    """The model shifts labels by itself: those of the task are one place ahead."""
    unshifted = functional.pad(targets["labels"][:, :-1], (1, 0), value=-100)
    return model(**inputs, labels=unshifted).loss


def loss_of_spans(model: Any, inputs: Tensors, targets: Tensors) -> Tensor:
    """Window by window, for the model takes padding for places of an answer."""
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    losses: list[Tensor] = []
    for row, length in enumerate(mask.sum(1).tolist()):
        window = {name: one[row : row + 1, :length] for name, one in inputs.items()}
        places = {f"{name}_positions": targets[name][row : row + 1] for name in ("start", "end")}
        losses.append(model(**window, **places).loss)
    return torch.stack(losses).mean()


def right_spans(_: Any, targets: Tensors) -> Any:
    width = 1 + int(torch.stack([targets["start"], targets["end"]]).max())
    logits = (functional.one_hot(targets[name], width).float() for name in ("start", "end"))
    return tuple(12 * one for one in logits)


def right_tokens(_: Any, targets: Tensors) -> Tensor:
    count = (targets["labels"] != -100).sum().double()
    return torch.stack([torch.zeros_like(count), count])


def right_labels(task: Any, targets: Tensors) -> Tensor:
    return functional.one_hot(targets["labels"], len(task.labels)).float() * 10


def right_pairs(task: Any, targets: Tensors) -> Tensor:
    return torch.cat([right_tokens(task, targets), torch.tensor([float(len(targets["labels"]))])])


def right_blocks(task: Any, targets: Tensors) -> Tensor:
    return torch.cat([right_tokens(task, targets), torch.zeros(1)])


CASES = {
    "classification": Case(
        task={"name": "classification", "labels": ["negative", "positive"]},
        builtin="reviews",
        architecture=BERT,
        num_targets=lambda targets: [float(len(targets["labels"]))],
        own_loss=loss_of_labels,
        perfect=right_labels,
        score=("accuracy", 1.0),
    ),
    "classification-llama": Case(
        task={"name": "classification"},
        builtin="nli",
        columns={"text": "premise", "text_pair": "hypothesis"},
        architecture=LLAMA,
        num_targets=lambda targets: [float(len(targets["labels"]))],
        own_loss=loss_of_labels,
        perfect=right_labels,
        score=("f1_macro", 1.0),
    ),
    "masked_lm": Case(
        task={"name": "masked_lm"},
        builtin="documents",
        architecture=BERT,
        num_targets=num_labels,
        own_loss=loss_of_labels,
        perfect=right_blocks,
        score=("masked_accuracy", 1.0),
    ),
    "masked_lm-pairs": Case(
        task={"name": "masked_lm", "next_sentence_prediction": True, "whole_words": True},
        builtin="documents",
        architecture=BERT,
        num_targets=masked_and_pairs,
        own_loss=loss_of_pairs,
        perfect=right_pairs,
        score=("next_sentence_accuracy", 1.0),
    ),
    "causal_lm": Case(
        task={"name": "causal_lm"},
        builtin="documents",
        architecture=LLAMA,
        num_targets=num_labels,
        own_loss=loss_of_next_tokens,
        perfect=right_tokens,
        score=("perplexity", 1.0),
    ),
    "causal_lm-instructions": Case(
        task={"name": "causal_lm", "generation": {"num_examples": 0}, **INSTRUCTIONS},
        builtin="instructions",
        architecture=LLAMA,
        num_targets=num_labels,
        own_loss=loss_of_next_tokens,
        perfect=right_tokens,
        score=("token_accuracy", 1.0),
    ),
    "question_answering": Case(
        task={"name": "question_answering", "stride": 8},
        builtin="passages",
        architecture=BERT,
        num_targets=lambda targets: [float(len(targets["start"])), float(len(targets["end"]))],
        own_loss=loss_of_spans,
        perfect=right_spans,
        score=("f1_at_threshold", 100.0),
    ),
    "question_answering-llama": Case(
        task={"name": "question_answering", "stride": 8},
        builtin="passages",
        architecture=LLAMA,
        num_targets=lambda targets: [float(len(targets["start"])), float(len(targets["end"]))],
        own_loss=loss_of_spans,
        perfect=right_spans,
        score=("exact_at_threshold", 100.0),
    ),
}
