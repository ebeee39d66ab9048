"""A head that reads only the first token gives the same if the last layer computes only that."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

from trainer.models.speedups.first_token import FIRST_TOKEN_CLASSIFIERS, compute_first_token_alone
from trainer.models.tuning import enable_gradient_checkpointing

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
    "initializer_range": 0.5,  # else attention, and its gradients, are next to nothing
}
TYPES = ("bert", "camembert", "electra", "roberta", "xlm-roberta")


def config_of(model_type: str, **numbers: object):
    return AutoConfig.for_model(model_type, **SIZES | numbers)


def gradients_after(model: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    """Returns the logits of padded rows, and the gradients of a loss of theirs."""
    ids = torch.randint(2, 50, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[1, 5:], mask[1, 5:] = 1, 0
    logits = model(input_ids=ids, attention_mask=mask).logits
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1, 0])).backward()
    return {name: p.grad for name, p in model.named_parameters()} | {"logits": logits.detach()}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("model_type", TYPES)
def test_logits_and_gradients_are_the_same(model_type, checkpointing):
    torch.manual_seed(0)
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    numbers = config_of(model_type, classifier_dropout=0.0, **dropout)
    whole = AutoModelForSequenceClassification.from_config(numbers).train()
    if checkpointing:
        enable_gradient_checkpointing(whole)
    alone = copy.deepcopy(whole)
    compute_first_token_alone(alone)
    shapes = []
    layer = alone.base_model.encoder.layer[-1]
    layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
    expected, got = gradients_after(whole), gradients_after(alone)
    assert shapes[0] == (4, 1, 16)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient is not None
        if not name.endswith("key.bias"):  # to which softmax is indifferent
            assert gradient.abs().max() > 1e-4, name
        torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_the_table_names_what_was_tested():
    found = {
        type(AutoModelForSequenceClassification.from_config(config_of(name))).__name__
        for name in TYPES
    }
    assert found == set(FIRST_TOKEN_CLASSIFIERS)


@pytest.mark.parametrize(
    ("auto_model", "model_type", "numbers"),
    [
        (AutoModelForMaskedLM, "bert", {}),
        (AutoModelForSequenceClassification, "llama", {}),
        (AutoModelForSequenceClassification, "bert", {"chunk_size_feed_forward": 2}),
    ],
    ids=["every token is read", "another layout", "sequences are cut up"],
)
def test_other_models_stay_as_they_are(auto_model, model_type, numbers):
    model = auto_model.from_config(config_of(model_type, **numbers))
    compute_first_token_alone(model)
    assert not any(module._forward_pre_hooks for module in model.modules())
