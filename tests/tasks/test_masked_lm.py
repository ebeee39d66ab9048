"""Masked language modelling: blocks, pairs, what is refused, and what perplexity means."""

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from trainer.data.encoded import PreparedSplit, Summary, encode_once
from trainer.errors import ConfigError, DataError
from trainer.models.output_layer import install_output_layer
from trainer.models.output_loss import IGNORED
from trainer.recipe import schema
from trainer.recipe.data import Data, Source
from trainer.recipe.model import Model
from trainer.recipe.training import Batch
from trainer.tasks.masked_lm.settings import MaskedLMSettings
from trainer.tasks.masked_lm.task import MaskedLM
from trainer.tasks.recipe import Recipe

WORDS = [f"{first}{second}" for first in "bcdfghjk" for second in ("a", "e", "i", "o", "ur", "en")]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def document(number: int, num_sentences: int = 6) -> str:
    """Returns sentences of random words; no two documents have the same."""
    random = np.random.default_rng(number)
    return " ".join(
        " ".join(random.choice(WORDS, random.integers(3, 9))) + "." for _ in range(num_sentences)
    )


DOCUMENTS = [document(number, 2 + number % 9) for number in range(40)]


@pytest.fixture(scope="module")
def tokenizer(trained_tokenizer: Any) -> Any:
    return trained_tokenizer("wordpiece", 120, DOCUMENTS)


def recipe(*, length: int = 16, seed: int = 1, **settings: Any) -> schema.Recipe:
    return Recipe(
        seed=seed,
        model=Model(name_or_path="bert"),
        task=MaskedLMSettings(name="masked_lm", **settings),
        data=Data(source=Source(builtin="documents")),
        batch=Batch(max_seq_length=length),
    )


def task(tokenizer: Any, kind: str = "bert", **settings: Any) -> MaskedLM:
    numbers = transformers.CONFIG_MAPPING[kind]()
    return MaskedLM.build(recipe(**settings), rows([]), tokenizer, numbers)


def rows(texts: list[Any]) -> datasets.Dataset:
    features = datasets.Features({"text": datasets.Value("string")})
    return datasets.Dataset.from_dict({"text": texts}, features=features)


