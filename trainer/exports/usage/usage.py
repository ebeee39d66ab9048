"""How an exported model is used with transformers alone: the code of its card, and its inputs.

The gate runs the same code on rows of the run, and compares the answers with those of the run.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Kind = Literal["labels", "fills", "continuations", "spans"]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Code for an exported model, and real inputs on which it is tried."""

    kind: Kind
    """What the code answers."""
    imports: str
    example: str
    """Code that gives the inputs a value, by the names in `inputs`."""
    code: str
    """Code that reads `folder` and the names in `inputs`, and leaves `answers`."""
    remark: str
    """What the code does to long inputs, in a sentence."""
    inputs: dict[str, Any]
    """Real inputs, by the names that the code reads."""
    token_ids: list[list[int]] = field(default_factory=list[list[int]])
    """What the run reads of each input."""
    examples: list[list[int]] = field(default_factory=list[list[int]])
    """The ids of the examples that the run makes of each input."""

    @property
    def program(self) -> str:
        """The code without the example."""
        return f"{self.imports}\n\n{self.code}"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The answer of a run to an input; which fields are set depends on the kind of the usage."""

    probabilities: dict[str, float] | None = None
    """By label."""
    token_probabilities: torch.Tensor | None = None
    """Of each token at the masked place, [vocabulary]."""
    text: str = ""
    """The continuation, or the answer."""
    score: float = 0.0
    """Sum of the logits of the first and the last token of the answer."""
    gap: float = 0.0
    """The least lead of a chosen token over the next, in standard deviations of the logits."""


def how_to_use(usage: Usage) -> str:
    """Returns the section of a model card about use, as Markdown."""
    lines = [
        "```python",
        usage.imports,
        "",
        'folder = "."  # the folder of this file, or the name of this model on the hub',
        usage.example,
        "",
        usage.code,
        "```",
    ]
    return f"## How to use\n\n{chr(10).join(lines)}\n\n{usage.remark}"
