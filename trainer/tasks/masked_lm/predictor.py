"""Tokens for the masks in a text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from trainer.data.columns import column_name
from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.errors import ConfigError, DataError
from trainer.models.tokenizers.special_tokens import TextTokenizer
from trainer.recipe.schema import Recipe
from trainer.tasks.batch import attention_mask, pad
from trainer.tasks.masked_lm.masking import CONTINUATION
from trainer.tasks.predictor import Predictor, encode_rows
from trainer.tasks.reported import Record
from trainer.wording import excerpt

if TYPE_CHECKING:
    from datasets import Dataset

NUM_CANDIDATES = 5
"""Tokens that an answer names for each mask."""


class MaskedLMPredictor(Predictor):
    """Fills the masks of a text, each by its likeliest token.

    An answer has `prediction`, the filled text, and `masks`: for each mask the likeliest tokens,
    objects of `token` and `probability`, the likeliest first.
    """

    fields = ("prediction", "masks")

    def __init__(self, recipe: Recipe, tokenizer: Any) -> None:
        self.columns = {"text": recipe.data.columns.text}
        self.tokenizer = tokenizer
        self.text_tokenizer = TextTokenizer(tokenizer, recipe.data.special_tokens)
        self.max_seq_length = recipe.batch.max_seq_length

    @classmethod
    def build(
        cls, recipe: Recipe, tokenizer: Any, model_config: Any, validation: Mapping[str, Any]
    ) -> Self:
        if None in (tokenizer.mask_token, tokenizer.cls_token, tokenizer.sep_token):
            raise ConfigError(
                "the tokenizer of the model has no mask token, or none around a text",
                key="MODEL",
                hint="name a model with a tokenizer such as BERT's",
            )
        return cls(recipe, tokenizer)

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        """Yields input_ids and `row`; special tokens in a text other than masks stay text, unless
        the recipe parses them."""
        name = column_name(self.columns["text"])
        return encode_rows(rows, [name], lambda row: self._tokens(row[name], name), summary)

    def _tokens(self, text: Any, name: str) -> list[int]:
        tokenizer, mask = self.tokenizer, self.tokenizer.mask_token
        if not isinstance(text, str) or mask not in text:
            problem = "is empty" if text is None or text == "" else f"has no {mask}"
            raise DataError(
                f"the column {name} {problem}",
                key="data.columns.text",
                value=text,
                hint=f"write {mask} for each token to fill in",
            )
        parts = text.split(mask)
        guarded = self.text_tokenizer.literal and self.text_tokenizer.special_in(parts) is not None
        if guarded:
            parts = self.text_tokenizer.guard(parts)
        (ids,) = self.text_tokenizer.templated([mask.join(parts)], [guarded])
        ids = [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
        if len(ids) > self.max_seq_length:
            raise DataError(
                f"the text has {len(ids)} tokens, more than batch.max_seq_length="
                f"{self.max_seq_length}",
                key="batch.max_seq_length",
                value=excerpt(text),
                hint="raise it as far as the model has positions, or shorten the text",
            )
        return ids

    def records(self, model: Any, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        tokens = pad(split.ragged("input_ids"), ids, self.tokenizer.pad_token_id)
        inputs = {"input_ids": tokens, **attention_mask(split.lengths[ids])}
        output = model(**{name: value.to(model.device) for name, value in inputs.items()})
        logits = output.logits if "logits" in output else output.prediction_logits
        batch, places = torch.where(tokens == self.tokenizer.mask_token_id)
        chosen = logits[batch.to(logits.device), places.to(logits.device)].float().softmax(-1)
        best = chosen.topk(min(NUM_CANDIDATES, chosen.shape[-1]))
        rows = split.array("row")[ids]
        records: list[Record] = [{"row": row, "masks": []} for row in rows.tolist()]
        for place, shares, tokens_there in zip(
            batch.tolist(), best.values.tolist(), best.indices.tolist(), strict=True
        ):
            records[place]["masks"].append(list(zip(tokens_there, shares, strict=True)))
        return records

    def answers(self, records: list[Record], split: PreparedSplit) -> dict[int, Record]:
        texts = split.rows[column_name(self.columns["text"])]
        return {
            record["row"]: self._answer(texts[record["row"]], record["masks"]) for record in records
        }

    def _answer(self, text: str, masks: Sequence[list[tuple[int, float]]]) -> Record:
        parts = text.split(self.tokenizer.mask_token)
        filled = parts[0]
        for candidates, part in zip(masks, parts[1:], strict=True):
            token = self._text_of(candidates[0][0])
            if token.startswith(CONTINUATION):
                filled, token = filled.rstrip(), token.removeprefix(CONTINUATION)
            filled += token + part
        named = [
            [{"token": self._text_of(token), "probability": share} for token, share in candidates]
            for candidates in masks
        ]
        return {"prediction": filled, "masks": named}

    def _text_of(self, token: int) -> str:
        return self.tokenizer.decode([token]).strip()
