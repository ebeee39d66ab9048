"""The loss of a large vocabulary equals that of all logits, which are never in memory at once."""

import pytest
import torch
from torch.nn import functional

from trainer.models.linear_cross_entropy import (
    CHUNK_SIZE,
    chunked_linear_cross_entropy,
    linear_cross_entropy,
    predicted_tokens,
    torch_linear_cross_entropy,
)

WIDTH, WORDS = 24, 301
SIZES = [1, 7, CHUNK_SIZE, 2 * CHUNK_SIZE + 3]
LOW = [torch.bfloat16, torch.float16]
IMPLEMENTATIONS = [
    linear_cross_entropy,
    chunked_linear_cross_entropy,
    pytest.param(
        torch_linear_cross_entropy,
        marks=pytest.mark.skipif(
            not hasattr(functional, "linear_cross_entropy"), reason="torch before 2.13"
        ),
    ),
]


def plain(hidden, weight, bias, targets):
    logits = functional.linear(hidden, weight, bias)
    return functional.cross_entropy(logits, targets, reduction="sum")


def example(num_positions, dtype=torch.float32, words=WORDS):
    torch.manual_seed(num_positions)
    hidden = torch.randn(num_positions, WIDTH, dtype=dtype)
    weight = torch.randn(words, WIDTH).mul(0.3).to(dtype)
    bias = torch.randn(words, dtype=dtype)
    targets = torch.randint(0, words, (num_positions,))
    targets[::4] = 5  # a frequent word
    return hidden, weight, bias, targets


def value_and_gradients(loss, tensors, targets, factor=1.0, frozen=()):
    """Returns the loss and the gradients of `tensors`, None for those that are frozen or absent."""
    leaves = [
        None if tensor is None else tensor.detach().clone().requires_grad_(index not in frozen)
        for index, tensor in enumerate(tensors)
    ]
    value = loss(*leaves, targets)
    (value * factor).backward()
    return value.detach(), [None if leaf is None else leaf.grad for leaf in leaves]


def exact(tensors, targets, **settings):
    """Returns value and gradients of the plain loss in float64."""
    wide = [None if tensor is None else tensor.double() for tensor in tensors]
    return value_and_gradients(plain, wide, targets, **settings)


def error(got, wanted):
    return ((got.double() - wanted.double()).norm() / wanted.double().norm()).item()


@pytest.mark.parametrize("loss", IMPLEMENTATIONS)
@pytest.mark.parametrize("num_positions", SIZES)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_value_and_gradients_equal_the_plain_loss(loss, num_positions, biased, factor):
    *tensors, targets = example(num_positions)
    if not biased:
        tensors[2] = None
    value, gradients = value_and_gradients(loss, tensors, targets, factor)
    expected, expected_gradients = exact(tensors, targets, factor=factor)
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert error(value, expected) < 1e-6
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert (gradient is None) == (wanted is None)
        if wanted is not None:
            assert error(gradient, wanted) < 1e-6


@pytest.mark.parametrize("loss", IMPLEMENTATIONS)
@pytest.mark.parametrize("frozen", [{0}, {1}, {2}, {1, 2}, {0, 1}, {0, 2}])
def test_only_what_is_trained_gets_a_gradient(loss, frozen):
    *tensors, targets = example(CHUNK_SIZE + 1)
    _, gradients = value_and_gradients(loss, tensors, targets, frozen=frozen)
    _, expected = exact(tensors, targets, frozen=frozen)
    for index, (gradient, wanted) in enumerate(zip(gradients, expected, strict=True)):
        assert (gradient is None) == (index in frozen)
        if wanted is not None:
            assert error(gradient, wanted) < 1e-6


@pytest.mark.parametrize("loss", IMPLEMENTATIONS)
def test_two_losses_add_up_their_gradients(loss):
    *tensors, targets = example(20)
    hidden, weight, bias = (tensor.clone().requires_grad_() for tensor in tensors)
    loss(hidden, weight, bias, targets).mul(0.3).backward()
    both = loss(hidden, weight, bias, targets) * 0.5 + loss(hidden * 2, weight, bias, targets)
    both.backward()
    wide = [tensor.double().requires_grad_() for tensor in tensors]
    doubled = plain(wide[0] * 2, wide[1], wide[2], targets)
    (plain(*wide, targets) * 0.8 + doubled).backward()
    for got, wanted in zip((hidden, weight, bias), wide, strict=True):
        assert error(got.grad, wanted.grad) < 1e-6


