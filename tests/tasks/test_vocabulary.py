"""The loss over a vocabulary equals the plain one over all logits, for every kind of output."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from trainer.models.output_loss import IGNORED, score_tokens

WORDS = 97
SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
DROPOUTS = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
HEADS: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8}
MOBILE: dict[str, Any] = {"embedding_size": 16, "intra_bottleneck_size": 32}

PLAIN = {
    "bert": ("MaskedLM", {}),
    "bert-untied": ("MaskedLM", {"tie_word_embeddings": False}),
    "bert-pairs": ("PreTraining", {}),
    "roberta": ("MaskedLM", {}),
    "llama": ("CausalLM", HEADS),
    "gpt2": ("CausalLM", {**GPT2, **DROPOUTS}),
}
CHANGED = {
    "gemma2": ("CausalLM", {**HEADS, "final_logit_softcapping": 0.5}),
    "granite": ("CausalLM", {**HEADS, "logits_scaling": 4.0}),
    "cohere": ("CausalLM", {**HEADS, "logit_scale": 0.25}),
    "esm": ("MaskedLM", {"mask_token_id": 5}),  # a bias that the layer does not have
    "mobilebert": ("MaskedLM", MOBILE),  # does not call the layer
    "mobilebert-pairs": ("PreTraining", MOBILE),
}


def build(name: str, auto: str, numbers: dict[str, Any]) -> Any:
    settings = transformers.CONFIG_MAPPING[name.split("-")[0]](**{**SIZES, **numbers})
    torch.manual_seed(1)
    model = getattr(transformers, f"AutoModelFor{auto}").from_config(settings)
    for key, weight in model.named_parameters():
        if key.endswith("bias"):  # zeros would hide one that is forgotten
            torch.nn.init.normal_(weight)
    return model


@pytest.fixture(scope="module", params=PLAIN)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param, *PLAIN[request.param])


@pytest.fixture(scope="module", params=CHANGED)
def changing(request: pytest.FixtureRequest) -> Any:
    return build(request.param, *CHANGED[request.param])


def batch() -> tuple[dict[str, Tensor], Tensor]:
    """Returns inputs with padding, and labels at some of the positions."""
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(5, WORDS, (3, 12), generator=random)
    labels = torch.where(torch.rand(3, 12, generator=random) < 0.4, ids.flip(0), IGNORED)
    mask = torch.ones_like(ids)
    mask[1, 9:], labels[1, 9:], labels[:, -1] = 0, IGNORED, IGNORED
    return {"input_ids": ids, "attention_mask": mask}, labels


def logits_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    output = model(**inputs)
    return output["logits" if "logits" in output else "prediction_logits"]


def plain(model: Any, inputs: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the sum over all logits, and how many labels are the likeliest token."""
    logits = logits_of(model, inputs)
    loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    return loss, (logits.argmax(-1) == labels).sum()


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {
        key: weight.grad.clone()
        for key, weight in model.named_parameters()
        if weight.grad is not None
    }


def check(model: Any) -> None:
    """Asserts loss, gradients and counted tokens of a model, in training and in evaluation."""
    inputs, labels = batch()
    model.train()
    wanted, _ = plain(model, inputs, labels)
    scored = score_tokens(model, inputs, labels)
    assert scored.loss_sum.dtype == torch.float32
    torch.testing.assert_close(scored.loss_sum, wanted)
    expected = gradients(model, wanted)
    found = gradients(model, scored.loss_sum)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-5, msg=key)

    model.eval()
    with torch.no_grad():
        likeliest = logits_of(model, inputs).argmax(-1)
        labels = torch.where(torch.arange(12) % 3 == 0, likeliest, labels)  # some are right
        labels[1, 9:] = IGNORED
        wanted, correct = plain(model, inputs, labels)
        scored = score_tokens(model, inputs, labels)
    torch.testing.assert_close(scored.loss_sum, wanted)
    assert scored.correct.dtype == torch.float64
    assert 0 < scored.correct.item() == correct.item() < (labels != IGNORED).sum().item()
    assert "forward" not in vars(model.get_output_embeddings())


def test_loss_gradients_and_counts_are_those_of_all_logits(model):
    check(model)


def test_a_model_that_changes_its_logits_is_scored_by_what_it_makes_of_them(changing):
    check(changing)
    inputs, labels = batch()
    changing.eval()
    layer, hidden = changing.get_output_embeddings(), list[Tensor]()
    hook = layer.register_forward_hook(lambda _, args, __: hidden.append(args[0]))
    with torch.no_grad():
        changing(**inputs)
        hook.remove()
        if hidden:  # otherwise the layer is not called
            raw = functional.linear(hidden[0], layer.weight, layer.bias).flatten(0, 1)
            unchanged = functional.cross_entropy(raw, labels.flatten(), reduction="sum")
            loss = score_tokens(changing, inputs, labels).loss_sum
            assert abs(loss - unchanged) > 0.01 * unchanged  # so the change matters here


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "granite", "cohere"])
def test_the_mean_is_the_loss_that_the_model_itself_computes(name):
    model = build(name, *{**PLAIN, **CHANGED}[name]).eval()
    inputs, labels = batch()
    shifted = torch.cat([torch.full((3, 1), IGNORED), labels[:, :-1]], 1)  # it shifts them back
    with torch.no_grad():
        own = model(**inputs, labels=shifted).loss
        found = score_tokens(model, inputs, labels).loss_sum / (labels != IGNORED).sum()
    torch.testing.assert_close(found, own)


def test_logits_are_never_computed_at_once(model):
    inputs, labels = batch()
    for training in (True, False):
        scored = score_tokens(model.train(training), inputs, labels)
        tensors = [value for value in scored.output.values() if torch.is_tensor(value)]
        assert tensors
        assert all(tensor.shape[-1:] != (WORDS,) for tensor in tensors)


def test_a_batch_without_labels_costs_nothing_and_gives_zero_gradients(model):
    inputs, labels = batch()
    scored = score_tokens(model.train(), inputs, torch.full_like(labels, IGNORED))
    assert scored.loss_sum.item() == 0.0
    assert not any(gradient.any() for gradient in gradients(model, scored.loss_sum).values())


def test_the_output_layer_is_as_before_even_when_the_model_fails(model):
    inputs, labels = batch()
    broken = {**inputs, "input_ids": inputs["input_ids"] + WORDS}
    with pytest.raises(IndexError):
        score_tokens(model, broken, labels)
    assert "forward" not in vars(model.get_output_embeddings())
    model.eval()
    with torch.no_grad():
        before = plain(model, inputs, labels)[0]
        torch.testing.assert_close(score_tokens(model, inputs, labels).loss_sum, before)
