"""Zero-shot: what a pretrained causal language model answers to a prompt, before it is tuned."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainer.data.answers import answer_texts
from trainer.data.encoded import PreparedSplit
from trainer.errors import ConfigError
from trainer.metrics.answers import answer_metrics
from trainer.metrics.classification import from_counts
from trainer.models.output_loss import IGNORED, score_tokens
from trainer.models.tokenizers.special_tokens import TextTokenizer
from trainer.tasks.base import Record, ZeroShot
from trainer.tasks.batch import attention_mask, stack
from trainer.tasks.classification.settings import LabelWords
from trainer.tasks.generation.fitted_prompt import FittedPrompt, ScoredPrompt
from trainer.tasks.generation.generator import BATCH, Generator
from trainer.tasks.question_answering.settings import GeneratedAnswers

THRESHOLDS = ("best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh", "null_threshold")
"""Scores that need a probability of "no answer" between 0 and 1, which a text does not have."""


class LabelLikelihood(ZeroShot):
    """Answers with the label whose words have the highest mean log-likelihood a token.

    Length-normalised as in Brown et al. 2020, section 2.4, so that labels of many tokens stand a
    chance.
    """

    def __init__(
        self,
        settings: LabelWords,
        *,
        labels: Sequence[str],
        columns: dict[str, str],
        tokenizer: TextTokenizer,
        model_config: Any,
    ) -> None:
        """`columns` holds the name of the column of each field that the prompt may have."""
        if len(settings.answers) != len(labels):
            raise ConfigError(
                f"task.zero_shot.answers has {len(settings.answers)} answers for the {len(labels)} "
                f"labels {', '.join(labels)}",
                key="task.zero_shot.answers",
                value=settings.answers,
            )
        answers = settings.answers
        self.labels, self.columns = labels, columns
        self.tokenizer = tokenizer.tokenizer
        self.prompt = FittedPrompt(
            settings.prompt, tokenizer=tokenizer, model_config=model_config, answers=answers
        )
        for field in self.prompt.fields:
            if field not in columns:
                raise ConfigError(
                    f"task.zero_shot.prompt: {{{field}}} is data.columns.{field}, which is null",
                    key="task.zero_shot.prompt",
                    value=settings.prompt,
                    hint="name that column, or leave it out of the prompt",
                )
        known: dict[tuple[int, ...], str] = {}
        asked = self.prompt.asked(dict.fromkeys(self.prompt.fields, "text"))
        for answer, (tokens, start) in zip(answers, asked, strict=True):
            other = known.setdefault(tuple(tokens[start:].tolist()), answer)
            if other != answer or len(tokens) == start:
                what = f"the tokens of {other!r}" if other != answer else "no token"
                raise ConfigError(
                    f"task.zero_shot.answers: {answer!r} has {what} after the prompt",
                    key="task.zero_shot.answers",
                    value=answer,
                    hint="use another word",
                )

    def sample(self, split: PreparedSplit) -> np.ndarray:
        return np.arange(len(split))

    def answer(self, model: Any, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        names = {field: self.columns[field] for field in self.prompt.fields}
        rows = split.rows.select(split.array("row")[ids]).select_columns(list(names.values()))
        asked: list[ScoredPrompt] = []
        were_cut: list[bool] = []
        for row in rows:
            texts, was_cut = self.prompt.cut({field: row[name] for field, name in names.items()})
            asked += self.prompt.asked(texts)
            were_cut.append(was_cut)
        scores = mean_log_likelihoods(model, asked, self.tokenizer.pad_token_id)
        by_label = scores.reshape(len(ids), len(self.labels))
        return [
            {
                "id": index,
                "label": self.labels[label],
                "prediction": self.labels[int(np.argmax(likelihoods))],
                "log_likelihoods": likelihoods.tolist(),
                "truncated": was_cut,
            }
            for index, label, likelihoods, was_cut in zip(
                ids.tolist(), split.array("label")[ids].tolist(), by_label, were_cut, strict=True
            )
        ]

    def metrics(self, records: list[Record]) -> dict[str, Any]:
        right = [one["label"] for one in records if one["label"] == one["prediction"]]
        predicted = [one["prediction"] for one in records]
        labels = [one["label"] for one in records]
        counts = [self._counted(names) for names in (right, predicted, labels)]
        truncated = sum(record["truncated"] for record in records)
        return {**from_counts(*counts, labels=self.labels), "num_truncated": truncated}

    def _counted(self, names: Sequence[str]) -> np.ndarray:
        found = Counter(names)
        return np.array([found[label] for label in self.labels])


class GeneratedAnswer(ZeroShot):
    """Answers with the first line that the model generates, greedily."""

    def __init__(
        self,
        settings: GeneratedAnswers,
        *,
        columns: dict[str, str],
        tokenizer: TextTokenizer,
        model_config: Any,
    ) -> None:
        """`columns` holds the name of the column of each of id, question, context and answers."""
        self.settings, self.columns = settings, columns
        self.prompt = FittedPrompt(
            settings.prompt,
            tokenizer=tokenizer,
            model_config=model_config,
            max_new_tokens=settings.max_new_tokens,
        )
        self.generator = Generator(settings, tokenizer.tokenizer, self.prompt.num_positions)

    def sample(self, split: PreparedSplit) -> np.ndarray:
        """Returns the rows of questions, evenly spaced over all."""
        rows = np.unique(split.array("question"))
        number = min(self.settings.num_examples, len(rows))
        return rows[np.arange(number) * len(rows) // number]

    def answer(self, model: Any, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        rows = split.rows.select(ids).select_columns(list(self.columns.values()))
        questions = [{key: row[name] for key, name in self.columns.items()} for row in rows]
        filled = [
            self.prompt.cut({field: one[field] for field in self.prompt.fields})
            for one in questions
        ]
        prompts = [self.prompt.tokens(texts) for texts, _ in filled]
        generated = self.generator.generate(model, prompts)
        made: list[Record] = []
        for index, one, text, (_, was_cut) in zip(
            ids.tolist(), questions, generated, filled, strict=True
        ):
            answer = text.partition("\n")[0].strip()
            refused = not answer or _plain(answer) == _plain(self.settings.no_answer)
            made.append(
                {
                    "id": index,
                    "question": one["question"],
                    "prediction": "" if refused else answer,
                    "no_answer_probability": float(refused),
                    "answers": answer_texts(one["answers"]),
                    "truncated": was_cut,
                }
            )
        return made

    def metrics(self, records: list[Record]) -> dict[str, Any]:
        scores = answer_metrics([{**one, "id": str(one["id"])} for one in records], 0.5)
        found = {name: value for name, value in scores.items() if name not in THRESHOLDS}
        return {**found, "num_truncated": sum(record["truncated"] for record in records)}


@torch.no_grad()
def mean_log_likelihoods(
    model: Any, asked: Sequence[ScoredPrompt], pad_token_id: int
) -> np.ndarray:
    """Returns log p(answer | prompt) / tokens of the answer for each prompt with an answer.

    Batches hold prompts of like length; padded at the right, none changes another.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(asked)), key=lambda index: len(asked[index].tokens))
    means = np.zeros(len(asked))
    for start in range(0, len(order), BATCH):
        batch = [asked[index] for index in order[start : start + BATCH]]
        labels: list[np.ndarray] = []
        for tokens, first in batch:
            after = np.append(tokens[1:], IGNORED)
            after[: first - 1] = IGNORED
            labels.append(after)
        lengths = np.array([len(tokens) for tokens, _ in batch])
        inputs = {"input_ids": stack([tokens for tokens, _ in batch], pad_token_id)}
        inputs = {k: v.to(device) for k, v in (inputs | attention_mask(lengths)).items()}
        losses = score_tokens(model, inputs, stack(labels, IGNORED).to(device)).losses
        assert losses is not None, "the model is in evaluation"
        counts = [len(tokens) - first for tokens, first in batch]
        parts = torch.split(losses.double().cpu(), counts)
        means[order[start : start + BATCH]] = [-float(part.mean()) for part in parts]
    return means


def _plain(answer: str) -> str:
    return answer.casefold().strip(" .")
