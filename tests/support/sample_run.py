"""Run directories as a finished run leaves them, made without training.

`write_run(directory, kind)` writes results.json (version 2), metrics.jsonl, environment.json and
predictions/. Kinds: "classification", "hostile" (classification whose names and texts are markup),
"question_answering" (with thresholds) and "language_model".
"""

import json
import math
import random
from pathlib import Path
from typing import Any

from trainer.files.plain import sealed
from trainer.tasks.recipe import load_recipe

HOSTILE = (
    "<script>window.hacked=1</script>",
    "</style></title><img src=x onerror=window.hacked=2>",
    "\"quoted\" 'single' `tick` | pipe\nnext line\x1b[31m",
    "\u202eright to left\u2066 [a](http://example.com) ![b](http://example.com/y.png)",
    "=1+1",
    "50% of $x_1^2$ {a} & #b ~c \\end{tabular}",
    "x" * 500,
)
WORDS = "a story of two friends told with patience and wit but the second half never finds".split()

Values = dict[str, Any]


def write_run(
    directory: Path,
    kind: str = "classification",
    *,
    num_lines: int = 40,
    num_examples: int = 872,
    num_shown: int = 60,
) -> Path:
    """Writes a run of a kind into a directory and returns it.

    `num_lines` lines of training are logged, the test split has `num_examples` examples, of which
    `num_shown` have their texts in predictions/examples-test.jsonl.
    """
    build = {
        "classification": _classification,
        "hostile": _hostile,
        "question_answering": _question_answering,
        "language_model": _language_model,
    }[kind]
    (directory / "predictions").mkdir(parents=True)
    chance = random.Random(1)
    results, lines, examples = build(chance, num_lines, num_examples, num_shown)
    _dump(directory / "results.json", sealed(results))
    _dump(directory / "environment.json", results["environment"])
    _dump(directory / "status.json", {"state": "done", "exit_code": 0, "step": lines[-1]["step"]})
    _dump_lines(directory / "metrics.jsonl", lines)
    for split, answers in examples.items():
        _dump_lines(directory / "predictions" / f"examples-{split}.jsonl", answers)
    for split in ("validation", "test") * (kind != "language_model"):
        answers = [{"id": i, "row": i, "prediction": "x"} for i in range(num_examples)]
        _dump_lines(directory / "predictions" / f"{split}.jsonl", answers)
    return directory


def _classification(
    chance: random.Random, num_lines: int, num_examples: int, num_shown: int
) -> tuple[Values, list[Values], dict[str, list[Values]]]:
    labels, texts = ["negative", "positive"], [" ".join(WORDS)]
    return _classified(chance, labels, texts, num_lines, num_examples, num_shown)


def _hostile(
    chance: random.Random, num_lines: int, num_examples: int, num_shown: int
) -> tuple[Values, list[Values], dict[str, list[Values]]]:
    results, lines, examples = _classified(
        chance, list(HOSTILE), list(HOSTILE), num_lines, num_examples, num_shown
    )
    text = " ".join(HOSTILE)
    results["summary"] = text
    results["warnings"] = [text]
    results["diagnosis"] = [
        {
            "code": "one-class",
            "message": text,
            "advice": text,
            "figures": {HOSTILE[0]: 1.0},
            "split": "test",
            "severity": "wrong",
        }
    ]
    results["recipe"]["model"]["name_or_path"] = f"org/{text}"
    results["environment"]["command"] = ["trainer", "train", text]
    results["parameters"]["modules"][0]["name"] = text
    results["statistics"]["test"]["clustered_by"] = text
    results["scales"][HOSTILE[0]] = "0-1"
    return results, lines, examples


