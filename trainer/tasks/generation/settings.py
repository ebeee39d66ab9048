"""The settings of generated answers."""

from trainer.recipe.section import CountInt, PositiveInt, Section


class GenerationSettings(Section):
    """Greedy generation of answers to some examples of each evaluated split."""

    num_examples: CountInt = 64
    """Number of examples per split for which answers are generated; 0 turns generation off."""
    max_new_tokens: PositiveInt = 64
    """Maximum length of a generated answer in tokens."""
