"""Trackers get what metrics.jsonl has, in files of the run directory, and never fail a run."""

import json
import sqlite3
import struct
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker
from support.command_line import run

from trainer.errors import ConfigError
from trainer.tracking.trackers import EXTRAS, SafeTracker, check_installed, log_report

Points = dict[tuple[str, int], float]
"""Values by name and step."""
STEPS = 4


def needs(name: str) -> pytest.MarkDecorator:
    reason = f"{name} is not installed: pip install -e '.[{name}]'"
    return pytest.mark.skipif(find_spec(name) is None, reason=reason)


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Callable[..., Path]:
    """Writes a recipe of a few steps that uses some trackers."""

    def write(*trackers: str) -> Path:
        reviews_recipe["data"]["source"]["num_rows"] = 80
        reviews_recipe["schedule"] = {"name": "constant", "steps": STEPS}
        reviews_recipe["evaluation"]["every"] = 2
        reviews_recipe["tracking"] = {"trackers": list(trackers), "log_every_steps": 1}
        return write_recipe(reviews_recipe)

    return write


def lines_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def recorded(directory: Path) -> Points:
    """Returns the numbers of metrics.jsonl."""
    return {
        (f"{line['split']}/{name}", line["step"]): float(value)
        for line in lines_of(directory)
        for name, value in line.items()
        if isinstance(value, int | float) and name not in ("step", "epoch")
    }


def tensorboard_of(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard" / directory.name))
    events.Reload()
    return events


def in_tensorboard(directory: Path) -> Points:
    events = tensorboard_of(directory)
    names = events.Tags()["scalars"]
    return {(name, point.step): point.value for name in names for point in events.Scalars(name)}


def in_wandb(directory: Path) -> Points:
    """Returns what the files of all offline starts hold; they must be of one run."""
    from wandb.proto.wandb_internal_pb2 import Record

    points: Points = {}
    identities = set()
    for file in sorted((directory / "wandb").glob("offline-run-*/*.wandb")):
        identities.add(file.stem)
        for content in leveldb_records(file.read_bytes()):
            record = Record.FromString(content)
            if record.HasField("history"):
                items = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                step = items.pop("_step", record.history.step.num)
                points |= {
                    (name, step): value
                    for name, value in items.items()
                    if not name.startswith(("_", "report/"))
                }
    assert len(identities) == 1, identities
    return points


def leveldb_records(content: bytes) -> list[bytes]:
    """Returns the records of a file in LevelDB's log format, after W&B's own head of 7 bytes."""
    assert content.startswith(b":W&B")
    records, parts, position = [], [], 7
    while position + 7 <= len(content):
        room = 32768 - position % 32768
        if room < 7:  # a block ends with zeros that no header fits into
            position += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(b"".join(parts))
            parts = []
    return records


def in_mlflow(directory: Path) -> Points:
    """Returns the values that the database's one run holds."""
    with closing(sqlite3.connect(directory / "mlflow" / "mlflow.db")) as database:
        (run,) = database.execute("SELECT run_uuid, name FROM runs").fetchall()
        rates = "SELECT run_uuid, value FROM params WHERE key = 'optimizer.learning_rate'"
        assert database.execute(rates).fetchall() == [(run[0], "0.001")]
        points = database.execute("SELECT key, step, value FROM metrics").fetchall()
    assert run[1] == directory.name
    return {(name, step): value for name, step, value in points}


def in_trackio(directory: Path) -> Points:
    """Returns the values that the database's one run holds."""
    (file,) = (directory / "trackio").glob("*.db")
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    assert {name for name, _, _ in rows} == {directory.name}
    return {
        (name, step): value
        for _, step, metrics in rows
        for name, value in json.loads(metrics).items()
    }


READ = {
    "tensorboard": in_tensorboard,
    "wandb": in_wandb,
    "mlflow": in_mlflow,
    "trackio": in_trackio,
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in READ])
def test_a_tracker_holds_the_values_and_continues_its_run(
    name, recipe, commands, tmp_path, monkeypatch
):
    # MLflow stores nothing in a folder with a question mark in its name.
    directory = tmp_path / ("my run #1 é" + "? %20" * (name != "mlflow"))
    home = tmp_path / "home"
    home.mkdir()
    # matplotlib keeps its list of fonts in a folder of its own
    file, variables = recipe(name), {"HOME": str(home), "MPLCONFIGDIR": str(tmp_path / "fonts")}
    for steps in (STEPS, 2 * STEPS):
        code, output, _, _ = commands.run(
            *("train", str(file), "--run-dir", str(directory)),
            *("--set", f"schedule.steps={steps}"),
            variables=variables,
        )
        assert code == 0, output
        assert "note: the tracker" not in output
        shown, expected = READ[name](directory), recorded(directory)
        assert shown.keys() == expected.keys()
        assert {step for _, step in shown} == set(range(steps + 1))
        for key, value in expected.items():
            assert shown[key] == pytest.approx(value, rel=1e-6), key
    assert list(home.rglob("*")) == []
    assert {path.name for path in tmp_path.iterdir()} <= {
        *(directory.name, "home", "fonts", "recipe.yaml"),
    }
    assert "Trackio" not in output
    assert "wandb:" not in output


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs(name)) for name in ("mlflow", "trackio")]
)
def test_each_run_of_a_process_has_a_store_of_its_own(name, recipe, tmp_path):
    for directory in (tmp_path / "one", tmp_path / "two"):
        run("train", recipe(name), "--run-dir", directory)
        assert READ[name](directory).keys() == recorded(directory).keys()
    assert "trackio" not in sys.modules


