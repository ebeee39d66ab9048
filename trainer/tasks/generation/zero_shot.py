"""Zero-shot: the answers of a pretrained causal language model to prompts, before tuning."""

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
from trainer.tasks.base import ZeroShot
from trainer.tasks.batch import attention_mask, stack
from trainer.tasks.classification.settings import LabelPrompt
from trainer.tasks.generation.fitted_prompt import FittedPrompt, ScoredPrompt
from trainer.tasks.generation.generator import BATCH, Generator
from trainer.tasks.question_answering.articles import first_of_article
from trainer.tasks.question_answering.settings import GeneratedAnswerSettings
from trainer.tasks.reported import Record

THRESHOLDS = ("best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh", "null_threshold")
"""Scores that need a probability of "no answer", which generated text does not have."""


class LabelLikelihood(ZeroShot):
    """Answers with the label whose words have the highest mean log-likelihood per token.

    Normalised by length, as in Brown et al. 2020, section 2.4: otherwise labels of many tokens
    would hardly ever win.
    """

    def __init__(
        self,
        settings: LabelPrompt,
        *,
        labels: Sequence[str],
        columns: dict[str, str],
        tokenizer: TextTokenizer,
        model_config: Any,
    ) -> None:
        """`columns` maps each field that the prompt may have to the name of its column."""
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
        by_tokens: dict[tuple[int, ...], str] = {}
        prompts = self.prompt.with_answers(dict.fromkeys(self.prompt.fields, "text"))
        for answer, (tokens, start) in zip(answers, prompts, strict=True):
            first = by_tokens.setdefault(tuple(tokens[start:].tolist()), answer)
            if first != answer or len(tokens) == start:
                problem = f"the tokens of {first!r}" if first != answer else "no token"
                raise ConfigError(
                    f"task.zero_shot.answers: {answer!r} has {problem} after the prompt",
                    key="task.zero_shot.answers",
                    value=answer,
                    hint="use another word",
                )

    def sample(self, split: PreparedSplit) -> np.ndarray:
        return np.arange(len(split))

    def answer(self, model: Any, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        names = {field: self.columns[field] for field in self.prompt.fields}
        numbers = split.array("row")[ids]
        rows = split.rows.select(numbers).select_columns(list(names.values()))
        prompts: list[ScoredPrompt] = []
        were_cut: list[bool] = []
        for row in rows:
            texts, was_cut = self.prompt.cut({field: row[name] for field, name in names.items()})
            prompts += self.prompt.with_answers(texts)
            were_cut.append(was_cut)
        scores = mean_log_likelihoods(model, prompts, self.tokenizer.pad_token_id)
        by_label = scores.reshape(len(ids), len(self.labels))
        return [
            {
                "id": index,
                "row": row,
                "label": self.labels[label],
                "prediction": self.labels[int(np.argmax(likelihoods))],
                "log_likelihoods": likelihoods.tolist(),
                "truncated": was_cut,
            }
            for index, row, label, likelihoods, was_cut in zip(
                ids.tolist(),
                numbers.tolist(),
                split.array("label")[ids].tolist(),
                by_label,
                were_cut,
                strict=True,
            )
        ]

    def metrics(self, records: list[Record]) -> dict[str, Any]:
        pairs = [(record["label"], record["prediction"]) for record in records]
        correct = [label for label, prediction in pairs if label == prediction]
        predicted = [prediction for _, prediction in pairs]
        labels = [label for label, _ in pairs]
        counts = [self._counted(names) for names in (correct, predicted, labels)]
        truncated = sum(record["truncated"] for record in records)
        return {**from_counts(*counts, labels=self.labels), "num_truncated": truncated}

    def _counted(self, names: Sequence[str]) -> np.ndarray:
        counter = Counter(names)
        return np.array([counter[label] for label in self.labels])


class GeneratedAnswer(ZeroShot):
    """Answers with the first line of what the model generates greedily."""

    def __init__(
        self,
        settings: GeneratedAnswerSettings,
        *,
        columns: dict[str, str],
        tokenizer: TextTokenizer,
        model_config: Any,
    ) -> None:
        """`columns` maps id, question, context and answers to the names of their columns."""
        self.settings, self.columns = settings, columns
        self.prompt = FittedPrompt(
            settings.prompt,
            tokenizer=tokenizer,
            model_config=model_config,
            max_new_tokens=settings.max_new_tokens,
        )
        self.generator = Generator(settings, tokenizer.tokenizer, self.prompt.num_positions)

    def sample(self, split: PreparedSplit) -> np.ndarray:
        """Returns the row indices of `num_examples` questions, evenly spaced over the split."""
        rows = np.unique(split.array("row"))
        num_asked = min(self.settings.num_examples, len(rows))
        return rows[np.arange(num_asked) * len(rows) // num_asked]

    def answer(self, model: Any, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        rows = split.rows.select(ids).select_columns(list(self.columns.values()))
        questions = [{key: row[name] for key, name in self.columns.items()} for row in rows]
        texts_and_cuts = [
            self.prompt.cut({field: question[field] for field in self.prompt.fields})
            for question in questions
        ]
        prompts = [self.prompt.tokens(texts) for texts, _ in texts_and_cuts]
        generated = self.generator.generate(model, prompts)
        articles = first_of_article(split.rows, ids, self.columns["context"])
        records: list[Record] = []
        for index, group, question, text, (_, was_cut) in zip(
            ids.tolist(), articles, questions, generated, texts_and_cuts, strict=True
        ):
            answer = text.partition("\n")[0].strip()
            refused = not answer or _plain(answer) == _plain(self.settings.no_answer)
            records.append(
                {
                    "id": index,
                    "row": index,
                    "group": group,
                    "question": question["question"],
                    "prediction": "" if refused else answer,
                    "no_answer_probability": float(refused),
                    "answers": answer_texts(question["answers"]),
                    "truncated": was_cut,
                }
            )
        return records

    def metrics(self, records: list[Record]) -> dict[str, Any]:
        answers = [{**record, "id": str(record["id"])} for record in records]
        scores = answer_metrics(answers, 0.5)
        kept = {name: value for name, value in scores.items() if name not in THRESHOLDS}
        return {**kept, "num_truncated": sum(record["truncated"] for record in records)}


@torch.no_grad()
def mean_log_likelihoods(
    model: Any, prompts: Sequence[ScoredPrompt], pad_token_id: int
) -> np.ndarray:
    """Returns log p(answer | prompt) divided by the answer's tokens, float64 [num_prompts].

    Batches hold prompts of similar length, padded on the right, where padding changes nothing.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].tokens))
    means = np.zeros(len(prompts))
    for start in range(0, len(order), BATCH):
        batch = [prompts[index] for index in order[start : start + BATCH]]
        labels: list[np.ndarray] = []
        for tokens, first in batch:
            after = np.append(tokens[1:], IGNORED)
            after[: first - 1] = IGNORED
            labels.append(after)
        lengths = np.array([len(tokens) for tokens, _ in batch])
        inputs = {"input_ids": stack([tokens for tokens, _ in batch], pad_token_id)}
        inputs = {k: v.to(device) for k, v in (inputs | attention_mask(lengths)).items()}
        losses = score_tokens(model, inputs, stack(labels, IGNORED).to(device)).losses
        assert losses is not None, "the model is in evaluation mode"
        counts = [len(tokens) - first for tokens, first in batch]
        parts = torch.split(losses.double().cpu(), counts)
        means[order[start : start + BATCH]] = [-float(part.mean()) for part in parts]
    return means


def _plain(answer: str) -> str:
    return answer.casefold().strip(" .")
