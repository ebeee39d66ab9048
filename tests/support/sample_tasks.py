"""Sample runs of each task: results, lines of metrics.jsonl, and examples by split."""

import math
import random

from support.sample_results import Values, compared, estimate, lines_of, results_of

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

Sample = tuple[Values, list[Values], dict[str, list[Values]]]
"""Results, lines of metrics.jsonl, and examples by split."""


def classification(
    chance: random.Random, num_lines: int, num_examples: int, num_shown: int
) -> Sample:
    labels, texts = ["negative", "positive"], [" ".join(WORDS)]
    return _classified(chance, labels, texts, num_lines, num_examples, num_shown)


def hostile(chance: random.Random, num_lines: int, num_examples: int, num_shown: int) -> Sample:
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
) -> Sample:
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
    lines = lines_of(chance, num_lines, [measured(*pair) for pair in evaluations])
    results = results_of("demo", lines, metric="accuracy", best=2)
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
                    "majority": estimate(0.509, 0.033, "Wilson"),
                    "baseline": estimate(0.509, 0.033, "Wilson"),
                    "best": estimate(0.874, 0.0225, "Wilson"),
                    "final": estimate(0.869, 0.0229, "Wilson"),
                },
                "f1_macro": {
                    "majority": estimate(0.3373, 0.012, "bootstrap"),
                    "baseline": estimate(0.5077, 0.031, "bootstrap"),
                    "best": estimate(0.8727, 0.0225, "bootstrap"),
                    "final": estimate(0.8677, 0.0229, "bootstrap"),
                },
            },
            "tests": [
                compared("accuracy", "baseline", 0.365, 0.0, "exact McNemar", (343, 25)),
                compared("f1_macro", "baseline", 0.365, 0.0002, "paired bootstrap", None),
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


def question_answering(
    chance: random.Random, num_lines: int, num_examples: int, num_shown: int
) -> Sample:
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
    lines = lines_of(chance, num_lines, [measured(*pair) for pair in evaluations])
    results = results_of("question-answering-demo", lines, metric="f1", best=2)
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
                    "majority": estimate(50.07, 1.1, "bootstrap"),
                    "baseline": estimate(50.07, 1.1, "bootstrap"),
                    "zero_shot": estimate(31.25, 11.0, "bootstrap"),
                    "best": estimate(68.45, 1.4, "bootstrap"),
                },
                "f1": {
                    "majority": estimate(50.07, 1.1, "bootstrap"),
                    "best": estimate(71.65, 1.3, "bootstrap"),
                },
            },
            "tests": [compared("exact", "baseline", 18.38, 0.0002, "paired bootstrap", None)],
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


def language_model(
    chance: random.Random, num_lines: int, num_examples: int, num_shown: int
) -> Sample:
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

    lines = lines_of(chance, num_lines, [measured(loss) for loss in (6.9, 4.1, 3.2, 2.9)])
    for line in lines:
        if line["split"] == "train":
            line["loss_masked_lm"] = line["loss"] - 0.69
            line["loss_next_sentence"] = 0.69
    results = results_of("masked-lm-demo", lines, metric="perplexity", best=3)
    results["scales"] = {"masked_accuracy": "0-1"}
    results["statistics"] = {}
    results["failures"] = {}
    results["diagnosis"] = []
    results["warnings"] = []
    results["summary"] = "Training lowered test perplexity from 992.27 to 18.17."
    return results, lines, {}