@pytest.mark.parametrize("loss", IMPLEMENTATIONS)
def test_a_second_backward_is_refused(loss):
    *tensors, targets = example(3)
    hidden, weight, bias = (tensor.clone().requires_grad_() for tensor in tensors)
    value = loss(hidden, weight, bias, targets)
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward"):
        value.backward()


@pytest.mark.parametrize("loss", IMPLEMENTATIONS)
def test_large_logits_stay_finite(loss):
    *tensors, targets = example(9)
    tensors[0] *= 1e3
    value, gradients = value_and_gradients(loss, tensors, targets)
    expected, expected_gradients = exact(tensors, targets)
    assert error(value, expected) < 1e-6
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert error(gradient, wanted) < 1e-4


@pytest.mark.parametrize("loss", IMPLEMENTATIONS)
def test_no_positions_give_zero_with_a_path_to_every_gradient(loss):
    *tensors, targets = example(0)
    tensors[0].requires_grad_()
    through = tensors[0] * 2  # not a leaf, as what a model hands on
    weight, bias = tensors[1].requires_grad_(), tensors[2].requires_grad_()
    value = loss(through, weight, bias, targets)
    assert value.item() == 0
    value.backward()
    assert tensors[0].grad.shape == (0, WIDTH)
    assert not weight.grad.any()
    assert not bias.grad.any()


@pytest.mark.parametrize("num_positions", SIZES)
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("biased", [True, False])
def test_half_precision_tensors(dtype, num_positions, biased):
    *tensors, targets = example(num_positions, dtype)
    if not biased:
        tensors[2] = None
    value, gradients = value_and_gradients(linear_cross_entropy, tensors, targets, 0.3)
    expected, expected_gradients = exact(tensors, targets, factor=0.3)
    accuracy = torch.finfo(dtype).eps
    assert value.dtype == torch.float32
    assert error(value, expected) < accuracy / 10
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        if wanted is not None:
            assert gradient.dtype == dtype
            assert error(gradient, wanted) < accuracy


@pytest.mark.parametrize("dtype", LOW)
def test_autocast_multiplies_in_its_type_and_returns_gradients_in_the_parameters(dtype):
    *tensors, targets = example(CHUNK_SIZE + 9)
    with torch.autocast("cpu", dtype):
        value, gradients = value_and_gradients(linear_cross_entropy, tensors, targets)
    _, expected = exact(tensors, targets)
    rounded = [tensors[0].to(dtype), tensors[1].to(dtype), tensors[2]]
    of_rounded, _ = exact(rounded, targets)
    accuracy = torch.finfo(dtype).eps
    assert value.dtype == torch.float32
    assert error(value, of_rounded) < accuracy / 10
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert gradient.dtype == torch.float32
        assert error(gradient, wanted) < 2 * accuracy
    assert error(gradients[1], expected[1]) > 1e-5  # it was not computed in fp32


@pytest.mark.parametrize("types", [(torch.float32, torch.bfloat16), (torch.float16, torch.float32)])
@pytest.mark.parametrize("autocast", [True, False])
def test_hidden_and_weight_of_different_types(types, autocast):
    *tensors, targets = example(40)
    mixed = [tensors[0].to(types[0]), tensors[1].to(types[1]), tensors[2].to(types[1])]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value, gradients = value_and_gradients(linear_cross_entropy, mixed, targets)
    expected, expected_gradients = exact(mixed, targets)
    assert error(value, expected) < (1e-3 if autocast else 1e-6)
    for gradient, wanted, tensor in zip(gradients, expected_gradients, mixed, strict=True):
        assert gradient.dtype == tensor.dtype
        assert error(gradient, wanted) < 2**-7


@pytest.mark.parametrize("dtype", LOW)
def test_the_gradient_of_a_frequent_word_is_as_good_as_the_plain_loss_gives(dtype):
    hidden, weight, _, targets = example(16 * CHUNK_SIZE, dtype)
    hidden += 0.5  # so that its contributions have one sign
    _, (_, gradient, _) = value_and_gradients(linear_cross_entropy, (hidden, weight, None), targets)
    _, (_, of_plain, _) = value_and_gradients(plain, (hidden, weight, None), targets)
    _, (_, wanted, _) = exact((hidden, weight, None), targets)
    assert error(gradient[5], wanted[5]) < 1.5 * error(of_plain[5], wanted[5])


