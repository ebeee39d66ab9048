"""The training loop: `train` repeats `optimizer_step`, and between steps logs, evaluates and saves.

Every branch is taken by all ranks alike: it depends on the recipe, on the state, or on a flag that
the ranks have agreed on. A rank that branched on its own would leave the others waiting; the one
exception is a rank that must leave at once.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_

from trainer.assembly.memory_advice import run_memory
from trainer.distributed.collectives import any_rank, any_rank_of_each, sum_over_ranks
from trainer.engines.loss_scale import loss_scale
from trainer.engines.step import (
    accumulating,
    deepspeed_grad_norm,
    global_grad_norm,
    steps_in_backward,
)
from trainer.errors import DivergedError, Stopped
from trainer.evaluation.evaluate import evaluate, loss_by_term
from trainer.run import Run
from trainer.schedule import learning_rate
from trainer.state import TrainState
from trainer.tasks.batch import Batch


@dataclass(frozen=True, kw_only=True)
class StepResult:
    losses: dict[str, float]
    """The step's loss over all ranks, and each term's if the task has several."""
    grad_norm: float
    """Global norm of the gradient before clipping."""
    skipped: bool
    """Whether fp16 loss scaling left the step out, because its gradient overflowed."""


def train(run: Run, accelerator: Accelerator, state: TrainState) -> TrainState:
    """Trains from `state` until the run is finished, or until any rank is asked to stop.

    Ranks agree on stopping between steps, so a step is never cut. Returns the state after the last
    step taken; a checkpoint holds it. Raises DivergedError and CheckpointError on every rank.
    """
    run.objective.train()
    stopping = False

    # A run that was asked to stop leaves the evaluation of its last step to the one resuming it.
    # The baseline before the first step is measured elsewhere (evaluation/before_training.py).
    if evaluation_due(run, state) and not finished(run, state):
        state, stopping = evaluate_and_note_best(run, accelerator, state)
        if checkpoint_due(run, state, stopping=stopping):
            stopping = save_checkpoint(run, accelerator, state, stopping=stopping)

    training_since = time.monotonic()
    while not stopping and not finished(run, state):
        started, step = time.monotonic(), state.step + 1

        # Learning rate, randomness and examples of a step are functions of its index, from 0.
        index = state.step
        rate = set_learning_rate(run, index)
        seed_step(run.recipe.seed, index, run.topology.dp_rank)
        with run_memory(run, accelerator, "training", f"in the optimizer's part of step {step}"):
            micro_batches = micro_batches_of_step(run, accelerator, index)
            result = optimizer_step(run, accelerator, micro_batches, step=step)
        state = state_after(run, state, result)

        # Ranks agree on whether to stop, and on whether one still writes the last checkpoint.
        run.stop.reserve_time(run.saver.seconds_to_reserve, step=time.monotonic() - started)
        stopping, writing = any_rank_of_each(accelerator, run.stop.requested, run.saver.busy)

        # What is due now, in this order.
        record = None
        if not writing:
            run.saver.publish_written()
        if log_due(run, state, stopping=stopping):
            seconds, training_since = time.monotonic() - training_since, time.monotonic()
            values = {**result.losses, "grad_norm": result.grad_norm}
            ranks = run.rank_times.summary()
            record = run.tracker.log_training(
                state, epoch(run, state), values, rate, seconds, ranks
            )
        run.tracker.progress(state.step, record)
        pause_began = time.monotonic()
        if evaluation_due(run, state) and not stopping:
            state, stopping = evaluate_and_note_best(run, accelerator, state)
        if checkpoint_due(run, state, stopping=stopping):
            stopping = save_checkpoint(run, accelerator, state, stopping=stopping)
        training_since += run.tracker.paused_since(pause_began)  # log lines count training alone
    run.saver.publish_written()
    return state


def optimizer_step(
    run: Run, accelerator: Accelerator, micro_batches: list[Batch], *, step: int
) -> StepResult:
    """Takes one optimizer step over the micro-batches of this rank.

    The gradient is that of the sum of each loss term over the whole step, divided by the term's
    target count over the whole step. It depends neither on how the step is cut into micro-batches
    nor on the number of ranks. Raises DivergedError, which names `step`, on every rank, before any
    weight changes, except under DeepSpeed, which has stepped by then.
    """
    group = run.topology.loss_group
    counts = torch.stack([batch.counts for batch in micro_batches]).sum(0)
    counts = sum_over_ranks(accelerator, counts, group)
    # Engines average gradients over ranks, and `backward` divides by the accumulation steps, which
    # are 1 outside DeepSpeed. We need the sum.
    averaged_over = run.topology.dp_size * accelerator.gradient_accumulation_steps
    scale = (averaged_over * run.term_weights / counts.clamp(min=1e-12)).float()
    sums = torch.zeros_like(counts)
    for position, batch in enumerate(micro_batches):
        last = position == len(micro_batches) - 1
        memory = run_memory(run, accelerator, "training", f"in step {step}", batch)
        with memory, accumulating(accelerator, run.objective, last=last):
            with run.rank_times.forward():
                losses, _ = run.objective(batch.inputs, batch.targets)
            losses = losses * batch.counts.bool()  # dummies and terms without targets add 0
            accelerator.backward((losses * scale).sum())
        sums += losses.detach()
    stepped = steps_in_backward(run.objective)
    norm = deepspeed_grad_norm(run.objective) if stepped else _unscale_and_norm(run, accelerator)
    sums = sum_over_ranks(accelerator, sums, group)
    # One copy to the host holds losses, counts and norm; the step waits for it.
    *numbers, grad_norm = torch.cat([sums, counts, norm.double().reshape(1)]).tolist()
    term_sums, term_counts = numbers[: len(sums)], numbers[len(sums) :]
    _check_finite(run, accelerator, term_sums, grad_norm, step)
    max_norm = run.recipe.optimizer.max_grad_norm
    if not stepped:
        if max_norm is not None and grad_norm > max_norm:
            clip_grads_with_norm_(run.parameters.values(), max_norm, norm)
        run.optimizer.step()
        run.optimizer.zero_grad()
    losses = loss_by_term(run, np.array(term_sums), np.array(term_counts))
    return StepResult(losses=losses, grad_norm=grad_norm, skipped=not math.isfinite(grad_norm))


def micro_batches_of_step(run: Run, accelerator: Accelerator, index: int) -> list[Batch]:
    """Returns this rank's micro-batches of optimizer step `index`, from 0, on its device.

    Every rank gets equally many; those without examples are dummies that count 0.
    """
    train, batches = run.splits["train"], list[Batch]()
    epoch_number = run.order.epoch_of(index) + 1
    for ids in run.order.micro_batches(
        index,
        rank=run.topology.dp_rank,
        world_size=run.topology.dp_size,
        micro_batch_size=run.micro_batch_size,
    ):
        run.rank_times.count(train.lengths[ids])
        any_example = np.zeros(1, dtype=np.int64)
        batch = run.task.collate(train, ids if len(ids) else any_example, epoch_number)
        batches.append((batch if len(ids) else batch.as_dummy()).to(accelerator.device))
    return batches


def set_learning_rate(run: Run, index: int) -> float:
    """Sets and returns the learning rate of optimizer step `index`, from 0.

    It is set before the backward pass, because DeepSpeed steps inside it.
    """
    rate = learning_rate(
        index,
        peak=run.recipe.optimizer.learning_rate,
        schedule=run.recipe.schedule,
        num_steps=run.num_steps,
    )
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    return rate


def seed_step(seed: int, index: int, rank: int) -> None:
    """Seeds torch's generators for one step, so that dropout resumes without a saved state."""
    torch.manual_seed(int(np.random.SeedSequence((seed, index, rank)).generate_state(1)[0]))