def encode(made: MaskedLM, texts: list[Any], **settings: Any) -> tuple[dict[str, Any], Summary]:
    """Returns all columns of some texts, and what was counted."""
    summary, columns = Summary(**settings), dict[str, Any]()
    for chunk in made.encode(rows(texts), summary):
        for name, entries in chunk.items():
            columns.setdefault(name, []).extend(entries)
    return columns, summary


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prepares texts for a task."""
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path))

    def prepared(made: MaskedLM, texts: list[str] = DOCUMENTS) -> PreparedSplit:
        key = str(made.encoding_settings())
        return encode_once(key, lambda summary: made.encode(rows(texts), summary))

    return prepared


def plain_tokens(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# Blocks


@given(
    texts=st.lists(st.sampled_from(DOCUMENTS), min_size=1, max_size=5),
    length=st.integers(4, 40),
)
def test_blocks_are_the_joined_documents_and_full_but_the_last(tokenizer, texts, length):
    blocks = encode(task(tokenizer, length=length), texts)[0]["input_ids"]
    cls_id, sep_id = tokenizer.cls_token_id, tokenizer.sep_token_id
    joined = list[int]()
    for text in texts:
        joined += [sep_id] * bool(joined) + plain_tokens(tokenizer, text)
    assert all((block[0], block[-1]) == (cls_id, sep_id) for block in blocks)
    assert [token for block in blocks for token in block[1:-1]] == joined
    assert all(len(block) == length for block in blocks[:-1])
    assert 2 < len(blocks[-1]) <= length


def test_no_token_is_lost_where_rows_are_read_some_at_a_time(tokenizer):
    texts = [WORDS[number % len(WORDS)] for number in range(2500)]  # read by the thousand
    blocks = encode(task(tokenizer, length=37), texts)[0]["input_ids"]
    inside = [token for block in blocks for token in block[1:-1] if token != tokenizer.sep_token_id]
    assert inside == [token for text in texts for token in plain_tokens(tokenizer, text)]
    assert {len(block) for block in blocks[:-1]} == {37}


def test_a_text_without_tokens_leaves_no_empty_document(tokenizer):
    nothing = "\u200b"  # which the tokenizer removes, and is no space
    assert plain_tokens(tokenizer, nothing) == []
    made = task(tokenizer, length=64)
    with_nothing = encode(made, [nothing, *DOCUMENTS[:2], nothing, DOCUMENTS[2], nothing])[0]
    assert with_nothing == encode(made, DOCUMENTS[:3])[0]


# Pairs


def test_pairs_are_cut_from_the_sentences_of_a_document(tokenizer):
    made = task(tokenizer, length=16, next_sentence_prediction=True)
    columns, _ = encode(made, DOCUMENTS)
    for number, text in enumerate(DOCUMENTS):
        chunks = [
            chunk
            for chunk, of in zip(columns["input_ids"], columns["document"], strict=True)
            if of == number
        ]
        joined = [token for chunk in chunks for token in chunk]
        assert joined in [plain_tokens(tokenizer, text), plain_tokens(tokenizer, text)[:-1]]
        assert all(len(chunk) == 13 for chunk in chunks[:-1])
    full_stop = tokenizer.convert_tokens_to_ids(".")
    first, starts = columns["input_ids"][0], columns["starts"][0]
    assert starts == [place + 1 for place, token in enumerate(first[:-1]) if token == full_stop]


@pytest.mark.parametrize("length", [16, 64])
def test_a_pair_is_laid_out_as_bert_wants_it(tokenizer, split, length):
    made = task(tokenizer, length=length, next_sentence_prediction=True)
    prepared = split(made)
    ids = np.arange(len(prepared))
    batch = made.collate(prepared, ids, epoch=1)
    assert batch.counts.tolist() == [(batch.targets["labels"] != IGNORED).sum().item(), len(ids)]
    follows = batch.targets["next_sentence"]
    assert set(follows.tolist()) == {0, 1}
    for row, index in enumerate(ids):
        mask = batch.inputs["attention_mask"][row].bool()
        tokens, types = batch.inputs["input_ids"][row], batch.inputs["token_type_ids"][row]
        labels = batch.targets["labels"][row]
        tokens = torch.where(labels != IGNORED, labels, tokens)  # unmasked
        assert (tokens[~mask] == tokenizer.pad_token_id).all()
        assert (types[~mask] == 0).all()
        assert (labels[~mask] == IGNORED).all()
        tokens, types = tokens[mask].tolist(), types[mask].tolist()
        assert len(tokens) <= length
        seps = [place for place, token in enumerate(tokens) if token == tokenizer.sep_token_id]
        assert tokens[0] == tokenizer.cls_token_id
        assert len(seps) == 2
        assert seps[1] == len(tokens) - 1
        assert types == [0] * (seps[0] + 1) + [1] * (len(tokens) - seps[0] - 1)
        chunk = prepared.ragged("input_ids")[index].tolist()
        first, second = tokens[1 : seps[0]], tokens[seps[0] + 1 : -1]
        assert first == chunk[: len(first)]
        assert (first + second == chunk) == (follows[row] == 0)  # BERT's: 0 is the next


def test_types_are_left_out_where_the_model_has_none(tokenizer, split):
    numbers = transformers.BertConfig(type_vocab_size=1)
    settings = recipe(next_sentence_prediction=True)
    made = MaskedLM.build(settings, rows([]), tokenizer, numbers)
    assert "token_type_ids" not in made.collate(split(made), np.arange(4), epoch=1).inputs


# What is random


PAIRS = pytest.mark.parametrize("pairs", [False, True], ids=["blocks", "pairs"])


def rows_of(batch: Any) -> list[tuple[list[int], list[int], int]]:
    """Returns tokens and labels of the examples of a batch without padding, and what follows."""
    ids, labels = batch.inputs["input_ids"], batch.targets["labels"]
    mask = batch.inputs.get("attention_mask", torch.ones_like(ids)).bool()
    follows = batch.targets.get("next_sentence", torch.zeros(len(ids)))
    return [
        (ids[row][mask[row]].tolist(), labels[row][mask[row]].tolist(), int(follows[row]))
        for row in range(len(ids))
    ]


@PAIRS
def test_masks_depend_on_seed_epoch_and_example_and_on_nothing_else(tokenizer, split, pairs):
    made = task(tokenizer, length=32, next_sentence_prediction=pairs)
    prepared = split(made)
    ids = np.arange(len(prepared))
    whole = rows_of(made.collate(prepared, ids, epoch=1))
    assert rows_of(made.collate(prepared, ids, epoch=1)) == whole
    order = np.random.default_rng(1).permutation(ids)
    shuffled = rows_of(made.collate(prepared, order, epoch=1))
    assert [shuffled[place] for place in np.argsort(order)] == whole
    alone = [rows_of(made.collate(prepared, ids[index : index + 1], epoch=1))[0] for index in ids]
    assert alone == whole
    np.random.seed(5)  # generators of the process do not enter
    torch.manual_seed(5)
    again = task(tokenizer, length=32, next_sentence_prediction=pairs)
    assert rows_of(again.collate(prepared, ids, epoch=1)) == whole


@PAIRS
def test_another_epoch_or_seed_gives_other_masks_and_evaluations_are_one_epoch(
    tokenizer, split, pairs
):
    made = task(tokenizer, length=32, next_sentence_prediction=pairs)
    prepared = split(made)
    ids = np.arange(len(prepared))
    evaluated = rows_of(made.collate(prepared, ids, epoch=0))
    other = task(tokenizer, length=32, seed=2, next_sentence_prediction=pairs)
    for another in (
        made.collate(prepared, ids, epoch=1),
        made.collate(prepared, ids, epoch=2),
        other.collate(prepared, ids, epoch=0),
    ):
        masks = [[label != IGNORED for label in labels] for _, labels, _ in rows_of(another)]
        before = [[label != IGNORED for label in labels] for _, labels, _ in evaluated]
        same = np.mean([one == two for one, two in zip(masks, before, strict=True)])
        assert same < 0.1
    assert rows_of(made.collate(prepared, ids, epoch=0)) == evaluated


def test_examples_have_masks_of_their_own(tokenizer, split):
    made = task(tokenizer, length=32)
    prepared = split(made, [" ".join(["ba"] * 3000)])  # examples that are all alike
    masks = [str(labels) for _, labels, _ in rows_of(made.collate(prepared, np.arange(50), 1))]
    assert len(set(masks)) > 45


# What is refused


def test_a_tokenizer_without_a_mask_is_refused(tokenizer):
    backend = tokenizer.backend_tokenizer
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    with pytest.raises(ConfigError, match="masked_lm needs a tokenizer with a mask token"):
        task(bare)
    bare.mask_token = "[MASK]"
    with pytest.raises(ConfigError, match="with a cls token") as caught:
        task(bare)
    assert (caught.value.key, caught.value.value) == ("task.name", "masked_lm")


def test_next_sentences_need_a_model_with_a_head_for_them(tokenizer):
    with pytest.raises(ConfigError) as caught:
        task(tokenizer, "roberta", next_sentence_prediction=True)
    assert (caught.value.key, caught.value.value) == ("task.next_sentence_prediction", True)
    assert caught.value.hint == "set it to false or use bert"
    assert task(tokenizer, "roberta").auto_model == "AutoModelForMaskedLM"
    made = task(tokenizer, next_sentence_prediction=True)
    assert made.auto_model == "AutoModelForPreTraining"
    assert [term.name for term in made.loss_terms] == ["masked_lm", "next_sentence"]


@PAIRS
@pytest.mark.parametrize("text", ["", " \n", None])
def test_a_row_without_text_is_named_or_counted(tokenizer, text, pairs):
    made = task(tokenizer, next_sentence_prediction=pairs)
    texts = [DOCUMENTS[0], text, DOCUMENTS[1]]
    with pytest.raises(DataError, match="row 2: the column text has no text"):
        encode(made, texts)
    columns, summary = encode(made, texts, on_bad_example="skip")
    assert summary.num_skipped == 1
    assert columns == encode(made, [DOCUMENTS[0], DOCUMENTS[1]])[0]


@pytest.mark.parametrize("text", ["Just this one.", "ba be", "Ba be. \u200b", "Ba be. *** ..."])
def test_a_document_of_one_sentence_is_named_or_counted(tokenizer, text):
    made = task(tokenizer, next_sentence_prediction=True)
    texts = [*DOCUMENTS[:2], text, DOCUMENTS[2]]
    with pytest.raises(DataError, match="row 3: a document of one sentence has no next") as caught:
        encode(made, texts)
    assert caught.value.key == "data.columns.text"
    columns, summary = encode(made, texts, on_bad_example="skip")
    assert summary.num_skipped == 1
    assert summary.first_skipped.startswith("row 3: ")
    assert columns == encode(made, DOCUMENTS[:3])[0]  # documents are numbered without it
    encode(task(tokenizer), texts)  # which does not matter to blocks


def test_one_document_has_no_others(tokenizer):
    made = task(tokenizer, next_sentence_prediction=True)
    with pytest.raises(DataError, match="there is one document only; set data"):
        encode(made, DOCUMENTS[3:4])
    with pytest.raises(DataError) as caught:
        encode(made, [DOCUMENTS[3], "One sentence."], on_bad_example="skip")
    assert (caught.value.key, caught.value.value) == ("task.next_sentence_prediction", True)
    encode(made, DOCUMENTS[3:5])


def test_nothing_left_says_what_was_skipped(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path))
    made, summary = task(tokenizer), Summary(on_bad_example="skip")
    with pytest.raises(DataError, match="no example is left; row 1: the column text has no text"):
        encode_once("none", lambda counted: made.encode(rows(["", None]), counted), summary)


# Metrics


@PAIRS
def test_metrics_are_over_all_masked_tokens_however_they_were_batched(tokenizer, split, pairs):
    made = task(tokenizer, length=32, next_sentence_prediction=pairs)
    prepared = split(made)
    torch.manual_seed(1)
    numbers = transformers.BertConfig(vocab_size=len(tokenizer), **SIZES)
    model = getattr(transformers, made.auto_model).from_config(numbers).eval()
    install_output_layer(model)
    total = torch.zeros(made.num_statistics, dtype=torch.float64)
    nll, right, hits = list[float](), list[bool](), list[bool]()
    cuts = np.split(np.arange(len(prepared)), [1, 4, 12, 13, 25])  # of different sizes
    for ids in cuts:
        batch = made.collate(prepared, ids, epoch=0)
        with torch.no_grad():
            _, outputs = made.loss_sums(model, batch.inputs, batch.targets)
            output = model(**batch.inputs)
        total += made.statistics(outputs, batch.targets)
        wanted = batch.targets["labels"] != IGNORED
        logits = (output.prediction_logits if pairs else output.logits)[wanted]
        labels = batch.targets["labels"][wanted]
        nll += functional.cross_entropy(logits, labels, reduction="none").tolist()
        right += (logits.argmax(-1) == labels).tolist()
        if pairs:
            told = output.seq_relationship_logits.argmax(-1)
            hits += (told == batch.targets["next_sentence"]).tolist()
    measured = made.metrics(total.numpy(), [])
    expected = {
        "perplexity": math.exp(sum(nll) / len(nll)),
        "masked_accuracy": np.mean(right),
        "num_masked": len(nll),
    }
    if pairs:
        expected |= {"next_sentence_accuracy": np.mean(hits), "num_pairs": len(prepared)}
    assert measured == pytest.approx(expected, rel=1e-5)
    assert set(made.metrics_offered) - {"loss"} <= set(measured)
    assert set(made.scales) <= set(measured)


def test_a_hopeless_model_has_a_finite_perplexity_and_no_token_none(tokenizer):
    made = task(tokenizer)
    assert math.isfinite(made.metrics(np.array([1e6, 0, 0, 10, 0]), [])["perplexity"])
    assert made.metrics(np.zeros(5), []) == {}
