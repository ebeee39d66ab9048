"""The task of causal language modelling: running text, or answers to prompts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.columns import column_name
from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.data.packing import pack
from trainer.data.rows import numbered, texts_of
from trainer.errors import ConfigError, DataError
from trainer.metrics.generation import TEXT_SCORES, generation_scores
from trainer.metrics.scores import Scores
from trainer.models.decoder import is_decoder
from trainer.models.output_loss import IGNORED, perplexity, score_tokens
from trainer.models.positions import num_positions
from trainer.models.tokenizers.special_tokens import SpecialTokens, TextTokenizer
from trainer.recipe.data import Column, Columns
from trainer.recipe.schema import Recipe
from trainer.tasks.base import LossTerm, Task
from trainer.tasks.batch import Batch, attention_mask, full_inputs, pad, stack
from trainer.tasks.causal_lm.judgement import judge
from trainer.tasks.causal_lm.packed import apart, attention_dtype, check_packing
from trainer.tasks.causal_lm.scores import answer_scores
from trainer.tasks.causal_lm.settings import CausalLMSettings
from trainer.tasks.finding import Finding
from trainer.tasks.generation.generator import Generator, examples, first_answers
from trainer.tasks.generation.prompts import Prompts, Texts, are_filled, chat_columns, whole_texts
from trainer.tasks.judgement import LONGEST_SHOWN, Judgement
from trainer.tasks.reported import Record
from trainer.wording import excerpt

if TYPE_CHECKING:
    from datasets import Dataset


class CausalLM(Task):
    """Cross-entropy of the next token; with instructions, of the tokens of the answers only."""

    Settings = CausalLMSettings
    auto_model = "AutoModelForCausalLM"
    loss_terms = (LossTerm("next_token"),)
    trains_head = False
    predictor = "trainer.tasks.causal_lm.predictor:CausalLMPredictor"
    num_statistics = 3

    def __init__(
        self,
        settings: CausalLMSettings,
        *,
        columns: Columns,
        tokenizer: Any,
        max_seq_length: int,
        seed: int,
        num_positions: int | None,
        own_tokenizer: bool = False,
        special_tokens: SpecialTokens = "literal",
    ) -> None:
        self.settings = settings
        self.text = column_name(columns.text)
        self.tokenizer = tokenizer
        self.text_tokenizer = TextTokenizer(tokenizer, special_tokens)
        self.max_seq_length = max_seq_length
        self.seed = seed
        self.prompts = (
            Prompts(settings, columns, tokenizer, special_tokens) if settings.instructs else None
        )
        turn_end = self.prompts.turn_end() if self.prompts is not None else []
        self.generator = Generator(
            settings.generation, tokenizer, num_positions, turn_end, own_tokenizer=own_tokenizer
        )
        generates = settings.instructs and settings.generation.num_examples > 0
        self.scales = {"token_accuracy": "0-1", **dict.fromkeys(TEXT_SCORES * generates, "0-100")}
        self.metrics_offered = ("loss", "perplexity", *self.scales)

    @classmethod
    def columns(cls, recipe: Recipe) -> dict[str, Column | None]:
        settings, columns = recipe.task, recipe.data.columns
        assert isinstance(settings, CausalLMSettings)
        if settings.chat:
            return {"data.columns.messages": columns.messages}
        if settings.prompt is None:
            return {"data.columns.text": columns.text}
        return {f"task.{key}: {name}": name for key, name in settings.template_columns()}

    @classmethod
    def columns_in(cls, recipe: Recipe, present: Sequence[str]) -> dict[str, Column | None]:
        assert isinstance(recipe.task, CausalLMSettings)
        if not recipe.task.chat:
            return cls.columns(recipe)
        columns = chat_columns(recipe.data.columns, present)
        return {f"data.columns.{key}": name for key, name in columns.items()}

    @classmethod
    def texts(cls, recipe: Recipe, rows: "Dataset") -> Iterator[str]:
        assert isinstance(recipe.task, CausalLMSettings)
        assert not recipe.task.chat, "the settings refuse to train a tokenizer for chat"
        names = [column_name(column) for column in cls.columns(recipe).values() if column]
        for _, chunk in numbered(rows, names):
            yield from (str(text) for name in names for text in chunk[name] if text is not None)

    @classmethod
    def build(cls, recipe: Recipe, train: "Dataset", tokenizer: Any, model_config: Any) -> Self:
        settings = recipe.task
        assert isinstance(settings, CausalLMSettings)
        if settings.chat and not tokenizer.chat_template:
            raise ConfigError(
                "task.chat: the tokenizer has no chat template",
                key="task.chat",
                value=True,
                hint="name another tokenizer, or set task.prompt and task.completion",
            )
        _check_decoder(model_config)
        if settings.packing:
            check_packing(model_config, recipe.batch.max_seq_length)
        return cls(
            settings,
            columns=recipe.data.columns,
            tokenizer=tokenizer,
            max_seq_length=recipe.batch.max_seq_length,
            seed=recipe.seed,
            num_positions=num_positions(model_config),
            own_tokenizer=recipe.model.name_or_path is not None and recipe.model.tokenizer is None,
            special_tokens=recipe.data.special_tokens,
        )

    @classmethod
    def unread(cls, recipe: Recipe, model_config: Any) -> Self:
        assert isinstance(recipe.task, CausalLMSettings)
        _check_decoder(model_config)
        task = cls.__new__(cls)
        task.settings = recipe.task
        generation = recipe.task.generation
        if recipe.task.instructs and generation.num_examples > 0:
            task.generated_tokens = generation.max_new_tokens
        return task

    def full_batch(self, size: int, length: int) -> Batch:
        packing = self.settings.packing
        inputs = full_inputs(size, length, padded=not packing)  # also the last, shorter block
        if packing:
            inputs["position_ids"] = torch.arange(length).repeat(size, 1)
        targets = torch.zeros(size, length, dtype=torch.int64)
        targets[:, -1] = IGNORED
        return Batch(
            inputs=inputs,
            targets={"labels": targets},
            counts=(targets != IGNORED).sum().double()[None],
        )

    def encoding_settings(self) -> dict[str, Any]:
        prompts = self.prompts.settings() if self.prompts is not None else None
        packing = self.settings.packing
        length = self.max_seq_length
        return {"task": "causal_lm", "length": length, "prompts": prompts, "packing": packing}

    @classmethod
    def diagnose(cls, metrics: Mapping[str, Any]) -> list[Finding]:
        if metrics.get("generated_words") != 0:
            return []
        return [
            Finding(
                code="empty-answers",
                message="every generated answer is empty",
                advice="train longer, or check the prompt, after which the model ends at once",
            )
        ]

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        """Yields blocks of joined documents or, for instructions, examples with `learned` flags.

        Consecutive blocks share one token, so that each token but the first is predicted once.
        Packed sequences have `position_ids`, which begin at 0 with each example.
        """
        return (
            self._blocks(rows, summary) if self.prompts is None else self._examples(rows, summary)
        )

    def _blocks(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        rest, step = list[int](), self.max_seq_length - 1
        for texts in texts_of(rows, self.text, summary):
            for ids in whole_texts(self.text_tokenizer, [text for _, text in texts], summary):
                rest += ids
            starts = range(0, len(rest) - step, step)
            yield {"input_ids": [rest[start : start + step + 1] for start in starts]}
            rest = rest[len(starts) * step :]
        yield {"input_ids": [rest] if len(rest) > 1 else []}

    def _examples(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        assert self.prompts is not None
        names = self.prompts.columns(rows.column_names)
        filled = are_filled(rows, names)
        for numbers, chunk in numbered(rows, names):
            tokens, learned, texts = list[list[int]](), list[list[int]](), dict[int, Texts]()
            for index, number in enumerate(numbers):
                row = {name: chunk[name][index] for name in names}
                try:
                    texts[number] = self.prompts.texts(row, summary, filled=filled)
                except DataError as error:
                    summary.reject(error.after(f"row {number}: "))
            encoded = self.prompts.encode(list(texts.values()))
            for number, tokenized in zip(texts, encoded, strict=True):
                if isinstance(tokenized, DataError):
                    summary.reject(tokenized.after(f"row {number}: "))
                    continue
                ids, flags = tokenized
                kept = flags[: self.max_seq_length]
                if not any(kept):
                    error = DataError(
                        f"the prompt of {flags.index(1)} tokens leaves no room for the answer",
                        key="batch.max_seq_length",
                        value=self.max_seq_length,
                        hint="raise batch.max_seq_length or shorten the prompt",
                    )
                    summary.reject(error.after(f"row {number}: "))
                    continue
                summary.measure(len(ids), self.max_seq_length)
                tokens.append(ids[: self.max_seq_length])
                learned.append(kept)
            if not self.settings.packing:
                yield {"input_ids": tokens, "learned": learned}
                continue
            groups = pack([len(ids) for ids in tokens], self.max_seq_length)
            yield {
                "input_ids": [[token for i in group for token in tokens[i]] for group in groups],
                "learned": [[flag for i in group for flag in learned[i]] for group in groups],
                "position_ids": [
                    [place for i in group for place in range(len(tokens[i]))] for group in groups
                ],
            }

    def collate(self, split: PreparedSplit, ids: np.ndarray, epoch: int) -> Batch:
        labels: list[np.ndarray] = []
        for index in ids.tolist():
            after = split.ragged("input_ids")[index][1:].astype(np.int64)
            if "learned" in split.columns:
                after = np.where(split.ragged("learned")[index][1:], after, IGNORED)
            labels.append(np.append(after, IGNORED))
        inputs = {"input_ids": pad(split.ragged("input_ids"), ids, self.tokenizer.pad_token_id)}
        if "position_ids" in split.columns:
            inputs["position_ids"] = pad(split.ragged("position_ids"), ids, 0)
        else:
            inputs |= attention_mask(split.lengths[ids])
        targets = stack(labels, IGNORED)
        return Batch(
            inputs=inputs,
            targets={"labels": targets},
            counts=(targets != IGNORED).sum().double()[None],
        )

    def loss_sums(
        self, model: nn.Module, inputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> tuple[Tensor, Any]:
        if "position_ids" in inputs:
            mask = apart(inputs["position_ids"], attention_dtype(model))
            inputs = {**inputs, "attention_mask": mask}
        scored = score_tokens(model, inputs, targets["labels"])
        nll = scored.loss_sum.detach().double()
        return scored.loss_sum[None], torch.stack([nll, scored.correct])

    def statistics(self, outputs: Any, targets: dict[str, Tensor]) -> Tensor:
        count = (targets["labels"] != IGNORED).sum().double()
        return torch.cat([outputs, count[None]])

    def sample(self, split: PreparedSplit) -> np.ndarray:
        num_examples = self.settings.generation.num_examples if self.prompts is not None else 0
        num_starts = len(examples(split)) - 1
        return np.random.default_rng(self.seed).permutation(num_starts)[:num_examples]

    def generate(self, model: nn.Module, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        if self.prompts is None:  # running text has no prompts
            return []
        references = list(first_answers(split, ids))
        texts = self.generator.generate(model, [prompt for _, prompt, _ in references])
        decode = self.generator.decode
        return [
            {
                "id": index,
                **({"row": index} if _one_per_row(split) else {}),
                "prompt": decode(prompt),
                "prediction": text,
                "reference": decode(answer),
            }
            for (index, prompt, answer), text in zip(references, texts, strict=True)
        ]

    def generation_ends(self, model: nn.Module) -> list[int]:
        return self.generator.ends_of(model)

    def metrics(
        self,
        statistics: np.ndarray,
        answers: list[Record],
        validation: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        nll, correct, count = statistics.tolist()
        if not count:
            return {}
        measured: dict[str, Any] = {
            "perplexity": perplexity(nll, count),
            "token_accuracy": correct / count,
            "num_tokens": int(count),
        }
        if answers:
            predictions = [answer["prediction"] for answer in answers]
            references = [[answer["reference"]] for answer in answers]
            measured |= generation_scores(predictions, references)
            measured["generated_words"] = sum(len(text.split()) for text in predictions)
        return measured

    @classmethod
    def scores(cls, answers: Sequence[Record], metrics: Mapping[str, Any]) -> Scores | None:
        return answer_scores(answers)

    @classmethod
    def judge(cls, answer: Record, metrics: Mapping[str, Any]) -> Judgement:
        return judge(answer)

    @classmethod
    def shown_texts(cls, answer: Record, row: Mapping[str, Any]) -> dict[str, str]:
        return {"prompt": excerpt(answer["prompt"], LONGEST_SHOWN)}


def _one_per_row(split: PreparedSplit) -> bool:
    """Returns whether example i is row i: nothing is packed, and no row was skipped."""
    packed = "position_ids" in split.columns
    return split.rows is not None and not packed and len(split) == len(split.rows)


def _check_decoder(model_config: Any) -> None:
    if not is_decoder(model_config):
        raise ConfigError(
            f"task.name: a {model_config.model_type} is not a causal language model: it does "
            f"not predict a token from the earlier ones alone",
            key="task.name",
            value="causal_lm",
            hint="use masked_lm, or a decoder such as gpt2 or llama",
        )
