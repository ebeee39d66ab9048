"""Curves and the figures that are drawn of them."""

import re
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest
from support.sample_run import write_run

from trainer.report.figures.answers import answer_plots
from trainer.report.figures.curves import MOST_POINTS, curve, share_clipped, thinned
from trainer.report.figures.drawing import Drawn, drawn
from trainer.report.figures.plot import INK
from trainer.report.figures.training import training_plots
from trainer.report.recorded import read_run
from trainer.report.report import Report, report_of


def lines(losses: list[float | None]) -> list[dict[str, Any]]:
    """Returns a training line for each loss, with an evaluation after the second."""
    found: list[dict[str, Any]] = [
        {"step": step, "split": "train", "loss": loss, "tokens": 100 * step, "seconds": 2.0}
        for step, loss in enumerate(losses, start=1)
    ]
    found.insert(2, {"step": 2, "split": "validation", "loss": 0.5, "seconds": 7.0})
    return found


def test_a_curve_knows_its_steps_tokens_and_time():
    found = curve(lines([0.9, 0.8, 0.7]), "train", "loss")
    assert found.values == [0.9, 0.8, 0.7]
    assert found.steps == [1, 2, 3]
    assert found.tokens == [100, 200, 300]
    assert found.seconds == [2, 4, 13], "an evaluation takes time, too"
    evaluated = curve(lines([0.9, 0.8, 0.7]), "validation", "loss")
    assert (evaluated.steps, evaluated.tokens, evaluated.seconds) == ([2], [200], [11])


def test_values_that_are_not_finite_are_left_out():
    found = curve(lines([0.9, None, float("nan"), 0.6]), "train", "loss")
    assert (found.steps, found.values) == ([1, 4], [0.9, 0.6])


def test_a_long_curve_keeps_its_ends_and_its_spikes():
    values = [float(i % 7) for i in range(100_000)]
    values[54_321], values[77_777] = 99.0, -99.0
    kept = thinned(values)
    assert len(kept) <= MOST_POINTS
    assert kept == sorted(set(kept))
    assert {0, 54_321, 77_777, 99_999} <= set(kept)
    assert thinned(values[:MOST_POINTS]) == list(range(MOST_POINTS))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return report_of(read_run(write_run(tmp_path_factory.mktemp("runs") / "hostile", "hostile")))


@pytest.fixture(scope="module")
def figures(report: Report) -> list[Drawn]:
    return drawn([*training_plots(report), *answer_plots(report)], with_pdf=True)


def test_the_share_of_clipped_steps_is_counted(report):
    norms = [line["grad_norm"] for line in report.run.lines if line["split"] == "train"]
    share = sum(norm > 1.0 for norm in norms) / len(norms)
    assert 0 < share < 1
    assert share_clipped(report) == (share, 40)


def test_a_metric_cannot_name_a_file_elsewhere(tmp_path):
    report = report_of(read_run(write_run(tmp_path / "run")))
    name = '../a b"<c>'
    report.results["recipe"]["evaluation"]["metric"] = name
    for line in report.run.lines:
        if line["split"] == "validation":
            line[name] = 0.5
    names = {plot.name for plot in training_plots(report)}
    assert "metric-a-b-c" in names
    assert all(re.fullmatch("[a-z0-9-]+", one) for one in names)


def test_a_figure_is_one_element_that_is_read_aloud_and_shares_no_id(figures):
    ids: list[str] = []
    for figure in figures:
        root = xml.etree.ElementTree.fromstring(figure.svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("role") == "img"
        title, description = root[0], root[1]
        assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        assert (title.text, description.text) == (figure.title, figure.description)
        own = [id for one in root.iter() if (id := one.get("id"))]
        assert all(id.startswith(f"{figure.name}-") for id in own)
        used = re.findall(r'(?:url\(|href=")#([^)"]+)', figure.svg)
        assert set(used) <= set(own)
        ids += own
    assert len(ids) == len(set(ids))
    names = {figure.name for figure in figures}
    assert names >= {"loss-steps", "loss-tokens", "loss-seconds", "gradient-norm", "speed"}
    assert names >= {"confusion-test", "reliability-test", "intervals-test", "metric-accuracy"}


def test_text_and_axes_take_the_colour_around_them_and_nothing_has_a_date(figures):
    for figure in figures:
        assert INK not in figure.svg
        assert "currentColor" in figure.svg
        assert "#000000" not in figure.svg
        assert "#ffffff" not in figure.svg
        assert "<metadata" not in figure.svg
        assert figure.pdf is not None
        assert figure.pdf.startswith(b"%PDF-")
        assert b"CreationDate" not in figure.pdf


def test_settings_of_the_user_change_no_figure(report, figures, tmp_path: Path):
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        again = drawn(training_plots(report))
        assert matplotlib.rcParams["font.size"] == 30
    assert [figure.svg for figure in again] == [figure.svg for figure in figures[: len(again)]]


def test_a_run_of_few_steps_has_no_curves(tmp_path):
    run = read_run(write_run(tmp_path / "short", "classification", num_lines=3))
    names = [plot.name for plot in training_plots(report_of(run))]
    assert "loss-steps" in names, "four evaluations are enough"
    assert "learning-rate" not in names
