"""The training loop: fetch the micro-batches of a step, count, forward and backward, clip, step."""

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
from trainer.engines.portable_state import accumulating, global_grad_norm, zero_grad_norm
from trainer.engines.sharding import zero_stage
from trainer.errors import DivergedError, Stopped
from trainer.evaluation.evaluate import evaluate, loss_by_term
from trainer.run import Run
from trainer.schedule import learning_rate
from trainer.state import TrainState
from trainer.tasks.base import Batch


@dataclass(frozen=True, kw_only=True)
class StepResult:
    losses: dict[str, float]
    """The step's loss over all ranks, and by term where a task has several."""
    grad_norm: float
    """Global norm before clipping."""
    skipped: bool
    """Whether fp16 loss scaling left the step out."""


def train(run: Run, accelerator: Accelerator, state: TrainState) -> TrainState:
    """Returns the state after the last step, or after the step in which any rank was to stop.

    Evaluates, and saves what a later call continues from. Raises DivergedError and CheckpointError
    on every rank.
    """
    recipe, order = run.recipe, run.order
    run.objective.train()
    clock = time.monotonic()
    while not finished(run, state):
        left_over = awaits_evaluation(run, state)  # by a run that was stopped
        epoch = order.epoch_of(state.step - left_over) + 1
        stopping, record, started = False, None, time.monotonic()
        if not left_over:
            rate = learning_rate(
                state.step,
                peak=recipe.optimizer.learning_rate,
                schedule=recipe.schedule,
                num_steps=run.num_steps,
            )
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            seed_step(recipe.seed, state.step, accelerator.process_index)

            ids = order.examples(state.step)
            doing = f"in the optimizer's part of step {state.step + 1}"
            with run_memory(run, accelerator, "training", doing):
                window = step_window(run, accelerator, state.step)
                result = optimizer_step(run, accelerator, window, step=state.step + 1)
            tokens = int(run.splits["train"].lengths[ids].sum())
            state = state.after(
                samples=len(ids), tokens=tokens, loss=result.losses["loss"], skipped=result.skipped
            )

            run.stop.leave_time_for(run.saver.reserve, step=time.monotonic() - started)
            stopping, writing = any_rank_of_each(accelerator, run.stop.requested, run.saver.busy)
            if not writing:
                run.saver.finish()
            logging = state.step % recipe.tracking.log_every_steps == 0 or ends_epoch(run, state)
            last = state.step == run.num_steps
            if logging or last or awaits_evaluation(run, state) or stopping:
                seconds, clock = time.monotonic() - clock, time.monotonic()
                values = {**result.losses, "grad_norm": result.grad_norm}
                ranks = run.rank_times.summary()
                record = run.tracker.training(state, epoch, values, rate, seconds, ranks)
            run.tracker.progress(state.step, record)

        pause, improved = time.monotonic(), False
        if awaits_evaluation(run, state) and not stopping:
            try:
                metrics = evaluate(run, accelerator, "validation", until_stopped=True)
            except Stopped:
                if run.stop.leaving:  # not what the ranks have agreed on
                    raise
                stopping = True
            else:
                value = metrics[recipe.evaluation.metric]
                state = state.evaluated(value, mode=recipe.evaluation.mode)
                run.tracker.evaluation(state, epoch, metrics)
                state, improved = state.with_loss_reset(), state.best_step == state.step

        every_steps = recipe.checkpoint.every_steps
        if (
            stopping
            or finished(run, state)
            or (improved and recipe.checkpoint.keep_best)
            or (ends_epoch(run, state) and recipe.checkpoint.every_epoch)
            or (every_steps is not None and state.step % every_steps == 0)
        ):
            doing = f"saving the checkpoint of step {state.step}"
            with run_memory(run, accelerator, "saving", doing):
                run.saver.save(state, ends_epoch=ends_epoch(run, state))
            stopping = stopping or any_rank(accelerator, run.stop.requested)
        clock += time.monotonic() - pause  # evaluating and saving are no training time
        if stopping:
            break
    run.saver.finish()
    return state


