"""Damaged run directories and caches: every command succeeds, or ends in one short sentence.

A seeded fuzzer. Each case copies a finished or a stopped run with its cache, damages one to three
things, and runs one command in process. What it leaves must equal what the undamaged run leaves,
unless the command ends with code 2; nothing outside the run directory may change.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import command_line

from trainer.tracking.tracker import Tracker

SECONDS = 60
STEPS = 4
TIMED = ("seconds", "tokens_per_second", "peak_memory_bytes")


@dataclass(frozen=True)
class Originals:
    """A finished and a stopped run, their cache and recipe, and what their commands give."""

    folder: Path
    recipe: Path
    evaluated: dict[str, Any]
    lines: list[dict[str, Any]]
    model: str


def invoke(*arguments: object) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return command_line.invoke(*arguments)


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMED}


def lines_of(directory: Path) -> list[dict[str, Any]]:
    text = (directory / "metrics.jsonl").read_text()
    return [timeless(json.loads(line)) for line in text.splitlines()]


def model_of(directory: Path) -> str:
    """Returns a hash of the weights that are exported."""
    return hashlib.sha256((directory / "model" / "model.safetensors").read_bytes()).hexdigest()


def digest(path: Path) -> str:
    """Returns a hash of a file, or of all names and contents below a folder."""
    found = hashlib.sha256()
    for one in sorted([path, *path.rglob("*")]):
        found.update(str(one.relative_to(path)).encode())
        if one.is_symlink():
            found.update(str(one.readlink()).encode())
        elif one.is_file():
            found.update(one.read_bytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    folder = tmp_path_factory.mktemp("originals")
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "max_position_embeddings": 32,
    }
    values = {
        "model": {
            "architecture": {"model_type": "bert", **sizes},
            "initialization": "random",
            "tokenizer": {"train": "wordpiece", "vocab_size": 120},
        },
        "task": {"name": "classification", "labels": ["negative", "positive"]},
        "data": {"source": {"builtin": "reviews", "num_rows": 36}},
        "batch": {"global_batch_size": 9, "max_seq_length": 12},
        "schedule": {"name": "constant", "steps": STEPS},
        "optimizer": {"learning_rate": 0.01},
        "precision": "fp32",
        "evaluation": {"every": 2, "metric": "loss"},
        "checkpoint": {
            "every_steps": 1,
            "keep_last": 2,
            "keep_best": False,
            "verify_export": False,
        },
        "tracking": {"trackers": [], "log_every_steps": 1},
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRAINER_CACHE", str(folder / "cache"))
        done = invoke("train", recipe, "--run-dir", folder / "finished")
        assert done.exit_code == 0, done.output
        really = Tracker.progress

        def stop(tracker: Tracker, step: int, record: dict[str, Any] | None) -> None:
            really(tracker, step, record)
            if step == 1:
                os.kill(os.getpid(), signal.SIGTERM)

        patched.setattr(Tracker, "progress", stop)
        assert invoke("train", recipe, "--run-dir", folder / "stopped").exit_code == 85
        patched.undo()
        patched.setenv("TRAINER_CACHE", str(folder / "cache"))
        done = invoke("evaluate", folder / "finished", "--json")
        assert done.exit_code == 0, done.output
    return Originals(
        folder,
        recipe,
        timeless(json.loads(done.output.splitlines()[-1])),
        lines_of(folder / "finished"),
        model_of(folder / "finished"),
    )


# Damages. Each gets a path, which may be gone, and draws what it needs.


def cut(path: Path, rng: random.Random) -> None:
    if path.is_file():
        os.truncate(path, rng.randrange(path.stat().st_size + 1))


def empty(path: Path, _rng: random.Random) -> None:
    if path.is_file():
        os.truncate(path, 0)


def flip(path: Path, rng: random.Random) -> None:
    if path.is_file() and path.stat().st_size:
        content = bytearray(path.read_bytes())
        for _ in range(rng.choice((1, 1, 8))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)


def gone(path: Path, _rng: random.Random) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def to_folder(path: Path, rng: random.Random) -> None:
    gone(path, rng)
    path.mkdir(parents=True)


def to_file(path: Path, rng: random.Random) -> None:
    gone(path, rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(rng.choice(("", "x", "{}", "[1]", "null")))


def to_pipe(path: Path, rng: random.Random) -> None:
    gone(path, rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def to_link(path: Path, rng: random.Random) -> None:
    """Moves it out of the directory and leaves a link: it reads the same, but is not changed."""
    if os.path.lexists(path):
        outside = next(one for one in path.parents if (one / "outside").is_dir()) / "outside"
        target = outside / f"{rng.random()}"
        path.rename(target)
        path.symlink_to(target)


def dangling(path: Path, rng: random.Random) -> None:
    gone(path, rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(rng.choice((path, path.with_name("nowhere"))))


def recode(path: Path, rng: random.Random) -> None:
    if path.is_file():
        content = path.read_bytes()
        text = content.decode("utf-8", errors="replace") + "ü"
        path.write_bytes(rng.choice((text.encode("utf-16"), b"\xef\xbb\xbf" + content, b"\xff")))


def other_json(path: Path, rng: random.Random) -> None:
    if path.is_file():
        values = ("null", "[]", "{}", "3", '"x"', "[" * 100_000, "NaN", "9" * 5000, "{'a': 1}")
        path.write_text(rng.choice(values))


def edit(path: Path, rng: random.Random) -> None:
    """Changes one value of a JSON file, and its size and checksum in the manifest."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    places: list[tuple[Any, Any]] = []

    def visit(one: Any) -> None:
        pairs = one.items() if isinstance(one, dict) else enumerate(one)
        for key, inner in pairs:
            places.append((one, key))
            if isinstance(inner, dict | list):
                visit(inner)

    if isinstance(value, dict | list) and value:
        visit(value)
        holder, key = rng.choice(places)
        others = (-1, 0, 10**6, 10**30, "x", None, [], {}, float("nan"), True, 1e999)
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = rng.choice(others)
        path.write_text(json.dumps(value))
    manifest = path.parent / "manifest.json"
    if manifest.is_file() and manifest != path:
        listed = json.loads(manifest.read_text())
        if isinstance(listed, dict) and path.name in listed.get("files", {}):
            content = path.read_bytes()
            listed["files"][path.name] = {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            listed.pop("checksum", None)
            manifest.write_text(json.dumps(listed))


def swap(path: Path, rng: random.Random) -> None:
    others = [one for one in path.parent.glob("*") if one != path] if path.exists() else []
    if others:
        other, between = rng.choice(others), path.with_name("between")
        path.rename(between)
        other.rename(path)
        between.rename(other)


DAMAGES: list[Callable[[Path, random.Random], None]] = [
    *(cut, empty, flip, flip, gone, to_folder, to_file, to_pipe, to_link, dangling),
    *(recode, other_json, edit, edit, swap),
]


@contextmanager
def at_most(seconds: int) -> Generator[None]:
    def late(_number: int, _frame: object) -> None:
        raise TimeoutError("the command hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


LOOKS = ("ls", "verify", "prune", "compare", "show", "sweep")
"""Commands that read no model."""


def run_case(originals: Originals, place: Path, seed: int, commands: tuple[str, ...]) -> str:
    """Returns what is wrong with how a command on a damaged run ended, or nothing."""
    rng = random.Random(seed)
    kind = rng.choice(("finished", "stopped"))
    run, cache = place / "run", place / "cache"
    (place / "outside").mkdir(parents=True)
    shutil.copytree(originals.folder / kind, run)
    shutil.copytree(originals.folder / "cache", cache)
    command = rng.choice(commands)
    done: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        roots = (run, run, run, cache) if command in ("train", "evaluate", "resume") else (run,)
        root = rng.choice(roots)
        found = [path for path in root.rglob("*") if "outside" not in path.parts]
        important = [path for path in found if path.parent == root or "step-" in path.parent.name]
        path = rng.choice(sorted(rng.choice((found, important or found))))
        damage = rng.choice(DAMAGES)
        try:
            damage(path, rng)
        except (OSError, ValueError, TypeError, AttributeError):
            continue  # an earlier damage stands in its way
        done.append(f"{damage.__name__} {path.relative_to(place)}")
    outside = digest(place / "outside")
    arguments: dict[str, tuple[object, ...]] = {
        "train": ("train", originals.recipe, "--run-dir", run),
        "resume": (
            *("train", originals.recipe, "--run-dir", place / "new"),
            *("--resume", run / "checkpoints" / f"step-{1 if kind == 'stopped' else 3:08d}"),
        ),
        "evaluate": ("evaluate", run, "--json"),
        "ls": ("checkpoints", "ls", run, "--json"),
        "verify": ("checkpoints", "verify", run),
        "prune": ("checkpoints", "prune", run, "--keep-last", "1"),
        "compare": ("compare", run, originals.folder / "finished", "--json"),
        "show": ("show", run / "config.yaml"),
        "sweep": ("sweep", originals.recipe, "--seeds", "1", "--run-dir", place, "--print"),
    }
    if command == "sweep":
        run.rename(place / "seed=1")
    story = f"seed {seed}: {kind}, {', '.join(done)}, {command}"
    with pytest.MonkeyPatch.context() as patched, at_most(SECONDS):
        patched.setenv("TRAINER_CACHE", str(cache))
        ended = invoke(*arguments[command])
    try:
        wrong = next(_wrong(originals, place, kind, command, ended, outside), "")
    except (OSError, ValueError, LookupError) as error:
        wrong = f"it left something else: {error!r}"
    return f"{story}: {wrong}: {ended.output[-300:]!r} {ended.exception!r}" if wrong else ""


def _wrong(
    originals: Originals, place: Path, kind: str, command: str, ended: Any, outside: str
) -> Generator[str]:
    if ended.exit_code not in (0, 2):
        yield f"code {ended.exit_code}"
    if digest(place / "outside") != outside:
        yield "something outside the run directory was changed"
    if ended.exit_code == 2:
        said = [line for line in ended.output.splitlines() if line.startswith("trainer: ")]
        if command == "verify" and not said:
            if "damaged" not in ended.output:
                yield "no reason"
        elif not said or "Traceback" in ended.output:
            yield "no sentence"
        elif len(ended.output[ended.output.index(said[-1]) :]) > 520:
            yield "a long message"
        return
    if command in ("train", "resume"):
        run = place / ("run" if command == "train" else "new")
        finished = "This run is finished" in ended.output
        if not finished and model_of(run) != originals.model:
            yield "another model"
        results = json.loads((run / "results.json").read_text())
        lost = [one for one in results["warnings"] if one.startswith("metrics.jsonl begins")]
        compared = command == "train" and not lost and not finished
        if compared and lines_of(run) != originals.lines:
            yield "other lines in metrics.jsonl"
    if command == "evaluate" and kind == "finished":
        metrics = json.loads(ended.stdout.splitlines()[-1])
        if timeless(metrics) != originals.evaluated:
            yield "other metrics"
    if command == "compare":
        groups = json.loads(ended.stdout.splitlines()[-1])["groups"]
        losses = {v for one in groups for v in one["validation"]["loss"]["values"]}
        if losses != {originals.evaluated["loss"]}:
            yield "other numbers"


def run_cases(originals: Originals, place: Path, seeds: range, commands: tuple[str, ...]) -> None:
    problems: list[str] = []
    for seed in seeds:
        problem = run_case(originals, place / str(seed), seed, commands)
        problems += [problem] * bool(problem)
        shutil.rmtree(place / str(seed), ignore_errors=True)
    assert not problems, f"{len(problems)} of {len(seeds)}:\n" + "\n".join(problems[:40])


def test_commands_that_look_at_a_damaged_run(originals, tmp_path):
    run_cases(originals, tmp_path, range(300), LOOKS)


def test_commands_that_use_a_damaged_run(originals, tmp_path):
    run_cases(originals, tmp_path, range(1000, 1040), ("train", "evaluate", "resume"))


@pytest.mark.slow
def test_a_thousand_damaged_runs(originals, tmp_path):
    run_cases(originals, tmp_path, range(10_000, 11_000), (*LOOKS, "train", "evaluate", "resume"))
