"""Completes the record of a stage, and summarizes all of them; imports nothing heavy.

summary.py ended FILE CODE SECONDS LOG    CODE is that of its process, or `skipped`
summary.py all FOLDER STAGE…              writes FOLDER/summary.json; exits 1 unless all is well
"""

import json
import sys
from pathlib import Path
from typing import Any

from stage import write_json

LOG_CHARACTERS = 4000
KILLED = {124: "timed out", 137: "timed out"}


def end(file: Path, code: str, seconds: int, log: Path) -> None:
    """Writes how a stage ended, with the end of its log unless it ended well."""
    record = json.loads(file.read_text()) if file.is_file() and code != "skipped" else {}
    record = {"stage": file.stem, "checks": {}, "figures": {}, **record}
    if code == "skipped":
        record["state"] = "skipped: no time was left"
    elif code == "0":
        record["state"] = "ended"
    else:
        record["state"] = KILLED.get(int(code), f"died with code {code}")
    record["seconds"] = seconds
    if problems(record) and log.is_file():
        record["log"] = log.read_text(errors="replace")[-LOG_CHARACTERS:]
    write_json(file, record)
    print(f"{file.stem:<12} {record['state']}, {seconds} s", flush=True)
    for name, check in record["checks"].items():
        print(f"  {name}: {check['result']}", flush=True)


def problems(record: dict[str, Any]) -> list[str]:
    """Returns the failed checks of a stage, and how its process ended if not well."""
    failed = [name for name, check in record["checks"].items() if check["result"] == "failed"]
    return failed if record["state"] == "ended" else [*failed, record["state"]]


def sum_up(folder: Path, names: list[str]) -> int:
    """Writes the summary and returns the exit code."""
    records = {name: json.loads((folder / f"{name}.json").read_text()) for name in names}
    results = [
        check["result"] for record in records.values() for check in record["checks"].values()
    ]
    wrong = {name: found for name, record in records.items() if (found := problems(record))}
    summary = {
        "note": next((record["note"] for record in records.values() if "note" in record), None),
        "passed": results.count("passed"),
        "failed": results.count("failed"),
        "not_run": sum(result.startswith("not run") for result in results),
        "problems": wrong,
        "seconds": {name: record["seconds"] for name, record in records.items()},
        "headlines": {
            name: record["figures"]["headline"]
            for name, record in records.items()
            if "headline" in record["figures"]
        },
    }
    write_json(folder / "summary.json", summary)
    print(json.dumps(summary, indent=2), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1] == "ended":
        end(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))
    else:
        sys.exit(sum_up(Path(sys.argv[2]), sys.argv[3:]))
