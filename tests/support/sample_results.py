"""What results.json and metrics.jsonl of a sample run hold, whatever its task."""

import math
import random
from typing import Any

from trainer.tasks.recipe import load_recipe

Values = dict[str, Any]


def lines_of(chance: random.Random, num_lines: int, measured: list[Values]) -> list[Values]:
    """Returns lines of training, with an evaluation at the begin and after equal parts of them."""
    lines: list[Values] = []

    def evaluate(step: int, epoch: int, values: Values, train_loss: float | None) -> None:
        for split in ("validation", "test") if step == 0 else ("validation",):
            position = {"step": step, "epoch": epoch, "split": split}
            more = {"train_loss": train_loss, "peak_memory_bytes": (600 + epoch) * 2**20}
            lines.append({**position, **values, **more})

    evaluate(0, 0, measured[0], None)
    for number in range(1, num_lines + 1):
        done = number / num_lines
        epoch = math.ceil(done * (len(measured) - 1))
        loss = 0.15 + 0.55 * math.exp(-3 * done) + chance.gauss(0, 0.02)
        lines.append(
            {
                "step": 9 * number,
                "epoch": epoch,
                "split": "train",
                "loss": loss,
                "grad_norm": 0.4 + chance.random(),
                "learning_rate": 5e-4 * min(10 * done, 1) * (1 - done),
                "samples": 288 * number,
                "tokens": 5120 * number,
                "seconds": 0.5,
                "tokens_per_second": 10240 + 500 * chance.random(),
            }
        )
        if epoch != math.ceil((number + 1) / num_lines * (len(measured) - 1)):
            evaluate(9 * number, epoch, measured[epoch], loss)
    return lines


def results_of(recipe: str, lines: list[Values], *, metric: str, best: int) -> Values:
    """Returns the part of results.json that does not depend on the task."""
    evaluated = [line for line in lines if line["split"] == "validation"]
    position = ("step", "epoch", "split", "train_loss", "peak_memory_bytes")
    measured = [
        {name: value for name, value in line.items() if name not in position} for line in evaluated
    ]

    def outcome(index: int) -> Values:
        step, epoch = evaluated[index]["step"], evaluated[index]["epoch"]
        metrics = dict.fromkeys(("validation", "test"), measured[index])
        return {"step": step, "epoch": epoch, "metrics": metrics}

    values = load_recipe(recipe).model_dump(mode="json")
    values["evaluation"]["metric"] = metric
    values["optimizer"]["learning_rate"] = 0.0004
    command = ["/opt/trainer/__main__.py", "train", recipe, "--set", "optimizer.learning_rate=4e-4"]
    return {
        "version": 2,
        "recipe": values,
        "parameters": {
            "total": 493314,
            "trainable": 493314,
            "stored": 493314,
            "modules": [
                {
                    "name": "bert.embeddings.word_embeddings",
                    "type": "Embedding",
                    "repeats": 1,
                    "parameters": 128000,
                    "trainable": 128000,
                    "arithmetic": "1,000 x 128",
                },
                {
                    "name": "bert.encoder.layer.*.attention.self.query",
                    "type": "Linear",
                    "repeats": 2,
                    "parameters": 33024,
                    "trainable": 33024,
                    "arithmetic": "2 x (128 x 128 + 128)",
                },
                {
                    "name": "classifier",
                    "type": "Linear",
                    "repeats": 1,
                    "parameters": 258,
                    "trainable": 258,
                    "arithmetic": "2 x 128 + 2",
                },
            ],
            "backbone": {"total": 493056, "trainable": 493056},
            "head": {"total": 258, "trainable": 258},
            "adapters": {"total": 0, "trainable": 0},
            "notes": ["the head stands twice: the original and its trained copy"],
        },
        "baseline": dict.fromkeys(("validation", "test"), measured[0]),
        "baseline_is": "pretrained",
        "epochs": [
            {
                "epoch": line["epoch"],
                "step": line["step"],
                "train_loss": line["train_loss"],
                "validation": metrics,
                "seconds": 6.5,
                "tokens_per_second": 10400.0,
                "peak_memory_bytes": line["peak_memory_bytes"],
            }
            for line, metrics in zip(evaluated[1:], measured[1:], strict=True)
        ],
        "best": outcome(best),
        "final": outcome(-1),
        "model": "best",
        "seconds": {"total": 27.3, "per_epoch": [6.5, 6.5, 6.5], "evaluation": 7.8},
        "peak_memory_bytes": 603 * 2**20,
        "processes": 1,
        "precision": "fp32",
        "skipped_steps": 0,
        "data": {
            split: {
                "rows": rows,
                "examples": rows,
                "tokens": 19 * rows,
                "num_truncated": 12,
                "longest": 96,
                "num_skipped": 0,
                "sha256": "4f637dd4c6135293b8bf3318307f96a5787c3b119442c73604087a39dcdd0da9",
            }
            for split, rows in (("train", 4500), ("validation", 750), ("test", 872))
        },
        "learned": {"without_gradient": [], "zero_adapters": []},
        "environment": {
            "command": command,
            "python": "3.11.7",
            "packages": {"torch": "2.13.0+cpu", "transformers": "5.23.0"},
            "machine": "x86_64",
            "platform": "Linux-6.1-x86_64-with-glibc2.36",
            "num_cpus": 2,
            "num_threads": 1,
            "gpus": [],
            "processes": 1,
            "started": "2026-11-27T13:51:49+0000",
            "sessions": [
                {"started": "2026-11-27T13:51:49+0000", "step": 0, "command": command},
                {"started": "2026-11-27T13:58:02+0000", "step": 180, "command": command},
            ],
        },
    }


def estimate(value: float, half: float, method: str) -> Values:
    return {"value": value, "low": value - half, "high": value + half, "method": method}


def compared(
    metric: str,
    before: str,
    difference: float,
    p: float,
    method: str,
    changed: tuple[int, int] | None,
) -> Values:
    won, lost = changed or (None, None)
    half = difference / 8
    return {
        "metric": metric,
        "before": before,
        "after": "best",
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
        "p": p,
        "p_adjusted": min(1.0, 2 * p),
        "method": method,
        "num_examples": 872,
        "won": won,
        "lost": lost,
    }
