"""What holds for every task: counts, sums, gradients, statistics."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.task_cases import CASES, Case
from support.toy_task import LENGTH

from trainer.assembly.build import build_run
from trainer.engines.accelerator import build_accelerator
from trainer.run import Run
from trainer.tasks import TASKS
from trainer.tasks.recipe import parse_recipe

ALL = {**CASES, "toy": LENGTH}


@pytest.fixture(scope="module", params=ALL)
def made(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[Case, Run]:
    """A case and its run, before the first step."""
    request.getfixturevalue("outside_package")
    case = ALL[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    recipe = parse_recipe(case.recipe(), request.param)
    return case, build_run(recipe, build_accelerator(recipe, folder), folder)


def test_every_task_has_a_case():
    assert {case.task["name"] for case in CASES.values()} == set(TASKS)


def uneven(run: Run, size: int = 13) -> np.ndarray:
    """Returns examples of as different lengths as there are."""
    order = np.argsort(run.splits["train"].lengths, kind="stable")
    return order[np.linspace(0, len(order) - 1, min(size, len(order))).astype(int)]


def test_counts_are_the_supervised_targets(made):
    case, run = made
    batch = run.task.collate(run.splits["train"], uneven(run), epoch=1)
    assert batch.counts.dtype == torch.float64
    assert batch.counts.tolist() == case.num_targets(batch.targets)
    assert min(batch.counts.tolist()) > 0
    dummy = batch.as_dummy()
    assert dummy.counts.tolist() == [0.0] * len(run.task.loss_terms)
    assert dummy.inputs is batch.inputs


@pytest.mark.parametrize("training", [True, False])
def test_sums_over_counts_are_the_models_own_loss(made, training):
    case, run = made
    run.model.train(training)
    batch = run.task.collate(run.splits["train"], uneven(run), epoch=1)
    sums, _ = run.task.loss_sums(run.model, batch.inputs, batch.targets)
    assert sums.dtype == torch.float32
    weights = torch.tensor([term.weight for term in run.task.loss_terms])
    mine = (weights * sums / batch.counts).sum()
    theirs = case.own_loss(run.model, batch.inputs, batch.targets)
    torch.testing.assert_close(mine.float(), theirs, rtol=1e-6, atol=1e-6)


def gradient(run: Run, cuts: list[np.ndarray]) -> tuple[float, dict[str, torch.Tensor]]:
    """Returns loss and gradient of examples, forwarded in parts."""
    run.model.train()
    run.model.zero_grad()
    batches = [run.task.collate(run.splits["train"], ids, epoch=1) for ids in cuts]
    counts = torch.stack([batch.counts for batch in batches]).sum(0)
    loss = 0.0
    for batch in batches:
        sums, _ = run.task.loss_sums(run.model, batch.inputs, batch.targets)
        part = (run.term_weights * sums / counts).sum()
        part.backward()
        loss += part.item()
    return loss, {name: p.grad.clone() for name, p in run.parameters.items() if p.grad is not None}


def test_the_gradient_does_not_depend_on_the_cut(made):
    _, run = made
    ids = uneven(run)
    loss, whole = gradient(run, [ids])
    assert max(float(one.abs().max()) for one in whole.values()) > 1e-3
    for cuts in ([ids[:1], ids[1:]], np.array_split(ids[::-1], 5)):
        other, parts = gradient(run, list(cuts))
        assert other == pytest.approx(loss, rel=1e-6)
        assert parts.keys() == whole.keys()
        for name, one in whole.items():
            torch.testing.assert_close(parts[name], one, rtol=1e-5, atol=1e-6, msg=name)


def test_an_example_is_the_same_in_any_company_and_differs_at_most_by_epoch(made):
    _, run = made
    split, ids = run.splits["train"], uneven(run)
    together = run.task.collate(split, ids, epoch=3)
    for position in (0, len(ids) - 1):
        alone = run.task.collate(split, ids[position : position + 1], epoch=3)
        width = alone.inputs["input_ids"].shape[1]
        assert torch.equal(
            together.inputs["input_ids"][position, :width], alone.inputs["input_ids"][0]
        )
    again = run.task.collate(split, ids, epoch=3)
    for name, tensor in {**together.inputs, **together.targets}.items():
        assert torch.equal(tensor, {**again.inputs, **again.targets}[name]), name


def outputs_of(run: Run, ids: np.ndarray) -> tuple[Any, Any]:
    run.model.eval()
    batch = run.task.collate(run.splits["validation"], ids, epoch=0)
    with torch.no_grad():
        _, outputs = run.task.loss_sums(run.model, batch.inputs, batch.targets)
    return batch, outputs


def measured(run: Run, parts: list[np.ndarray]) -> dict[str, Any]:
    """Returns the metrics of a model over a validation split evaluated in parts."""
    total, records = np.zeros(run.task.num_statistics), list[Any]()
    split = run.splits["validation"]
    for ids in parts:
        batch, outputs = outputs_of(run, ids)
        found = run.task.statistics(outputs, batch.targets)
        assert (found.dtype, found.shape) == (torch.float64, (run.task.num_statistics,))
        total += found.numpy()
        if run.task.reads_records:
            records += run.task.records(outputs, batch.targets, split, ids)
    return run.task.metrics(total, run.task.answers(records, split))


def test_metrics_do_not_depend_on_how_a_split_was_dealt_out(made):
    _, run = made
    ids = np.arange(len(run.splits["validation"]))
    whole = measured(run, np.array_split(ids, 3))
    parts = measured(run, np.array_split(ids[::-1], 11))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        expected = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
        assert parts[name] == expected, name
    offered = set(run.task.metrics_offered)
    losses = {"loss", *(f"loss_{term.name}" for term in run.task.loss_terms)}
    assert offered - losses <= whole.keys()
    assert set(run.task.scales) <= whole.keys()


def test_perfect_predictions_score_perfectly(made):
    case, run = made
    split, total, records = run.splits["validation"], np.zeros(run.task.num_statistics), list[Any]()
    for ids in np.array_split(np.arange(len(split)), 3):
        batch = run.task.collate(split, ids, epoch=0)
        outputs = case.perfect(run.task, batch.targets)
        total += run.task.statistics(outputs, batch.targets).numpy()
        if run.task.reads_records:
            records += run.task.records(outputs, batch.targets, split, ids)
    name, best = case.score
    assert run.task.metrics(total, run.task.answers(records, split))[name] == pytest.approx(best)


def test_nothing_measured_gives_no_metrics(made):
    _, run = made
    assert run.task.metrics(np.zeros(run.task.num_statistics), []) == {}


def test_evaluations_see_the_same_in_each_epoch_and_training_does_not_change_it(made):
    _, run = made
    first, _ = outputs_of(run, np.arange(5))
    run.task.collate(run.splits["validation"], np.arange(5), epoch=7)
    again, _ = outputs_of(run, np.arange(5))
    for name, tensor in {**first.inputs, **first.targets}.items():
        assert torch.equal(tensor, {**again.inputs, **again.targets}[name]), name


def test_a_run_of_it_trains_and_reports(made, tmp_path: Path, write_recipe):
    from trainer.cli.train import train

    case, run = made
    recipe = write_recipe(case.recipe())
    assert train(str(recipe), ("schedule.epochs=2",), tmp_path / "run", "auto") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    metrics = results["final"]["metrics"]["validation"]
    assert set(run.task.metrics_offered) <= metrics.keys()
    assert metrics["loss"] < results["baseline"]["validation"]["loss"]
    assert (
        dataclasses.asdict(run.parameter_counts)["trainable"] == results["parameters"]["trainable"]
    )
