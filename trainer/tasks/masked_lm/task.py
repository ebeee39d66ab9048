"""The task of masked language modelling, optionally with BERT's next-sentence prediction."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.columns import column_name
from trainer.data.documents import sentences
from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.data.rows import numbered, texts_of
from trainer.errors import ConfigError, DataError
from trainer.metrics.numbers import finite
from trainer.models.output_loss import IGNORED, perplexity, score_tokens
from trainer.models.tokenizers.special_tokens import SpecialTokens, TextTokenizer
from trainer.recipe.data import Column
from trainer.recipe.schema import Recipe
from trainer.tasks.base import LossTerm, Task
from trainer.tasks.batch import Batch, attention_mask, full_inputs, has_types, stack
from trainer.tasks.finding import Finding
from trainer.tasks.masked_lm.masking import Masking
from trainer.tasks.masked_lm.segments import Document, cut_documents, pair
from trainer.tasks.masked_lm.settings import MaskedLMSettings
from trainer.tasks.reported import Record
from trainer.wording import excerpt

if TYPE_CHECKING:
    from datasets import Dataset

PAIR_MODELS = ("bert", "megatron-bert", "mobilebert")
"""Model types with a head for next-sentence prediction."""


class MaskedLM(Task):
    """Cross-entropy of masked tokens (Devlin et al. 2019), which are drawn again in each epoch.

    Masks and segments depend only on seed, epoch and example. Evaluations always use epoch 0, so
    that their perplexities can be compared.
    """

    Settings = MaskedLMSettings
    trains_head = False
    predictor = "trainer.tasks.masked_lm.predictor:MaskedLMPredictor"
    num_statistics = 5

    def __init__(
        self,
        settings: MaskedLMSettings,
        *,
        column: Column,
        tokenizer: Any,
        max_seq_length: int,
        seed: int,
        has_types: bool,
        special_tokens: SpecialTokens = "literal",
    ) -> None:
        self.settings = settings
        self.column = column_name(column)
        self.tokenizer = tokenizer
        self.text_tokenizer = TextTokenizer(tokenizer, special_tokens)
        self.max_seq_length = max_seq_length
        self.seed = seed
        self.has_types = has_types
        self.masking = Masking(settings, tokenizer)
        self.auto_model = _auto_model(settings)
        self.loss_terms = _loss_terms(settings)
        self.scales = {"masked_accuracy": "0-1"}
        if settings.next_sentence_prediction:
            self.scales["next_sentence_accuracy"] = "0-1"
        self.metrics_offered = ("loss", "perplexity", *self.scales)

    @classmethod
    def texts(cls, recipe: Recipe, rows: "Dataset") -> Iterator[str]:
        name = column_name(recipe.data.columns.text)
        for _, chunk in numbered(rows, [name]):
            yield from (text for text in chunk[name] if isinstance(text, str))

    @classmethod
    def model_class(cls, recipe: Recipe, model_config: Any) -> str:
        assert isinstance(recipe.task, MaskedLMSettings)
        _check_pairs(recipe.task, model_config)
        return _auto_model(recipe.task)

    @classmethod
    def build(cls, recipe: Recipe, train: "Dataset", tokenizer: Any, model_config: Any) -> Self:
        settings = recipe.task
        assert isinstance(settings, MaskedLMSettings)
        missing = [
            name for name in ("mask", "cls", "sep") if getattr(tokenizer, f"{name}_token") is None
        ]
        if missing:
            raise ConfigError(
                f"task.name: masked_lm needs a tokenizer with a {missing[0]} token",
                key="task.name",
                value="masked_lm",
                hint="name one of a BERT model, or train one",
            )
        _check_pairs(settings, model_config)
        return cls(
            settings,
            column=recipe.data.columns.text,
            tokenizer=tokenizer,
            max_seq_length=recipe.batch.max_seq_length,
            seed=recipe.seed,
            has_types=has_types(model_config),
            special_tokens=recipe.data.special_tokens,
        )

    @classmethod
    def unread(cls, recipe: Recipe, model_config: Any) -> Self:
        assert isinstance(recipe.task, MaskedLMSettings)
        _check_pairs(recipe.task, model_config)
        task = cls.__new__(cls)
        task.settings = recipe.task
        task.has_types = has_types(model_config)
        task.auto_model = _auto_model(recipe.task)
        task.loss_terms = _loss_terms(recipe.task)
        return task

    def full_batch(self, size: int, length: int) -> Batch:
        pairs = self.settings.next_sentence_prediction
        inputs = full_inputs(size, length, padded=True, types=pairs and self.has_types)
        labels = torch.full((size, length), IGNORED)
        labels[:, : max(1, round(self.settings.mask_share * (length - 2 - pairs)))] = 0
        targets, counts = {"labels": labels}, [int((labels != IGNORED).sum())]
        if pairs:
            targets["next_sentence"] = torch.zeros(size, dtype=torch.int64)
            counts.append(size)
        return Batch(
            inputs=inputs, targets=targets, counts=torch.tensor(counts, dtype=torch.float64)
        )

    def encoding_settings(self) -> dict[str, Any]:
        pairs = self.settings.next_sentence_prediction
        return {"task": "masked_lm", "pairs": pairs, "length": self.max_seq_length}

    @classmethod
    def diagnose(cls, metrics: Mapping[str, Any]) -> list[Finding]:
        accuracy = finite(metrics.get("next_sentence_accuracy"))
        num_pairs = finite(metrics.get("num_pairs"))
        if accuracy is None or not num_pairs or num_pairs < 0:
            return []
        error = 0.5 / math.sqrt(num_pairs)
        if accuracy > 0.5 + 2 * error:
            return []
        return [
            Finding(
                code="guessed-pairs",
                message=f"next_sentence_accuracy {accuracy:.4f} is not above guessing, 0.5, by two "
                f"standard errors ({error:.4f} each); nothing was learned from the pairs yet",
                advice="train longer, or set task.next_sentence_prediction: false",
                figures={"next_sentence_accuracy": accuracy, "error": error},
            )
        ]

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        """Yields full blocks of joined documents or, for pairs of segments, chunks of documents.

        A block is [CLS] … [SEP], with a [SEP] between documents. A chunk lies within one document
        and has no special tokens; `starts` holds the positions at which its sentences begin.
        """
        documents = texts_of(rows, self.column, summary)
        if self.settings.next_sentence_prediction:
            return self._pairs(documents, summary)
        return self._blocks(documents, summary)

    def _blocks(
        self, documents: Iterator[list[tuple[int, str]]], summary: Summary
    ) -> Iterator[EncodedColumns]:
        cls_id, sep_id = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        size, rest = self.max_seq_length - 2, list[int]()
        for chunk in documents:
            encoded = self.text_tokenizer.tokens([text for _, text in chunk])
            for token in encoded.special.values():
                self.text_tokenizer.remark(token, summary)
            for ids in filter(None, encoded.columns["input_ids"]):
                rest += [sep_id, *ids] if rest else ids
            full = len(rest) // size * size
            blocks = [rest[start : start + size] for start in range(0, full, size)]
            yield {"input_ids": [[cls_id, *block, sep_id] for block in blocks]}
            rest = rest[full:]
        yield {"input_ids": [[cls_id, *rest, sep_id]] if rest else []}

    def _pairs(
        self, documents: Iterator[list[tuple[int, str]]], summary: Summary
    ) -> Iterator[EncodedColumns]:
        count = 0
        for chunk in documents:
            kept = list[tuple[int, Document]]()
            for number, text in chunk:
                encoded = self.text_tokenizer.tokens(sentences(text) or [text])
                document = encoded.columns["input_ids"]
                if encoded.special:
                    self.text_tokenizer.remark(next(iter(encoded.special.values())), summary)
                if len(document) > 1:
                    kept.append((count, document))
                    count += 1
                else:
                    error = DataError(
                        f"row {number}: a document of one sentence has no next one",
                        key="data.columns.text",
                        value=excerpt(text),
                        hint="set data.documents, or next_sentence_prediction: false",
                    )
                    summary.reject(error)
            yield cut_documents(kept, self.max_seq_length - 3)
        if count == 1:
            raise DataError(
                "next sentences are drawn from other documents, and there is one document only",
                key="task.next_sentence_prediction",
                value=True,
                hint="set data.documents or next_sentence_prediction: false",
            )

    def collate(self, split: PreparedSplit, ids: np.ndarray, epoch: int) -> Batch:
        tokens, labels, types, follows = list[Any](), list[Any](), list[Any](), list[int]()
        for index in ids.tolist():
            random = np.random.default_rng((self.seed, epoch, index))
            if self.settings.next_sentence_prediction:
                first, second, real = pair(split, index, self.max_seq_length - 3, random)
                ends = [self.tokenizer.cls_token_id], [self.tokenizer.sep_token_id]
                original = np.concatenate([ends[0], first, ends[1], second, ends[1]])
                types.append(np.arange(len(original)) > len(first) + 1)
                follows.append(0 if real else 1)  # as in BERT: 0 is the next, 1 a random segment
            else:
                original = np.asarray(split.ragged("input_ids")[index])
            masked, predicted = self.masking.mask(original, random)
            tokens.append(masked)
            labels.append(predicted)
        lengths = np.array([len(ids) for ids in tokens])
        inputs = {"input_ids": stack(tokens, self.tokenizer.pad_token_id)}
        inputs |= attention_mask(lengths)
        targets = {"labels": stack(labels, IGNORED)}
        counts = [int((targets["labels"] != IGNORED).sum())]
        if self.settings.next_sentence_prediction:
            if self.has_types:
                inputs["token_type_ids"] = stack(types, 0)
            targets["next_sentence"] = torch.tensor(follows)
            counts.append(len(follows))
        return Batch(
            inputs=inputs, targets=targets, counts=torch.tensor(counts, dtype=torch.float64)
        )

    def loss_sums(
        self, model: nn.Module, inputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> tuple[Tensor, Any]:
        scored = score_tokens(model, inputs, targets["labels"])
        sums = [scored.loss_sum]
        hits = torch.zeros_like(scored.correct)
        if self.settings.next_sentence_prediction:
            logits = scored.output.seq_relationship_logits.float()
            follows = targets["next_sentence"]
            sums.append(functional.cross_entropy(logits, follows, reduction="sum"))
            hits = (logits.argmax(-1) == follows).sum().double()
        nll = scored.loss_sum.detach().double()
        return torch.stack(sums), torch.stack([nll, scored.correct, hits])

    def statistics(self, outputs: Any, targets: dict[str, Tensor]) -> Tensor:
        num_tokens = (targets["labels"] != IGNORED).sum().double()
        num_pairs = torch.as_tensor(len(targets.get("next_sentence", ()))).double()
        return torch.cat([outputs, torch.stack([num_tokens, num_pairs.to(outputs.device)])])

    def metrics(
        self,
        statistics: np.ndarray,
        answers: list[Record],
        validation: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        nll, correct, hits, num_tokens, num_pairs = statistics.tolist()
        if not num_tokens:
            return {}
        measured = {
            "perplexity": perplexity(nll, num_tokens),
            "masked_accuracy": correct / num_tokens,
            "num_masked": int(num_tokens),
        }
        if self.settings.next_sentence_prediction:
            measured |= {"next_sentence_accuracy": hits / num_pairs, "num_pairs": int(num_pairs)}
        return measured

    @classmethod
    def num_judged(cls, metrics: Mapping[str, Any]) -> dict[str, int]:
        # The tokens of a text are not independent, its pairs nearly are.
        return {"next_sentence_accuracy": metrics["num_pairs"]} if "num_pairs" in metrics else {}


def _loss_terms(settings: MaskedLMSettings) -> tuple[LossTerm, ...]:
    pairs = (LossTerm("next_sentence"),) * settings.next_sentence_prediction
    return (LossTerm("masked_lm"), *pairs)


def _auto_model(settings: MaskedLMSettings) -> str:
    pairs = settings.next_sentence_prediction
    return "AutoModelForPreTraining" if pairs else "AutoModelForMaskedLM"


def _check_pairs(settings: MaskedLMSettings, model_config: Any) -> None:
    kind = model_config.model_type
    if settings.next_sentence_prediction and kind not in PAIR_MODELS:
        raise ConfigError(
            f"task.next_sentence_prediction: a {kind} has no head for pairs of segments",
            key="task.next_sentence_prediction",
            value=True,
            hint="set it to false or use bert",
        )
