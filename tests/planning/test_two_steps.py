"""Two steps made of the log of one hold what two steps do that are taken."""

import pytest
import torch
from torch import nn

from trainer.optim import build_optimizer
from trainer.planning.trace.ledger import add_up
from trainer.planning.trace.step import GRADIENTS, MOMENTS
from trainer.planning.trace.storages import ACTIVATIONS, Storages
from trainer.planning.trace.two_steps import two_steps
from trainer.recipe.training import Optimizer


def model_and_input():
    torch.manual_seed(0)
    layers = [nn.Linear(600, 700), nn.Tanh(), nn.Linear(700, 500), nn.Tanh(), nn.Linear(500, 1)]
    return nn.Sequential(*layers), torch.randn(900, 600)


def logged(settings, num_steps, num_micro_batches):
    """Takes optimizer steps; returns the log of all storages, and all names of phases in it."""
    model, inputs = model_and_input()
    storages = Storages()
    optimizer = build_optimizer(dict(model.named_parameters()), settings)
    with storages:
        storages.begin("loading")
        for parameter in model.parameters():
            storages.rename(parameter, "weights")
            parameter.register_post_accumulate_grad_hook(
                lambda one: storages.rename(one.grad, GRADIENTS)
            )
        for _ in range(num_steps):
            for _ in range(num_micro_batches):
                storages.begin("forward")
                loss = model(inputs).square().mean()
                storages.begin("backward")
                loss.backward()
            storages.begin("optimizer")
            brief = torch.stack([parameter.grad.norm() for parameter in model.parameters()])
            storages.kind = MOMENTS
            optimizer.step()
            storages.kind = ACTIVATIONS
            optimizer.zero_grad()
            del brief, loss
    return list(storages.log)  # without the end of the model


@pytest.mark.parametrize("num_micro_batches", [1, 2, 5])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_two_steps_hold_what_is_held_if_they_are_taken(name, num_micro_batches):
    settings = Optimizer(name=name, learning_rate=0.1)
    one = logged(settings, 1, 1)
    made = add_up(two_steps(one, accumulates=num_micro_batches > 1))
    taken = add_up(logged(settings, 2, num_micro_batches))
    for phase in ("forward", "backward", "optimizer"):
        assert made.peaks[phase].held == taken.peaks[phase].held, phase
        assert made.peaks[phase].allocated == taken.peaks[phase].allocated > 10**6
    assert made.reserved == taken.reserved


def test_the_second_step_has_moments_from_its_beginning():
    log = logged(Optimizer(name="adamw", learning_rate=0.1), 1, 1)
    weights = sum(event.size for event in log if event.kind == "weights" and event.size > 0)
    taken, made = add_up(log).peaks, add_up(two_steps(log, accumulates=False)).peaks
    assert MOMENTS not in taken["forward"].held
    assert made["forward"].held[MOMENTS] > 2 * weights
    for kind in ("weights", ACTIVATIONS):
        assert made["forward"].held[kind] == taken["forward"].held[kind]
