"""The fast dropout drops, scales and passes gradients as torch's does."""

import pytest
import torch
from torch import nn

from trainer.models.speedups.dropout import FastDropout, speed_up_dropout


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_share_scale_and_gradient(p, dtype):
    torch.manual_seed(0)
    given = torch.ones(300, 301, dtype=dtype, requires_grad=True)
    result = FastDropout(p)(given)
    result.sum().backward()
    kept = result != 0
    assert (~kept).float().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / 90_300) ** 0.5)
    torch.testing.assert_close(result[kept], torch.full_like(result[kept], 1 / (1 - p)))
    assert torch.equal(given.grad, result)
    along_rows, along_columns = kept.float().mean(1), kept.float().mean(0)
    assert along_rows.std() < 0.04
    assert along_columns.std() < 0.04


def test_nothing_is_dropped_in_evaluation_or_at_0():
    given = torch.randn(7, 5)
    assert torch.equal(FastDropout(0.5).eval()(given), given)
    assert torch.equal(FastDropout(0.0)(given), given)
    assert FastDropout(1.0)(given).abs().max() == 0


def test_the_same_seed_gives_the_same_mask_and_others_another():
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(FastDropout(0.3)(torch.ones(1001)))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_a_model_keeps_its_names():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.2), nn.Sequential(nn.Dropout(0.4)))
    names = list(model.state_dict())
    speed_up_dropout(model)
    assert list(model.state_dict()) == names
    assert [one.p for one in model.modules() if isinstance(one, FastDropout)] == [0.2, 0.4]