@needs("mlflow")
@pytest.mark.parametrize("name", ["a%20b", "a?b"])
def test_what_mlflow_cannot_store_is_a_note(name, recipe, tmp_path):
    output = run("train", recipe("mlflow"), "--run-dir", tmp_path / name)
    assert output.count("note: the tracker mlflow failed (ValueError: MLflow cannot store") == 1
    assert {path.name for path in tmp_path.iterdir()} == {name, "recipe.yaml"}


@needs("wandb")
def test_a_run_that_the_process_tracks_already_stays_its_own(recipe, tmp_path):
    import wandb

    mine = wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True))
    run("train", recipe("wandb"), "--run-dir", tmp_path / "run")
    assert wandb.run is mine
    mine.log({"mine": 1}, step=1)
    mine.finish()
    assert in_wandb(tmp_path / "run").keys() == recorded(tmp_path / "run").keys()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/files/media/images/report/*.png"))


def test_tensorboard_shows_the_recipe_and_the_report(recipe, tmp_path):
    directory = tmp_path / "run"
    run("train", recipe("tensorboard"), "--run-dir", directory)
    (text,) = tensorboard_of(directory).Tensors("recipe/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert "    optimizer:\n      name: adamw\n" in shown
    (text,) = tensorboard_of(directory).Tensors("report/text_summary")
    assert text.step == STEPS
    assert text.tensor_proto.string_val[0].decode() == (directory / "report.md").read_text()
    figures = tensorboard_of(directory).Tags()["images"]
    assert "report/loss-steps" in figures


def test_a_report_is_shown_with_its_figures(tmp_path):
    from PIL import Image

    from trainer.tracking.trackers import start_trackers

    accelerator, notes = Accelerator(cpu=True), list[str]()
    start_trackers(
        accelerator,
        tmp_path,
        ("tensorboard",),
        settings={},
        text="seed: 1",
        step=0,
        say=notes.append,
    )
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[1, 2] = (255, 128, 0)
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG")
    log_report(accelerator, "# a run", {"curves": file.getvalue()}, step=9)
    for tracker in accelerator.trackers:
        tracker.finish()
    events = tensorboard_of(tmp_path)
    (text,) = events.Tensors("report/text_summary")
    assert (text.step, text.tensor_proto.string_val[0]) == (9, b"# a run")
    (shown,) = events.Images("report/curves")
    assert (shown.step, shown.width, shown.height) == (9, 6, 4)
    pixels = np.asarray(Image.open(BytesIO(shown.encoded_image_string)).convert("RGB"))
    assert (pixels == image).all()
    assert notes == []


def test_a_tracker_that_cannot_start_is_a_note(recipe, tmp_path):
    directory = tmp_path / "run"
    (directory / "tensorboard").mkdir(parents=True)
    (directory / "tensorboard" / "run").write_text("a file, where a folder should be")
    output = run("train", recipe("tensorboard"), "--run-dir", directory)
    assert output.count("note: the tracker tensorboard failed (") == 1
    assert {line["step"] for line in lines_of(directory)} == set(range(STEPS + 1))


class Failing(GeneralTracker):
    """A tracker that takes some values, and then fails."""

    name = "failing"
    requires_logging_directory = False

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.values: list[dict[str, Any]] = []
        self.finished = 0

    @property
    def tracker(self) -> None:
        return None

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        if len(self.values) == self.most:
            raise OSError("the server\nis gone")
        self.values.append(values)

    def finish(self) -> None:
        self.finished += 1


def test_a_tracker_that_fails_is_left_alone_after_one_note():
    notes, failing, sound = list[str](), Failing(1), Failing(9)
    trackers = [SafeTracker("a", lambda: failing, notes.append)]
    trackers.append(SafeTracker("b", lambda: sound, notes.append))
    for tracker in trackers:
        tracker.start()
    for step in range(3):
        for tracker in trackers:
            tracker.log({"step": step}, step=step)
    for tracker in trackers:
        tracker.finish()
    assert len(failing.values) == 1
    assert len(sound.values) == 3
    assert (failing.finished, sound.finished) == (0, 1)
    (note,) = notes
    assert note.startswith("note: the tracker a failed (OSError: the server is gone)")


def test_a_report_that_tensorboard_cannot_show_is_one_note(tmp_path):
    notes = list[str]()
    broken = TensorBoardTracker("run", tmp_path)  # never started, so it has no writer
    tracker = SafeTracker("tensorboard", lambda: broken, notes.append)
    tracker.start()
    tracker.log_report("# a run", {"curves": np.zeros((4, 6, 3), np.uint8)}, 1)
    assert len(notes) == 1


def test_an_interrupt_in_a_tracker_is_no_failure_of_it():
    def interrupt() -> GeneralTracker:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SafeTracker("a", interrupt, print).start()


@pytest.mark.parametrize("name", [*EXTRAS, "comet_ml", "aim"])
def test_a_missing_package_is_a_sentence_before_anything_starts(name, recipe, tmp_path):
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    package = f"'trainer[{name}]'" if name in EXTRAS else name
    with pytest.raises(ConfigError) as caught:
        check_installed(("tensorboard", name))
    assert (caught.value.key, caught.value.value) == ("tracking.trackers", name)
    output = run("train", recipe(name), "--run-dir", tmp_path / "run", code=2)
    assert output == (
        f"trainer: tracking.trackers: {name} is not installed; pip install {package}\n"
    )
    assert not (tmp_path / "run" / "checkpoints").exists()
