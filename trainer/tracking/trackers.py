"""The trackers of a recipe: Accelerate's, which write into the run directory, and never fail a run.

A tracker that fails, at its start or later, is left alone from then on, and a note says so.
"""

import importlib.util
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from trainer.errors import ConfigError
from trainer.tracking.services import STARTED_BY, TrackedRun
from trainer.wording import kind_and_reason

Outcome = TypeVar("Outcome")
Pixels = npt.NDArray[np.uint8]
"""An image [height, width, 3]."""
EXTRAS = ("wandb", "mlflow", "trackio")
"""Trackers that an extra of the same name installs."""


class SafeTracker(GeneralTracker):
    """A tracker of Accelerate whose errors become one note; after the first it does nothing."""

    requires_logging_directory = False

    def __init__(
        self, name: str, begin: Callable[[], GeneralTracker], say: Callable[[str], None]
    ) -> None:
        self.name = name
        super().__init__()
        self._begin = begin
        self._say = say
        self._started: GeneralTracker | None = None

    @property
    def tracker(self) -> Any:
        """What the package itself calls a run or a writer; None unless the tracker works."""
        started: Any = self._started
        return None if started is None else started.tracker

    def start(self) -> None:
        with _quiet():
            self._started = self._guarded(self._begin)

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        started = self._started
        if started is not None:
            self._guarded(lambda: started.log(values, step=step))

    @property
    def shows_reports(self) -> bool:
        """Whether the tracker works, and shows texts or images."""
        return isinstance(self._started, TensorBoardTracker | WandBTracker)

    def log_report(self, text: str, images: Mapping[str, Pixels], step: int) -> None:
        """Shows the report of a finished run, if the tracker shows texts or images."""
        started = self._started
        if isinstance(started, TensorBoardTracker):
            batches = {name: image[None] for name, image in images.items()}

            def log_both() -> None:
                started.log({"report": text}, step=step)
                started.log_images(batches, step=step, dataformats="NHWC")

            self._guarded(log_both)
        elif isinstance(started, WandBTracker):
            lists = {name: [image] for name, image in images.items()}
            self._guarded(lambda: started.log_images(lists, step=step))

    def finish(self) -> None:
        started, self._started = self._started, None
        if started is not None:
            with _quiet():
                self._guarded(started.finish)

    def _guarded(self, action: Callable[[], Outcome]) -> Outcome | None:
        """Returns what an action returns, or None if it fails."""
        try:
            return action()
        except Exception as error:
            self._started = None
            reason = kind_and_reason(error)
            self._say(
                f"note: the tracker {self.name} failed ({reason}); the run continues without it, "
                f"and metrics.jsonl has every line"
            )
            return None


def check_installed(names: tuple[str, ...]) -> None:
    """Raises ConfigError, which names what to install, if the package of a tracker is missing."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            package = f"'trainer[{name}]'" if name in EXTRAS else name
            raise ConfigError(
                f"tracking.trackers: {name} is not installed",
                key="tracking.trackers",
                value=name,
                hint=f"pip install {package}",
            )


def start_trackers(
    accelerator: Accelerator,
    directory: Path,
    names: tuple[str, ...],
    *,
    settings: Mapping[str, Any],
    text: str,
    step: int,
    say: Callable[[str], None],
) -> None:
    """Starts the named trackers on the main process; `Accelerator.log` then feeds them.

    `settings` is the recipe by dotted key, and `text` the recipe as YAML. A run that continues from
    `step` continues the tracker's run that it began. Changes environment variables, which the
    caller restores.
    """
    run = TrackedRun(directory=directory, settings=settings, text=text, step=step)
    accelerator.log_with.extend(
        SafeTracker(name, partial(STARTED_BY[name], run), say) for name in dict.fromkeys(names)
    )
    accelerator.init_trackers(directory.name)


def shows_reports(accelerator: Accelerator) -> bool:
    """Returns whether `log_report` has a tracker to show a report in."""
    trackers = accelerator.trackers
    return any(isinstance(item, SafeTracker) and item.shows_reports for item in trackers)


def log_report(
    accelerator: Accelerator, text: str, figures: Mapping[str, bytes], *, step: int
) -> None:
    """Shows the report of a finished run in the trackers: its Markdown, and figures as PNG files
    by name."""
    images = {f"report/{name}": _pixels(figure) for name, figure in figures.items()}
    for tracker in accelerator.trackers:
        if isinstance(tracker, SafeTracker):
            tracker.log_report(text, images, step)


def _pixels(figure: bytes) -> Pixels:
    """Returns the pixels of a PNG file."""
    from io import BytesIO

    from PIL import Image

    return np.asarray(Image.open(BytesIO(figure)).convert("RGB"))


@contextmanager
def _quiet() -> Generator[None]:
    """Context manager: hides what the packages print and log about their ordinary work."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)
