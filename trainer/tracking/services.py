"""How each tracker of Accelerate starts: offline and inside the run directory, unless the variables
of its package say otherwise, and in the run that an earlier start began."""

import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

from accelerate.tracking import (
    AimTracker,
    CometMLTracker,
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
)

from trainer.files.durable import write_json
from trainer.files.plain import read_json

IDENTITIES = "trackers.json"
"""File of the run directory with the identity that each tracker gave the run."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What trackers show of a run when they start."""

    directory: Path
    settings: Mapping[str, Any]
    """The recipe by dotted key."""
    text: str
    """The recipe as YAML."""
    step: int
    """The step that the run continues from."""

    def identity(self, name: str) -> dict[str, Any]:
        """Returns what `keep_identity` kept for a tracker; empty if it kept nothing."""
        kept = self._identities().get(name)
        return kept if isinstance(kept, dict) else {}

    def keep_identity(self, name: str, identity: Mapping[str, str]) -> None:
        """Writes the identity of this run in a tracker into the run directory."""
        write_json(self.directory / IDENTITIES, {**self._identities(), name: dict(identity)})

    def _identities(self) -> dict[str, Any]:
        try:
            kept = read_json(self.directory / IDENTITIES)
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}


def _start_tensorboard(run: TrackedRun) -> GeneralTracker:
    # What an earlier start recorded after the step is not shown any more.
    tracker = TensorBoardTracker(
        run.directory.name,
        run.directory / "tensorboard",
        purge_step=run.step + 1 if run.step else 0,
    )
    tracker.start()
    indented = "".join(f"    {line}\n" for line in run.text.splitlines())  # code in Markdown
    tracker.log({"recipe": indented}, step=run.step)
    return tracker


def _start_wandb(run: TrackedRun) -> GeneralTracker:
    offline = not {"WANDB_MODE", "WANDB_API_KEY"} & os.environ.keys()
    if offline:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_CACHE_DIR", str(run.directory / "wandb" / "cache"))
    wandb: Any = import_module("wandb")
    identity = run.identity("wandb").get("id") or secrets.token_hex(4)
    tracker = WandBTracker(
        os.environ.get("WANDB_PROJECT") or re.sub(r"[/\\#?%:]", "-", run.directory.name)[:128],
        name=None if "WANDB_NAME" in os.environ else run.directory.name,
        id=None if "WANDB_RUN_ID" in os.environ else identity,
        dir=None if "WANDB_DIR" in os.environ else str(run.directory),
        mode="offline" if offline else None,
        resume="allow",
        config=dict(run.settings),
        # A run of its own, beside one that the process may have; what is printed is not recorded.
        settings=wandb.Settings(console="off", silent=True, reinit="create_new"),
    )
    tracker.start()
    run.keep_identity("wandb", {"id": tracker.run.id})
    return tracker


def _start_mlflow(run: TrackedRun) -> GeneralTracker:
    folder = run.directory / "mlflow"
    if "MLFLOW_TRACKING_URI" not in os.environ:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow: Any = import_module("mlflow")
    local = not mlflow.is_tracking_uri_set()
    if local:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{_checked(folder.absolute())}/mlflow.db"
        folder.mkdir(exist_ok=True)
    store = "run directory" if local else mlflow.get_tracking_uri()
    kept = run.identity("mlflow")
    known = kept.get("id") if kept.get("store") == store else None
    tracker = MLflowTracker(
        run.directory.name,
        logging_dir=(folder / "artifacts").absolute().as_uri() if local else None,
        run_id=known,
        run_name=run.directory.name,
    )
    tracker.start()
    run.keep_identity("mlflow", {"id": tracker.active_run.info.run_id, "store": store})
    if known is None:  # parameters of a run cannot change
        tracker.store_init_configuration(dict(run.settings))
    return tracker


def _checked(folder: Path) -> Path:
    """Returns a folder; raises ValueError if MLflow would write into another one.

    MLflow decodes the path of a database in one place, and takes it as it is in another.
    """
    if {"%", "?"} & set(str(folder)):
        raise ValueError(f"MLflow cannot store a run in {folder}, because of its % or ?")
    return folder


class _OwnTrackio(TrackioTracker):
    """A trackio with its own modules: the package fixes its folder when it is imported."""

    def __init__(self, run_name: str, *, name: str, config: dict[str, Any]) -> None:
        super().__init__(run_name, name=name, config=config, resume="allow", embed=False)
        self._before: dict[str, ModuleType] = {}

    def start(self) -> None:
        self._before = _without_modules("trackio")
        try:
            with redirect_stdout(StringIO()):
                super().start()
        except Exception:
            self._restore_modules()
            raise

    def finish(self) -> None:
        trackio: Any = import_module("trackio")
        try:
            with redirect_stdout(StringIO()):
                trackio.finish()  # the run's own method would leave it to be finished at exit
        finally:
            self._restore_modules()

    def _restore_modules(self) -> None:
        _without_modules("trackio")
        sys.modules.update(self._before)


def _start_trackio(run: TrackedRun) -> GeneralTracker:
    os.environ.setdefault("TRACKIO_DIR", str((run.directory / "trackio").absolute()))
    name = run.directory.name
    tracker = _OwnTrackio(name, name=name, config=dict(run.settings))
    tracker.start()
    return tracker


def _without_modules(package: str) -> dict[str, ModuleType]:
    """Forgets and returns the imported modules of a package."""
    names = [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}


def _start_comet_ml(run: TrackedRun) -> GeneralTracker:
    offline = "COMET_API_KEY" not in os.environ
    if offline:
        os.environ.setdefault("COMET_OFFLINE_DIRECTORY", str(run.directory / "comet_ml"))
    tracker = CometMLTracker(run.directory.name, **({"online": False} if offline else {}))
    tracker.start()
    return tracker


def _start_aim(run: TrackedRun) -> GeneralTracker:
    tracker = AimTracker(run.directory.name, run.directory / "aim")
    tracker.start()
    return tracker


STARTED_BY: dict[str, Callable[[TrackedRun], GeneralTracker]] = {
    "tensorboard": _start_tensorboard,
    "wandb": _start_wandb,
    "mlflow": _start_mlflow,
    "trackio": _start_trackio,
    "comet_ml": _start_comet_ml,
    "aim": _start_aim,
}
"""The function that starts each tracker that a recipe can name."""
