"""The loss of labelled positions equals that of all logits, for every kind of output layer."""

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.models.output_layer import OutputLayer, install_output_layer, scoring
from trainer.models.output_loss import IGNORED, score_tokens
from trainer.models.tuning import enable_gradient_checkpointing

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
BART: dict[str, Any] = dict.fromkeys(("dropout", "attention_dropout"), 0.0) | {
    f"{part}_{name}": value
    for part in ("encoder", "decoder")
    for name, value in {"layers": 2, "ffn_dim": 64, "attention_heads": 4}.items()
}
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
    "bart": ("MaskedLM", {"d_model": 32, "init_std": 0.3, **BART}),
}


def raw(name: str, auto: str, numbers: dict[str, Any]) -> Any:
    """Returns a model as transformers builds it."""
    settings = transformers.CONFIG_MAPPING[name.split("-")[0]](**{**SIZES, **numbers})
    torch.manual_seed(1)
    model = getattr(transformers, f"AutoModelFor{auto}").from_config(settings)
    for key, value in (*model.named_parameters(), *model.named_buffers()):
        if key.endswith("bias"):  # zeros would hide one that is forgotten
            torch.nn.init.normal_(value)
    return model


def build(name: str, auto: str, numbers: dict[str, Any]) -> Any:
    """Returns a model as the package loads it, with a note if it needs all logits."""
    model = raw(name, auto, numbers)
    note = install_output_layer(model)
    assert (note is None) == (name in PLAIN)
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


class LargestRows(TorchDispatchMode):
    """Records the most vocabulary rows in the result of any operation, including backward."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.shape[-1:] == (WORDS,):
                self.rows = max(self.rows, tensor.numel() // WORDS)
        return result


@pytest.mark.parametrize("training", [True, False])
def test_logits_are_computed_of_labelled_positions_only(model, training):
    inputs, _ = batch()
    width = model.get_input_embeddings().weight.shape[1]
    inputs = {key: value.repeat(4, 1) for key, value in inputs.items()}
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    labels[:, 3] = 7
    positions = labels.numel()
    model.train(training)
    with LargestRows() as seen:
        scored = score_tokens(model, inputs, labels)
        if training:
            scored.loss_sum.backward()
    assert seen.rows <= max(len(labels), width) < positions  # or the weight itself, transposed
    with LargestRows() as seen, torch.no_grad():
        model(**inputs)
    assert seen.rows == positions


def test_a_batch_without_labels_costs_nothing_and_gives_zero_gradients(model):
    inputs, labels = batch()
    scored = score_tokens(model.train(), inputs, torch.full_like(labels, IGNORED))
    assert scored.loss_sum.item() == 0.0
    assert not any(gradient.any() for gradient in gradients(model, scored.loss_sum).values())


def test_a_call_that_fails_leaves_nothing_behind(model):
    inputs, labels = batch()
    broken = {**inputs, "input_ids": inputs["input_ids"] + WORDS}
    with pytest.raises(IndexError):
        score_tokens(model, broken, labels)
    model.eval()
    with torch.no_grad():
        before = plain(model, inputs, labels)[0]
        torch.testing.assert_close(score_tokens(model, inputs, labels).loss_sum, before)


@pytest.mark.parametrize("name", PLAIN)
def test_the_model_keeps_parameters_names_and_ties(name):
    model = raw(name, *PLAIN[name])
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names, before = list(model.state_dict()), model.get_output_embeddings()
    training = before.training
    assert install_output_layer(model) is None
    assert list(model.state_dict()) == names
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(parameters)
    assert all(after[key] is parameter for key, parameter in parameters.items())
    layer = model.get_output_embeddings()
    assert isinstance(layer, OutputLayer)
    assert layer.training == training
    assert before not in set(model.modules())
    install_output_layer(model)
    assert model.get_output_embeddings() is layer


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_saved_model_is_an_ordinary_one(name, tmp_path: Path):
    model = build(name, *PLAIN[name]).eval()
    inputs, _ = batch()
    model.save_pretrained(tmp_path)
    auto = getattr(transformers, f"AutoModelFor{PLAIN[name][0]}")
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded.get_output_embeddings()) is nn.Linear
    with torch.no_grad():
        torch.testing.assert_close(logits_of(loaded, inputs), logits_of(model, inputs))


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_gradients_under_gradient_checkpointing_are_the_same(name):
    model = build(name, *PLAIN[name]).train()
    inputs, labels = batch()
    expected = gradients(model, score_tokens(model, inputs, labels).loss_sum)
    enable_gradient_checkpointing(model)
    found = gradients(model, score_tokens(model, inputs, labels).loss_sum)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, msg=key)


def test_a_copy_computes_its_own_loss(model):
    inputs, labels = batch()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.5)
    mine = score_tokens(model.eval(), inputs, labels).loss_sum
    theirs = score_tokens(other.eval(), inputs, labels).loss_sum
    assert not torch.allclose(mine, theirs)
    torch.testing.assert_close(theirs, plain(other, inputs, labels)[0])


def test_another_thread_gets_logits_meanwhile():
    model = build("llama", *PLAIN["llama"]).eval()
    inputs, labels = batch()
    shapes: list[torch.Size] = []
    with scoring(labels != IGNORED, labels[labels != IGNORED], training=False) as found:
        thread = threading.Thread(target=lambda: shapes.append(model(**inputs).logits.shape))
        thread.start()
        thread.join()
        assert found.loss_sum is None
        model(**inputs)
        assert found.loss_sum is not None
    assert shapes == [(*labels.shape, WORDS)]


class Doubling(transformers.LlamaForCausalLM):
    """Changes its logits in a way that its configuration does not show."""

    def forward(self, *args: Any, **given: Any) -> Any:
        output = super().forward(*args, **given)
        output.logits = 2 * output.logits
        return output


def test_a_model_that_changes_its_logits_unannounced_is_found_out():
    torch.manual_seed(1)
    model: Any = Doubling(transformers.LlamaConfig(**{**SIZES, **HEADS})).train()
    assert install_output_layer(model) is None
    inputs, labels = batch()
    wanted = plain(model, inputs, labels)[0]
    for _ in range(2):
        with pytest.warns(UserWarning, match="a llama changes what its output layer"):
            scored = score_tokens(model, inputs, labels)
        torch.testing.assert_close(scored.loss_sum, wanted)


def test_a_model_without_the_layer_says_that_it_holds_all_logits():
    model = raw("llama", *PLAIN["llama"])
    with pytest.warns(UserWarning, match="needs the logits of all positions in memory"):
        score_tokens(model, *batch())


# Both are torch's own as it traces, the second that of torch 2.11.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated. Methods on autograd functions")
def test_a_compiled_model_has_the_same_loss():
    model = build("llama", *PLAIN["llama"]).train()
    inputs, labels = batch()
    wanted = score_tokens(model, inputs, labels).loss_sum
    compiled = torch.compile(model, backend="eager")
    compiled.train()
    torch.testing.assert_close(score_tokens(compiled, inputs, labels).loss_sum, wanted)
    torch._dynamo.reset()