def _classified(
    chance: random.Random,
    labels: list[str],
    texts: list[str],
    num_lines: int,
    num_examples: int,
    num_shown: int,
) -> tuple[Values, list[Values], dict[str, list[Values]]]:
    def measured(accuracy: float, loss: float) -> Values:
        per_class = {
            label: {
                "precision": accuracy - 0.01 * i,
                "recall": accuracy + 0.01 * i,
                "f1": accuracy,
                "support": num_examples // len(labels) - i,
                "predicted": num_examples // len(labels) + i,
            }
            for i, label in enumerate(labels)
        }
        return {
            "loss": loss,
            "accuracy": accuracy,
            "f1_macro": accuracy - 0.0013,
            "per_class": per_class,
            "seconds": 1.75,
        }

    evaluations = [(0.509, 0.6984), (0.843, 0.39), (0.874, 0.34), (0.869, 0.41)]
    lines = _lines(chance, num_lines, [measured(*pair) for pair in evaluations])
    results = _results("demo", lines, metric="accuracy", best=2)
    results["baseline_is"] = "untrained head"
    results["scales"] = {"accuracy": "0-1", "f1_macro": "0-1"}
    right = round(0.874 * num_examples)
    counts = [[0] * len(labels) for _ in labels]
    for example in range(num_examples):
        gold = example % len(labels)
        counts[gold][gold if example < right else (gold + 1) % len(labels)] += 1
    bins = [
        {
            "low": low / 10,
            "high": (low + 1) / 10,
            "count": 0 if low < 5 else num_examples // 5,
            "confidence": None if low < 5 else (low + 0.55) / 10,
            "accuracy": None if low < 5 else (low + 0.2) / 10,
        }
        for low in range(10)
    ]
    results["statistics"] = {
        split: {
            "num_examples": num_examples,
            "clustered_by": None,
            "metrics": {
                "accuracy": {
                    "majority": _estimate(0.509, 0.033, "Wilson"),
                    "baseline": _estimate(0.509, 0.033, "Wilson"),
                    "best": _estimate(0.874, 0.0225, "Wilson"),
                    "final": _estimate(0.869, 0.0229, "Wilson"),
                },
                "f1_macro": {
                    "majority": _estimate(0.3373, 0.012, "bootstrap"),
                    "baseline": _estimate(0.5077, 0.031, "bootstrap"),
                    "best": _estimate(0.8727, 0.0225, "bootstrap"),
                    "final": _estimate(0.8677, 0.0229, "bootstrap"),
                },
            },
            "tests": [
                _test("accuracy", "baseline", 0.365, 0.0, "exact McNemar", (343, 25)),
                _test("f1_macro", "baseline", 0.365, 0.0002, "paired bootstrap", None),
            ],
            "detectable": {"accuracy": 0.033},
        }
        for split in ("validation", "test")
    }
    churn = {"fixed": 343, "broken": 25, "still_wrong": 85, "still_right": num_examples - 453}
    results["failures"] = {
        split: {
            "churn": churn,
            "confusion": {"labels": labels, "counts": counts},
            "reliability": {"bins": bins, "ece": 0.0412},
            "facets": {
                "length": [
                    {"value": name, "count": 290, "right": right, "score": right / 290}
                    for name, right in (("1-10", 271), ("11-20", 255), ("21 or more", 236))
                ]
            },
            "thresholds": None,
            "num_examples_shown": num_shown,
        }
        for split in ("validation", "test")
    }
    results["diagnosis"] = [
        {
            "code": "overfit",
            "message": "the validation loss rises from 0.3400 at step 240 to 0.4100 at step 360",
            "advice": "train for fewer epochs, or with more weight decay",
            "figures": {"lowest": 0.34, "last": 0.41},
            "split": "validation",
            "severity": "doubtful",
        },
        {
            "code": "truncated",
            "message": "12 of 872 examples are longer than 96 tokens and were cut",
            "advice": "",
            "figures": {"truncated": 12.0, "examples": 872.0},
            "split": "test",
            "severity": "note",
        },
    ]
    results["warnings"] = [
        "12 rows of train were skipped, because their label is empty",
        "validation: the validation loss rises from 0.3400 at step 240 to 0.4100 at step 360",
    ]
    results["summary"] = (
        "Fine-tuning raised test accuracy from 0.509 (always 'positive': 0.509) to 0.874 "
        "(95 % interval 0.850 to 0.895; exact McNemar p < 0.001, 872 examples)."
    )
    kinds = ("fixed", "broken", "still wrong", "still right")
    examples = [
        {
            "kind": kinds[i % 4],
            "id": i,
            "row": i,
            "texts": {"text": f"{texts[i % len(texts)]} {i}"},
            "gold": labels[i % len(labels)],
            "before": labels[(i + 1) % len(labels)],
            "after": labels[i % len(labels)],
            "confidence": round(0.5 + chance.random() / 2, 4),
            "score": float(i % 4 in (0, 3)),
            "facets": {"length": "11-20"},
        }
        for i in range(num_shown)
    ]
    return results, lines, {"test": examples, "validation": examples[: num_shown // 2]}


def _question_answering(
    chance: random.Random, num_lines: int, num_examples: int, num_shown: int
) -> tuple[Values, list[Values], dict[str, list[Values]]]:
    def measured(exact: float, loss: float) -> Values:
        return {
            "loss": loss,
            "loss_start": loss,
            "loss_end": loss,
            "exact": exact,
            "f1": exact + 3.2,
            "HasAns_f1": exact - 4.0,
            "total": num_examples,
            "seconds": 4.0,
        }

    evaluations = [(50.07, 4.8), (61.2, 1.9), (68.45, 1.6)]
    lines = _lines(chance, num_lines, [measured(*pair) for pair in evaluations])
    results = _results("question-answering-demo", lines, metric="f1", best=2)
    results["scales"] = {"exact": "0-100", "f1": "0-100", "HasAns_f1": "0-100"}
    results["zero_shot"] = {
        "test": {"exact": 31.25, "f1": 40.5, "total": 64, "seconds": 9.0},
    }
    points = [
        {
            "threshold": -8.0 + i / 4,
            "exact": 69 - abs(i - 30) * 0.6,
            "f1": 72 - abs(i - 31) * 0.55,
        }
        for i in range(64)
    ]
    results["statistics"] = {
        "test": {
            "num_examples": num_examples,
            "clustered_by": "title",
            "metrics": {
                "exact": {
                    "majority": _estimate(50.07, 1.1, "bootstrap"),
                    "baseline": _estimate(50.07, 1.1, "bootstrap"),
                    "zero_shot": _estimate(31.25, 11.0, "bootstrap"),
                    "best": _estimate(68.45, 1.4, "bootstrap"),
                },
                "f1": {
                    "majority": _estimate(50.07, 1.1, "bootstrap"),
                    "best": _estimate(71.65, 1.3, "bootstrap"),
                },
            },
            "tests": [_test("exact", "baseline", 18.38, 0.0002, "paired bootstrap", None)],
            "detectable": {"exact": 1.9},
        }
    }
    results["failures"] = {
        "test": {
            "churn": {"fixed": 301, "broken": 98, "still_wrong": 200, "still_right": 273},
            "confusion": None,
            "reliability": None,
            "facets": {
                "question word": [
                    {"value": word, "count": 200 - 20 * i, "right": 150 - 20 * i, "score": 0.8}
                    for i, word in enumerate(("what", "who", "when", "how", "why"))
                ],
                "answerable": [
                    {"value": "yes", "count": 430, "right": 281, "score": 0.71},
                    {"value": "no", "count": 442, "right": 316, "score": 0.715},
                ],
            },
            "thresholds": {"points": points, "chosen": -0.5, "best": -0.25},
            "num_examples_shown": num_shown,
        }
    }
    results["diagnosis"], results["warnings"] = [], []
    results["summary"] = "Fine-tuning raised test f1 from 50.07 to 71.65."
    examples = [
        {
            "kind": ("fixed", "broken", "still wrong", "still right")[i % 4],
            "id": i,
            "row": i,
            "texts": {"question": f"Who told story {i}?", "context": " ".join(WORDS * 12)},
            "gold": "two friends | the two friends",
            "before": "",
            "after": "two friends",
            "confidence": None,
            "score": round(chance.random(), 3),
            "facets": {"question word": "who", "answerable": "yes"},
        }
        for i in range(num_shown)
    ]
    return results, lines, {"test": examples}


def _language_model(
    chance: random.Random, num_lines: int, num_examples: int, num_shown: int
) -> tuple[Values, list[Values], dict[str, list[Values]]]:
    def measured(loss: float) -> Values:
        return {
            "loss": loss + 0.69,
            "loss_masked_lm": loss,
            "loss_next_sentence": 0.69,
            "perplexity": math.exp(loss),
            "masked_accuracy": 0.3 / loss,
            "num_masked": 2616,
            "seconds": 0.8,
        }

    lines = _lines(chance, num_lines, [measured(loss) for loss in (6.9, 4.1, 3.2, 2.9)])
    for line in lines:
        if line["split"] == "train":
            line["loss_masked_lm"] = line["loss"] - 0.69
            line["loss_next_sentence"] = 0.69
    results = _results("masked-lm-demo", lines, metric="perplexity", best=3)
    results["scales"] = {"masked_accuracy": "0-1"}
    results["statistics"] = {}
    results["failures"] = {}
    results["diagnosis"] = []
    results["warnings"] = []
    results["summary"] = "Training lowered test perplexity from 992.27 to 18.17."
    return results, lines, {}


def _lines(chance: random.Random, num_lines: int, measured: list[Values]) -> list[Values]:
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


def _results(recipe: str, lines: list[Values], *, metric: str, best: int) -> Values:
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


def _estimate(value: float, half: float, method: str) -> Values:
    return {"value": value, "low": value - half, "high": value + half, "method": method}


def _test(
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


def _dump(file: Path, value: Values) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False), "utf-8")


def _dump_lines(file: Path, records: list[Values]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    file.write_text(text, "utf-8")
