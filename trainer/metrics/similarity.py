"""How close a text is to a reference, in any script."""

import re

_WORDS = re.compile(r"\w+")


class _Words:
    """The tokenizer that rouge_score is given: its own finds words of a-z and 0-9 only."""

    def tokenize(self, text: str) -> list[str]:
        return _WORDS.findall(text.lower())


def similarity(text: str, reference: str) -> float:
    """Returns the F-measure, 0 to 1, of the longest common subsequence of words: ROUGE-L (Lin
    2004), with words of any script."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return float(scorer.score(reference, text)["rougeL"].fmeasure)