def state_after(run: Run, state: TrainState, result: StepResult) -> TrainState:
    """Returns the state after the step that follows `state`."""
    ids = run.order.examples(state.step)
    return state.after(
        samples=len(ids),
        tokens=int(run.splits["train"].lengths[ids].sum()),
        loss=result.losses["loss"],
        skipped=result.skipped,
    )


def evaluate_and_note_best(
    run: Run, accelerator: Accelerator, state: TrainState
) -> tuple[TrainState, bool]:
    """Evaluates the validation split and notes whether this step is the best so far.

    Returns the new state, and whether the run should stop. If it should, a rank was asked to stop
    during the evaluation, which is abandoned and still due.
    """
    try:
        metrics = evaluate(run, accelerator, "validation", until_stopped=True)
    except Stopped:
        if run.stop.leaving:  # this rank must leave now, without an agreement
            raise
        return state, True
    settings = run.recipe.evaluation
    state = state.evaluated(metrics[settings.metric], mode=settings.mode)
    run.tracker.log_evaluation(state, epoch(run, state), metrics)
    return state.with_loss_reset(), False


def save_checkpoint(
    run: Run, accelerator: Accelerator, state: TrainState, *, stopping: bool
) -> bool:
    """Saves a checkpoint; returns whether to stop, as asked before or during the save."""
    doing = f"saving the checkpoint of step {state.step}"
    with run_memory(run, accelerator, "saving", doing):
        run.saver.save(state, ends_epoch=ends_epoch(run, state))
    return stopping or any_rank(accelerator, run.stop.requested)


