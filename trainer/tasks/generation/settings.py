"""How a model is asked to generate text."""

from trainer.recipe.section import CountInt, PositiveInt, Section


class GenerationSettings(Section):
    num_examples: CountInt = 64
    """Number of examples of each split that are answered by greedy generation; 0 turns it off."""
    max_new_tokens: PositiveInt = 64
    """Tokens of the longest answer."""
