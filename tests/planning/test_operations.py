"""What counts as an operation that a GPU computes and launches."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.planning.trace.operations import Operations
from trainer.planning.trace.storages import Storages


def counted(compute):
    """Returns the kernels and the floating-point operations of a function of two matrices."""
    storages = Storages()
    operations = Operations(storages, on_gpu=True)
    with FakeTensorMode(), storages, operations:
        left, right = torch.empty(4, 8), torch.empty(8, 2)
        compute(left, right)
    return operations.kernels.total(), operations.flops.total()


def test_products_are_computed_and_launched():
    assert counted(lambda left, right: left @ right) == (1, 2 * 4 * 8 * 2)
    assert counted(lambda left, right: (left @ right).relu_()) == (2, 2 * 4 * 8 * 2)


def test_views_and_new_tensors_launch_nothing():
    assert counted(lambda left, right: (left.t(), right.view(16), left[1:], left.detach())) == (
        0,
        0,
    )
    assert counted(lambda left, _: (torch.empty_like(left), left.new_empty(3), left.device)) == (
        0,
        0,
    )
    assert counted(lambda left, _: torch.zeros_like(left)) == (1, 0)
