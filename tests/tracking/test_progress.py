"""What a run shows of its progress, in a terminal and in a notebook."""

import sys
from collections.abc import Generator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from trainer.tracking.progress import (
    NotebookProgress,
    TerminalProgress,
    Update,
    default_progress,
)

RECORD = {"loss": 0.5, "tokens_per_second": 2000.0}


class Widget:
    """What tqdm uses of a widget, without the browser that a real one needs."""

    def __init__(self, **traits: Any) -> None:
        self.value: Any = ""
        self.bar_style = ""
        self.layout, self.style = SimpleNamespace(), SimpleNamespace()
        self.__dict__ |= traits


@pytest.fixture
def in_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process looks like the kernel of a notebook."""
    ipython: Any = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", ipython)


@pytest.fixture
def shown(in_kernel: None, monkeypatch: pytest.MonkeyPatch) -> Generator[list[Any]]:
    """The widgets that were displayed in that notebook."""
    displayed: list[Any] = []
    widgets: Any = ModuleType("ipywidgets")
    widgets.__spec__ = ModuleSpec("ipywidgets", None)
    widgets.HTML = widgets.FloatProgress = widgets.HBox = Widget
    display: Any = ModuleType("IPython.display")
    display.display = displayed.append
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.delitem(sys.modules, "tqdm.notebook", raising=False)
    yield displayed
    sys.modules.pop("tqdm.notebook", None)  # which was imported with these widgets


def take_steps(progress: Any, first: int, last: int) -> None:
    """Takes steps of six, of which the fourth has a record."""
    for step in range(first, last + 1):
        record = RECORD if step == 4 else None
        progress(Update(step=step, num_steps=6, record=record))


def test_a_notebook_shows_messages_and_one_bar(shown, capsys):
    progress = NotebookProgress()
    progress(Update(message="the run\nresumes at step 3"))
    assert shown == []
    take_steps(progress, 3, 4)
    (box,) = shown
    _, bar, text = box.children
    assert (bar.max, bar.value) == (6, 4)
    assert "loss 0.5000, 2,000 tokens/s" in text.value.replace("\u2007", " ")
    take_steps(progress, 5, 6)
    progress(Update(step=6, num_steps=6, ended=True))
    assert (bar.value, bar.bar_style) == (6, "success")
    assert shown == [box]
    assert capsys.readouterr() == ("the run\nresumes at step 3\n", "")


def test_the_bar_of_a_run_that_stopped_early_shows_it(shown):
    progress = NotebookProgress()
    take_steps(progress, 1, 4)
    progress(Update(step=4, num_steps=6, ended=True))
    (box,) = shown
    assert (box.children[1].value, box.children[1].bar_style) == (4, "danger")


def test_a_run_that_ends_before_its_first_step_shows_no_bar(shown):
    NotebookProgress()(Update(num_steps=6, ended=True))
    assert shown == []


def test_a_notebook_with_widgets_gets_a_bar_of_widgets(shown):
    assert isinstance(default_progress(), NotebookProgress)


def test_a_notebook_without_widgets_gets_text(in_kernel, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert isinstance(default_progress(), TerminalProgress)


def test_a_process_outside_a_notebook_gets_text():
    assert isinstance(default_progress(), TerminalProgress)


def test_without_a_terminal_each_record_is_a_line(capsys):
    progress = TerminalProgress()
    progress(Update(message="the run starts"))
    take_steps(progress, 1, 6)
    progress(Update(step=6, num_steps=6, ended=True))
    message, line = capsys.readouterr().out.splitlines()
    assert message == "the run starts"
    assert line.startswith("step 4/6  loss 0.5000  2,000 tokens/s  0:00")
