"""Run directories as a finished run leaves them, made without training.

`write_run(directory, kind)` writes results.json (version 2), metrics.jsonl, environment.json and
predictions/. Kinds: "classification", "hostile" (classification whose names and texts are markup),
"question_answering" (with thresholds) and "language_model".
"""

import json
import random
from pathlib import Path

from support import sample_tasks
from support.sample_results import Values

from trainer.files.plain import sealed


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
        "classification": sample_tasks.classification,
        "hostile": sample_tasks.hostile,
        "question_answering": sample_tasks.question_answering,
        "language_model": sample_tasks.language_model,
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


def _dump(file: Path, value: Values) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False), "utf-8")


def _dump_lines(file: Path, records: list[Values]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    file.write_text(text, "utf-8")
