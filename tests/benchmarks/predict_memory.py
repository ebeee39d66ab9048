"""What a million rows cost: peak memory of `trainer predict` at a tenth of them and at all of them.

    python tests/benchmarks/predict_memory.py [NUM_ROWS]

A random BERT of one layer answers JSON Lines on one CPU process, with an output file. The memory of
the process is read every 50 ms while it runs; `loaded` is the peak until the first block is
answered.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers

import trainer
from trainer.prediction.answering import BLOCK_ROWS

NUM_ROWS = 1_000_000
WORDS = ("dull", "bright", "slow", "a film")
RECIPE: dict[str, Any] = {
    "model": {
        "architecture": {
            "model_type": "bert",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
        },
        "initialization": "random",
        "tokenizer": {"train": "wordpiece", "vocab_size": 400},
    },
    "task": {"name": "classification", "labels": ["negative", "positive"]},
    "data": {"source": {"builtin": "reviews", "num_rows": 200}},
    "batch": {"global_batch_size": 16, "max_seq_length": 32},
    "schedule": {"steps": 2},
    "precision": "fp32",
    "checkpoint": {"verify_export": False},
    "tracking": {"trackers": []},
}


def write_rows(file: Path, num_rows: int) -> None:
    with file.open("w") as opened:
        for number in range(num_rows):
            words = " ".join(WORDS[(number >> place) % 4] for place in range(9))
            opened.write(json.dumps({"id": number, "text": words[: 8 + number % 40]}) + "\n")


def measure(run: Path, rows: Path, num_rows: int, output: Path) -> dict[str, float]:
    """Returns the peak memory in bytes after shares of the rows, and the seconds of the command."""
    command = [sys.executable, "-m", "trainer", "predict", str(run), str(rows)]
    begun = time.monotonic()
    process = subprocess.Popen([*command, "--output", str(output), "--batch-size", "256"])
    inside, parts = psutil.Process(process.pid), output.with_name(f"{output.name}.parts")
    most = 0
    peaks: dict[str, float] = {"loaded": 0, "tenth": 0, "all": 0}
    while process.poll() is None:
        try:
            bytes_now, num_parts = inside.memory_info().rss, len(list(parts.glob("part-*")))
        except (psutil.NoSuchProcess, FileNotFoundError):
            break
        peaks["all"] = max(peaks["all"], bytes_now)
        most = max(most, num_parts)
        if not most:
            peaks["loaded"] = peaks["all"]
        if most * BLOCK_ROWS <= num_rows / 10:
            peaks["tenth"] = peaks["all"]
        time.sleep(0.05)
    assert process.wait() == 0
    return {**peaks, "seconds": time.monotonic() - begun}


def main() -> None:
    num_rows = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_ROWS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trainer.train(trainer.Recipe(**RECIPE), run_dir=folder / "run", progress=None)
        write_rows(folder / "rows.jsonl", num_rows)
        costs = measure(folder / "run", folder / "rows.jsonl", num_rows, folder / "answers.jsonl")
        with (folder / "answers.jsonl").open("rb") as opened:
            assert sum(1 for _ in opened) == num_rows
    results = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "num_rows": num_rows,
        "peak_bytes": {key: costs[key] for key in ("loaded", "tenth", "all")},
        "all_by_tenth": costs["all"] / costs["tenth"],
        "seconds": costs["seconds"],
        "rows_per_second": num_rows / costs["seconds"],
    }
    text = json.dumps(results, indent=2) + "\n"
    if num_rows == NUM_ROWS:
        (Path(__file__).parent / "results" / "predict.json").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