def optimizer_step(
    run: Run, accelerator: Accelerator, window: list[Batch], *, step: int
) -> StepResult:
    """Takes one optimizer step over the micro-batches of this rank.

    The gradient is that of the sum of each loss term over the whole step, divided by the term's
    count over the whole step: it does not depend on how the step was cut into micro-batches, nor
    over how many ranks. Raises DivergedError, naming `step`, on every rank, before weights change
    wherever the engine leaves the step to us.
    """
    counts = sum_over_ranks(accelerator, torch.stack([batch.counts for batch in window]).sum(0))
    # Engines average gradients over ranks, and DeepSpeed over micro-batches; the sum is wanted.
    shares = accelerator.num_processes * accelerator.gradient_accumulation_steps
    scale = (shares * run.term_weights / counts.clamp(min=1e-12)).float()
    sums = torch.zeros_like(counts)
    for position, batch in enumerate(window):
        last = position == len(window) - 1
        memory = run_memory(run, accelerator, "training", f"in step {step}", batch)
        with memory, accumulating(accelerator, run.objective, last=last):
            with run.rank_times.forward():
                losses, _ = run.objective(batch.inputs, batch.targets)
            losses = losses * batch.counts.bool()  # a dummy, or a term without targets, counts 0
            accelerator.backward((losses * scale).sum())
        sums += losses.detach()
    stepped = zero_stage(run.objective) > 0  # and clipped, in the last backward
    norm = zero_grad_norm(run.objective) if stepped else _gradient_norm(run, accelerator)
    totals = torch.cat([sum_over_ranks(accelerator, sums), counts, norm.double().reshape(1)])
    *numbers, grad_norm = totals.tolist()  # waits for the device
    losses = loss_by_term(run, np.array(numbers[: len(sums)]), np.array(numbers[len(sums) :]))
    _check_finite(run, numbers[: len(sums)], grad_norm, step)
    max_norm = run.recipe.optimizer.max_grad_norm
    if not stepped:
        if max_norm is not None and grad_norm > max_norm:
            clip_grads_with_norm_(run.parameters.values(), max_norm, norm)
        run.optimizer.step()
        run.optimizer.zero_grad()
    return StepResult(losses=losses, grad_norm=grad_norm, skipped=not math.isfinite(grad_norm))


def _gradient_norm(run: Run, accelerator: Accelerator) -> Tensor:
    accelerator.unscale_gradients()
    return global_grad_norm(run.parameters)


def step_window(run: Run, accelerator: Accelerator, step: int) -> list[Batch]:
    """Returns this rank's micro-batches of optimizer step `step`, dummies included."""
    window: list[Batch] = []
    epoch = run.order.epoch_of(step) + 1
    for ids in run.order.micro_batches(
        step,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        micro_batch_size=run.micro_batch_size,
    ):
        run.rank_times.count(run.splits["train"].lengths[ids])
        stand_in = np.zeros(1, dtype=np.int64)
        ids_or_any = ids if len(ids) else stand_in
        batch = run.task.collate(run.splits["train"], ids_or_any, epoch)
        window.append((batch if len(ids) else batch.as_dummy()).to(accelerator.device))
    return window


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds the generators of this rank for one step, so that dropout resumes by arithmetic."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0]))


def finished(run: Run, state: TrainState) -> bool:
    """Returns whether all steps are done and evaluated, or evaluations stopped improving."""
    patience = run.recipe.evaluation.patience
    if patience is not None and state.num_evaluations_since_best >= patience:
        return True
    return state.step >= run.num_steps and not awaits_evaluation(run, state)


def ends_epoch(run: Run, state: TrainState) -> bool:
    """Returns whether the step just taken was the last of an epoch."""
    return state.step % run.order.steps_per_epoch == 0


def awaits_evaluation(run: Run, state: TrainState) -> bool:
    """Returns whether the validation split is to be evaluated before the next step."""
    if "validation" not in run.splits or state.evaluated_step == state.step:
        return False
    every = run.recipe.evaluation.every
    due = ends_epoch(run, state) if every == "epoch" else state.step % every == 0
    return due or state.step == run.num_steps


def _check_finite(run: Run, sums: list[float], grad_norm: float, step: int) -> None:
    terms = zip(run.task.loss_terms, sums, strict=True)
    wrong = [f"the loss {term.name}" for term, value in terms if not math.isfinite(value)]
    if not math.isfinite(grad_norm):
        # In fp16 the loss scale adapts to it, until nothing is left to scale.
        scaling = loss_scale(run.objective, run.scaler)
        if scaling is None or scaling["scale"] <= 1:
            wrong.append("the gradient")
    if wrong:
        raise DivergedError(
            f"{' and '.join(wrong)} at step {step} are no finite numbers; lower "
            f"optimizer.learning_rate ({run.recipe.optimizer.learning_rate}) or "
            f"optimizer.max_grad_norm, or warm up longer"
        )
