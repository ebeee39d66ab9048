"""FSDP2's shards and buffers on up to 1,024 ranks, of which this process is the first."""

import copy
import time

import pytest
import torch
from support.live_bytes import Peak, stored_bytes
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM, LlamaConfig

from trainer.models.architecture import shape_config
from trainer.planning.engine_bytes import engine_memory
from trainer.planning.held_memory import planned_parameters
from trainer.planning.launches import PlannedLaunch
from trainer.recipe.model import Model
from trainer.recipe.training import Optimizer

ADAMW = Optimizer(name="adamw", learning_rate=1e-4)


class Wrapped(nn.Module):
    """Like an objective: the model inside, so that its embeddings are gathered with the root."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(input_ids=ids, labels=ids, use_cache=False).loss


@pytest.fixture
def ranks():
    """Makes this process the first of several ranks, whose collectives do nothing."""

    def start(number: int) -> None:
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=number)

    yield start
    dist.destroy_process_group()


@pytest.fixture
def objective():
    """A Llama of odd sizes."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=301,
        hidden_size=136,
        intermediate_size=262,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return Wrapped(AutoModelForCausalLM.from_config(config))


def sharded(objective, mesh, precision, *, resharding=True):
    """Returns the objective wrapped as Accelerate does it."""
    policy = MixedPrecisionPolicy()
    if precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in objective.model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=resharding)
    return fully_shard(objective, mesh=mesh, mp_policy=policy)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("number", "replicas"), [(2, 1), (7, 1), (1024, 1), (16, 2), (1024, 128)])
def test_shards_are_those_of_a_real_wrap(number, replicas, precision, ranks, objective):
    frozen = [*objective.model.model.layers[1].parameters()]
    for weight in frozen:
        weight.requires_grad = False
        weight.data = weight.data.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    launch = PlannedLaunch(engine="fsdp2", processes=number, replicas=replicas)
    planned = engine_memory(planned_parameters(objective), launch, precision, ADAMW).rank
    ranks(number)
    shape, names = (replicas, number // replicas), ("dp_replicate", "dp_shard")
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    wrapped = sharded(objective, mesh if replicas > 1 else mesh["dp_shard"], precision)
    parameters = [weight for weight in wrapped.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(parameters, foreach=False)
    ids = torch.arange(2)[None]
    wrapped(ids).backward()
    gradients = [weight.grad for weight in parameters]
    optimizer.step()
    states = [list(state.values()) for state in optimizer.state.values()]
    counts = 4 * len(parameters)  # `step`
    assert stored_bytes(wrapped.parameters()) == planned.weights
    assert stored_bytes(gradients) == planned.gradients
    assert stored_bytes(states) - counts == planned.moments


@pytest.mark.parametrize("resharding", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_peak_of_a_backward_is_near_the_plan(precision, resharding, ranks, objective):
    launch = PlannedLaunch(engine="fsdp2", processes=64, resharding=resharding)
    planned = engine_memory(planned_parameters(objective), launch, precision, ADAMW).rank
    ranks(64)
    mesh = init_device_mesh("cpu", (64,))
    wrapped = sharded(objective, mesh, precision, resharding=resharding)
    ids = torch.arange(2)[None]
    wrapped(ids).backward()
    wrapped.zero_grad()
    with Peak([*wrapped.parameters(), *wrapped.buffers()]) as peak:
        wrapped(ids).backward()
    expected = planned.weights + planned.gradients + planned.buckets
    low, high = (0.95, 1.1) if resharding else (0.85, 1.2)  # which no shipped launch does
    assert low * peak.most < expected < high * peak.most


def test_layers_are_found_and_tied_weights_count_once(objective):
    found = planned_parameters(objective)
    assert len({one.layer for one in found} - {None}) == 3
    assert sum(one.layer is None for one in found) == 3  # embeddings, norm, output layer
    tied = copy.deepcopy(objective)
    tied.model.lm_head.weight = tied.model.model.embed_tokens.weight
    assert len(planned_parameters(tied)) == len(found) - 1


def test_1024_ranks_of_70b_take_seconds():
    start = time.perf_counter()
    config = shape_config(Model(name_or_path="meta-llama/Llama-3.1-70B"))
    with torch.device("meta"):
        model = Wrapped(AutoModelForCausalLM.from_config(config))
    launch = PlannedLaunch(engine="fsdp2", processes=1024, nodes=128)
    held = engine_memory(planned_parameters(model), launch, "bf16", ADAMW).rank
    assert time.perf_counter() - start < 10
    assert held.states == pytest.approx(16 * 70_553_706_496 / 1024, rel=0.01)
