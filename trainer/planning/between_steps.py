"""What a process holds between optimizer steps: while it generates answers, and while it saves."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.planning.held_memory import FP32, PlannedParameter
from trainer.planning.launches import GATHERING, SHARDED, PlannedLaunch
from trainer.planning.trace.ledger import Peak
from trainer.planning.trace.model import num_layers
from trainer.planning.trace.step import ACTIVATIONS, BATCH, GRADIENTS
from trainer.tasks.generation.generator import BATCH as PROMPTS

CACHE, GATHERED = "cache of generated text", "gathered weights"
STEP_ALONE = (ACTIVATIONS, BATCH, GRADIENTS)
"""What a process holds within a step only."""


def between_steps(
    update: Peak,
    numbers: Any,
    parameters: Sequence[PlannedParameter],
    launch: PlannedLaunch,
    precision: Precision,
    *,
    prompt: int,
    generated: int,
) -> dict[str, Peak]:
    """Returns the peaks of saving and, if the task generates text, of generation.

    They are computed from sizes, not traced: `update` is the peak of the optimizer's part of a
    step, `prompt` and `generated` are the tokens of the longest prompt and of its answer.
    Activations of generation are not counted.
    """
    resting = {kind: size for kind, size in update.held.items() if kind not in STEP_ALONE}
    sharded, gathering = launch.engine in SHARDED, launch.engine in GATHERING
    largest = max(parameter.num_weights for parameter in parameters)
    peaks = {"saving": _peak(resting, {GATHERED: FP32 * largest * sharded})}
    if generated:
        computed = COMPUTE_DTYPES[precision]
        whole = sum(one.num_weights * one.bytes_each(computed) for one in parameters)
        tokens = PROMPTS * (prompt + generated)
        cache = tokens * cached_numbers(numbers) * computed.itemsize
        peaks["generation"] = _peak(resting, {CACHE: cache, GATHERED: whole * gathering})
    return peaks


def cached_numbers(numbers: Any) -> int:
    """Returns how many keys and values a decoder caches for a token."""
    text = numbers.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return 2 * num_layers(numbers) * (getattr(text, "num_key_value_heads", None) or heads) * width


def _peak(resting: dict[str, int], more: dict[str, int]) -> Peak:
    held = Counter({kind: size for kind, size in (resting | more).items() if size})
    return Peak(held.total(), held)