def test_small_probabilities_survive_fp16():
    *tensors, targets = example(64, torch.float16)
    tensors[0] *= 0.1
    rare = torch.ones(WORDS, dtype=torch.bool)
    rare[targets] = False
    tensors[2][rare] = -16  # of probability 1e-9, where the least of fp16 is 6e-8
    _, gradients = value_and_gradients(linear_cross_entropy, tensors, targets, 2.0**15)
    _, expected = exact(tensors, targets, factor=2.0**15)
    for gradient, wanted in zip(gradients[1:], expected[1:], strict=True):
        assert error(gradient[rare], wanted[rare]) < 0.01


@pytest.mark.parametrize("loss", IMPLEMENTATIONS)
def test_without_gradients_none_are_computed(loss):
    *tensors, targets = example(30)
    trained = [tensor.clone().requires_grad_() for tensor in tensors]
    with torch.no_grad():
        value = loss(*trained, targets)
    assert not value.requires_grad
    assert not loss(*tensors, targets).requires_grad
    assert error(value, plain(*[tensor.double() for tensor in tensors], targets)) < 1e-6


def allocations(function):
    """Returns the bytes that each operation of `function` allocated, including inner operations."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU],
        profile_memory=True,
        acc_events=True,  # without which torch 2.11 warns that it clears events
    ) as profiler:
        function()
    return [event.self_cpu_memory_usage for event in profiler.events()]


LARGE_WORDS, LARGE_POSITIONS = 6001, 4 * CHUNK_SIZE


def training(loss, dtype, frozen=()):
    """Returns a function that runs forward and backward of `loss` at the large size."""
    *tensors, targets = example(LARGE_POSITIONS, dtype, LARGE_WORDS)
    for index, tensor in enumerate(tensors):
        tensor.requires_grad_(index not in frozen)
    return lambda: loss(*tensors, targets).backward()


@pytest.mark.parametrize("loss", IMPLEMENTATIONS)
def test_all_logits_are_never_held(loss):
    of_chunk = CHUNK_SIZE * LARGE_WORDS * 4
    assert max(allocations(training(loss, torch.float32))) == of_chunk
    assert max(allocations(training(plain, torch.float32))) == of_chunk * 4


@pytest.mark.parametrize("dtype", LOW)
def test_all_logits_are_never_held_in_half_precision(dtype):
    of_chunk = CHUNK_SIZE * LARGE_WORDS * 4
    assert max(allocations(training(linear_cross_entropy, dtype))) == of_chunk
    with torch.autocast("cpu", dtype):
        assert max(allocations(training(linear_cross_entropy, torch.float32))) == of_chunk


def test_predictions_never_hold_all_logits():
    *tensors, targets = example(LARGE_POSITIONS, words=LARGE_WORDS)
    of_chunk = CHUNK_SIZE * LARGE_WORDS * 4
    assert max(allocations(lambda: predicted_tokens(*tensors, targets))) == of_chunk


@pytest.mark.parametrize("loss", IMPLEMENTATIONS)
def test_a_frozen_weight_has_no_gradient_in_memory(loss):
    of_weight = LARGE_WORDS * WIDTH * 4
    assert of_weight in allocations(training(loss, torch.float32, frozen={0}))
    assert of_weight not in allocations(training(loss, torch.float32, frozen={1, 2}))
    *tensors, targets = example(LARGE_POSITIONS, words=LARGE_WORDS)
    tensors[1].requires_grad_()
    with torch.no_grad():
        assert of_weight not in allocations(lambda: loss(*tensors, targets))


@pytest.mark.parametrize("num_positions", [0, *SIZES])
@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
@pytest.mark.parametrize("biased", [True, False])
def test_predicted_tokens(dtype, num_positions, biased):
    hidden, weight, bias, targets = example(num_positions, dtype)
    hidden.requires_grad_()
    bias = bias if biased else None
    likelihoods, words = predicted_tokens(hidden, weight, bias, targets)
    wide = [None if one is None else one.double() for one in (hidden, weight, bias)]
    logits = functional.linear(*wide)
    wanted = functional.cross_entropy(logits, targets, reduction="none")
    assert likelihoods.dtype == torch.float32
    assert words.dtype == torch.int64
    assert not likelihoods.requires_grad
    slack = 1e-5 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(likelihoods.double(), wanted.detach(), rtol=1e-6, atol=slack)
    chosen = logits.gather(1, words[:, None]).squeeze(1)
    assert (logits.amax(1, keepdim=True).squeeze(1) - chosen <= slack).all()
    if dtype == torch.float32:
        assert torch.equal(words, logits.argmax(1))
