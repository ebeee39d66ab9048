"""Steps with sparse gradients of an embedding equal those with dense gradients."""

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_

from trainer.engines.step import global_grad_norm
from trainer.models.speedups.row_gradients import use_row_gradients
from trainer.optim import build_optimizer
from trainer.recipe.training import Optimizer

ROWS = 500


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(ROWS, 16, padding_idx=0)
        self.positions = nn.Embedding(8, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(ids) + self.positions(torch.arange(ids.shape[1]))).mean(1)


class ReadsWeight(Classifier):
    """Also uses the embedding's weight directly."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) + self.head(self.words.weight).mean(0)


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
    """Takes 5 clipped steps of two micro-batches and returns the norms before clipping."""
    generator = torch.Generator().manual_seed(1)
    norms = []
    for _ in range(5):
        for _ in range(2):
            ids = torch.randint(ROWS, (3, 8), generator=generator)
            ids[:, 5:] = 0
            ids[0, 1] = ids[1, 2]  # a row that occurs twice
            targets = torch.randint(3, (3,), generator=generator)
            nn.functional.cross_entropy(model(ids), targets).backward()
        norm = global_grad_norm(dict(model.named_parameters()))
        clip_grads_with_norm_(model.parameters(), 0.1, norm)
        optimizer.step()
        optimizer.zero_grad()
        norms.append(norm.item())
    return norms


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "adamw", "eps": 1e-4},
        {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1},
        {"name": "adamw_8bit", "eps": 1e-4},
    ],
    ids=lambda settings: settings["name"],
)
@pytest.mark.parametrize("model_class", [Classifier, ReadsWeight])
def test_norms_and_weights_are_the_same(model_class, settings):
    norms, weights = [], []
    for by_rows in (False, True):
        model = model_class()
        first = model.words.weight.detach().clone()
        optimizer = build_optimizer(
            dict(model.named_parameters()), Optimizer(learning_rate=0.1, **settings)
        )
        if by_rows:
            use_row_gradients(model, optimizer, tokens_per_step=48)
        assert (model.words.sparse, model.positions.sparse) == (by_rows, False)
        norms.append(train(model, optimizer))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert (model.words.weight - first).abs().max() > 1e-3
    assert min(norms[0]) > 0.1
    assert norms[1] == pytest.approx(norms[0], abs=1e-6)
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)


def test_a_gradient_that_is_not_a_number_is_seen():
    model = Classifier()
    use_row_gradients(model, torch.optim.SGD(model.parameters()), tokens_per_step=8)
    (model(torch.ones(1, 8, dtype=torch.int64)) * torch.inf).sum().backward()
    assert model.words.weight.grad.is_sparse
    assert not global_grad_norm({"words": model.words.weight}).isfinite()


def test_an_unused_embedding_does_not_interfere():
    model = Classifier()
    optimizer = torch.optim.SGD(model.parameters())
    use_row_gradients(model, optimizer, tokens_per_step=8)
    model.head(torch.ones(1, 16)).sum().backward()
    optimizer.step()
    assert model.words.weight.grad is None


def tied(model: Classifier) -> None:
    model.head = nn.Linear(16, ROWS, bias=False)
    model.head.weight = model.words.weight


def frozen(model: Classifier) -> None:
    model.words.requires_grad_(False)


@pytest.mark.parametrize(
    ("change", "tokens_per_step"),
    [(tied, 8), (frozen, 8), (lambda _: None, ROWS / 2)],
    ids=["tied", "frozen", "most rows occur"],
)
def test_other_embeddings_stay_dense(change, tokens_per_step):
    model = Classifier()
    change(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad])
    use_row_gradients(model, optimizer, tokens_per_step=tokens_per_step)
    assert not model.words.sparse
