"""Groups of parameters, and a step of each optimizer."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn

from trainer.assembly.build import build_run
from trainer.checkpoints.disk_space import checkpoint_size
from trainer.engines.accelerator import launched
from trainer.engines.fsdp2 import fill_in_fsdp
from trainer.errors import ConfigError
from trainer.loop import train
from trainer.optim import OPTIMIZERS as KINDS
from trainer.optim import Kind, build_optimizer, parameter_groups
from trainer.recipe.training import Optimizer
from trainer.schedule import learning_rate
from trainer.state import TrainState
from trainer.tasks.recipe import parse_recipe

OPTIMIZERS = ("adamw", "sgd", "adamw_8bit", "paged_adamw_8bit")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 64)
        self.dense = nn.Linear(64, 64)  # 4,096 weights; smaller tensors keep fp32 moments
        self.norm = nn.LayerNorm(64)


def parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters())


def test_biases_and_norms_do_not_decay() -> None:
    named = parameters(Block())
    decayed, spared = parameter_groups(named, 0.1)
    assert decayed["params"] == [named["embedding.weight"], named["dense.weight"]]
    assert spared["params"] == [named["dense.bias"], named["norm.weight"], named["norm.bias"]]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize(
    ("module", "decay"), [(nn.LayerNorm(4), 0.0), (nn.Linear(4, 4, bias=False), 0.1)]
)
def test_no_group_is_empty(module: nn.Module, decay: float) -> None:
    (group,) = parameter_groups(parameters(module), 0.1)
    expected = {"params": list(module.parameters()), "weight_decay": decay, "lr_scale": 1.0}
    assert group == expected


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_lowers_a_loss(name: str) -> None:
    torch.manual_seed(0)
    module = Block()
    optimizer = build_optimizer(
        parameters(module), Optimizer(name=name, learning_rate=1e-2, momentum=0.5)
    )
    before = {key: value.detach().clone() for key, value in module.named_parameters()}
    losses = []
    for _ in range(20):
        loss = module.norm(module.dense(module.embedding.weight)).sub(2.0).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.98 * losses[0]
    assert not any(torch.equal(before[key], value) for key, value in module.named_parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_with_zero_gradients_only_decays(name: str) -> None:
    module = Block()
    optimizer = build_optimizer(
        parameters(module), Optimizer(name=name, learning_rate=0.1, weight_decay=0.2)
    )
    before = {key: value.detach().clone() for key, value in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in module.named_parameters():
        shrunk = 1 - 0.1 * 0.2 if value.ndim == 2 else 1.0
        torch.testing.assert_close(value.data, before[key] * shrunk)


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_8bit_moments_of_large_tensors_are_bytes(name: str) -> None:
    module = Block()
    optimizer = build_optimizer(parameters(module), Optimizer(name=name))
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moments = {key: optimizer.state[value]["state1"] for key, value in module.named_parameters()}
    assert moments.pop("dense.weight").dtype == torch.uint8
    assert {moment.dtype for moment in moments.values()} == {torch.float32}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_settings_reach_the_optimizer(name: str) -> None:
    settings = Optimizer(
        name=name, learning_rate=0.3, betas=(0.8, 0.95), eps=1e-4, momentum=0.7, weight_decay=0.2
    )
    for group in build_optimizer(parameters(Block()), settings).param_groups:
        assert group["lr"] == 0.3
        if name == "sgd":
            assert group["momentum"] == 0.7
        else:
            assert (tuple(group["betas"]), group["eps"]) == ((0.8, 0.95), 1e-4)


def test_adamw_is_torchs_own() -> None:
    """One step computed by hand: the moments cancel, so weights move by the learning rate."""
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    settings = Optimizer(learning_rate=0.1, weight_decay=0.5, eps=1e-12)
    optimizer = build_optimizer({"weight": weight}, settings)
    weight.grad = torch.tensor([[3.0, -0.01]])
    optimizer.step()
    decayed = torch.tensor([[1.0, -2.0]]) * (1 - 0.1 * 0.5)
    torch.testing.assert_close(weight.data, decayed - 0.1 * torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_table_says_what_an_optimizer_keeps(name: str, momentum: float) -> None:
    module, settings = Block(), Optimizer(name=name, momentum=momentum)
    optimizer = build_optimizer(parameters(module), settings)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kind = KINDS[name]
    for parameter in module.parameters():
        kept = {
            entry: (tuple(value.shape), value.dtype)
            for entry, value in optimizer.state[parameter].items()
            if entry != "step" and isinstance(value, torch.Tensor)
        }
        expected = dict(kind.state(tuple(parameter.shape), settings))
        assert ("step" in optimizer.state[parameter]) == ("step" in expected)
        expected.pop("step", None)
        assert kept == expected
        stored = sum(size.numel() * dtype.itemsize for size, dtype in sized(kept.values()))
        assert kind.moment_bytes(tuple(parameter.shape), settings) == stored


def sized(entries):
    return [(torch.Size(shape), dtype) for shape, dtype in entries]


def rows_at_half_rate(groups: list[dict[str, Any]], settings: Optimizer):
    """An optimizer with one moment a row, which halves the rate of decayed parameters."""
    for group in groups:
        group["lr_scale"] = 0.5 if group["weight_decay"] else 1.0
    return torch.optim.SGD(groups, lr=settings.learning_rate)


ROWS = Kind(
    build=rows_at_half_rate,
    state=lambda shape, _: {"row": (shape[:1], torch.float32)},
    elementwise=False,
)


def test_an_optimizer_is_one_entry_of_the_table(reviews_recipe, tmp_path, monkeypatch) -> None:
    """The loop, the check of disk space and the engines read its entry, not its name."""
    monkeypatch.setitem(KINDS, "rows", ROWS)
    reviews_recipe["schedule"] = {"name": "linear", "steps": 3}
    recipe = parse_recipe(reviews_recipe, "test")
    settings = recipe.optimizer.model_copy(update={"name": "rows"})
    recipe = recipe.model_copy(update={"optimizer": settings})
    module = Block()
    size = checkpoint_size(module.parameters(), settings)
    assert size.moments == 4 * sum(len(parameter) for parameter in module.parameters())
    with launched(recipe, tmp_path) as accelerator:
        run = build_run(recipe, accelerator, tmp_path)
        train(run, accelerator, TrainState())
        peak, schedule = settings.learning_rate, recipe.schedule
        last = learning_rate(2, peak=peak, schedule=schedule, num_steps=3)
        assert [group["lr"] for group in run.optimizer.param_groups] == [last / 2, last]
    monkeypatch.setenv("FSDP_VERSION", "2")
    state = SimpleNamespace(fsdp_plugin=FullyShardedDataParallelPlugin())
    engine: Any = SimpleNamespace(distributed_type=DistributedType.FSDP, state=state)
    with pytest.raises(ConfigError) as error:
        fill_in_fsdp(engine, recipe, "fp32")
    assert (error.value.key, error.value.value) == ("optimizer.name", "rows")