def finished(run: Run, state: TrainState) -> bool:
    """Returns whether all steps are taken and evaluated, or evaluations stopped improving."""
    patience = run.recipe.evaluation.patience
    if patience is not None and state.num_evaluations_since_best >= patience:
        return True
    return state.step >= run.num_steps and not evaluation_due(run, state)


def log_due(run: Run, state: TrainState, *, stopping: bool) -> bool:
    """Returns whether the step just taken is logged."""
    return (
        state.step % run.recipe.tracking.log_every_steps == 0
        or ends_epoch(run, state)
        or state.step == run.num_steps
        or evaluation_due(run, state)
        or stopping
    )


def evaluation_due(run: Run, state: TrainState) -> bool:
    """Returns whether the validation split is evaluated before the next step."""
    if "validation" not in run.splits or state.evaluated_step == state.step:
        return False
    every = run.recipe.evaluation.every
    due = ends_epoch(run, state) if every == "epoch" else state.step % every == 0
    return due or state.step == run.num_steps


def checkpoint_due(run: Run, state: TrainState, *, stopping: bool) -> bool:
    """Returns whether a checkpoint is saved before the next step."""
    settings = run.recipe.checkpoint
    return (
        stopping
        or finished(run, state)
        or (settings.keep_best and state.best_step == state.step)
        or (settings.every_epoch and ends_epoch(run, state))
        or (settings.every_steps is not None and state.step % settings.every_steps == 0)
    )


def ends_epoch(run: Run, state: TrainState) -> bool:
    """Returns whether the step just taken was the last of an epoch."""
    return state.step % run.order.steps_per_epoch == 0


def epoch(run: Run, state: TrainState) -> int:
    """Returns the epoch, from 1, of the step just taken."""
    return run.order.epoch_of(state.step - 1) + 1


def _unscale_and_norm(run: Run, accelerator: Accelerator) -> Tensor:
    """Undoes the scaling of fp16 gradients, and returns their global norm."""
    accelerator.unscale_gradients()
    return global_grad_norm(run.parameters)


def _check_finite(
    run: Run, accelerator: Accelerator, sums: list[float], grad_norm: float, step: int
) -> None:
    """Raises DivergedError for a loss or a gradient that is infinite or not a number."""
    terms = zip(run.task.loss_terms, sums, strict=True)
    wrong = [f"the loss {term.name}" for term, value in terms if not math.isfinite(value)]
    if not math.isfinite(grad_norm):
        # In fp16 that is normal: the loss scale falls until the gradient fits, or cannot fall more.
        scaling = loss_scale(run.objective, accelerator.scaler)
        if scaling is None or scaling["scale"] <= 1:
            wrong.append("the gradient")
    if wrong:
        rate = run.recipe.optimizer.learning_rate
        raise DivergedError(
            f"{' and '.join(wrong)} of step {step} {'are' if wrong[1:] else 'is'} not finite",
            key="optimizer.learning_rate",
            value=rate,
            hint=f"lower optimizer.learning_rate ({rate}) or optimizer.max_grad_norm, or warm up "
            f"longer",
        )
