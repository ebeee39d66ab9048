"""Question answering: loss, answers over windows, and scores with a threshold for "no answer"."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoConfig, AutoModelForQuestionAnswering

import trainer
from trainer.assembly.inputs import build_inputs
from trainer.data.builtin import BUILTIN
from trainer.data.encoded import PreparedSplit, Summary, encode_once
from trainer.metrics.answers import AT_THRESHOLD, answer_metrics
from trainer.models.span_head import ensure_span_head
from trainer.recipe.data import Columns
from trainer.tasks.batch import Batch
from trainer.tasks.question_answering.articles import first_of_article
from trainer.tasks.question_answering.settings import QuestionAnsweringSettings
from trainer.tasks.question_answering.spans import answer_probabilities, best_spans, merge
from trainer.tasks.question_answering.task import QuestionAnswering
from trainer.tasks.recipe import parse_recipe
from trainer.tasks.reported import Record

ROWS = BUILTIN["passages"](60, 1)["train"]
Outputs = tuple[Tensor, Tensor]


@pytest.fixture(scope="module", params=[False, True], ids=["encoder", "decoder"])
def task(request: pytest.FixtureRequest, trained_tokenizer: Any) -> QuestionAnswering:
    texts = [text for row in ROWS for text in (row["context"], row["question"])]
    kind = "bpe" if request.param else "wordpiece"
    tokenizer = trained_tokenizer(kind, 600, texts)
    types = [] if request.param else ["token_type_ids"]
    tokenizer.model_input_names = ["input_ids", *types, "attention_mask"]
    return QuestionAnswering(
        QuestionAnsweringSettings(name="question_answering", stride=16),
        columns=Columns(),
        tokenizer=tokenizer,
        max_seq_length=96,
        is_decoder=request.param,
    )


@pytest.fixture(scope="module")
def split(task: QuestionAnswering, tmp_path_factory: pytest.TempPathFactory) -> PreparedSplit:
    """Windows of 60 questions on passages; most contexts take several windows."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRAINER_CACHE", str(tmp_path_factory.mktemp("cache")))
        rows = Dataset.from_list(ROWS)
        made = encode_once("split", lambda counted: task.encode(rows, counted), Summary())
    return PreparedSplit(made.columns, made.summary, rows)


def batches(size: int, number: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, number)) for start in range(0, number, size)]


def points(batch: Batch, height: float = 12.0) -> Outputs:
    """Returns the logits of a model that is sure of every target."""
    shape = batch.inputs["input_ids"].shape
    made = [torch.zeros(shape), torch.zeros(shape)]
    for logits, name in zip(made, ("start", "end"), strict=True):
        logits.scatter_(1, batch.targets[name][:, None], height)
    return made[0], made[1]


def noise(batch: Batch, ids: np.ndarray) -> Outputs:
    """Returns logits that are drawn for each window, whatever batch it is in."""
    shape = batch.inputs["input_ids"].shape
    made = [torch.full(shape, -torch.inf), torch.full(shape, -torch.inf)]
    for index, window in enumerate(ids):
        drawn = torch.randn(2, 96, generator=torch.Generator().manual_seed(int(window)))
        for logits, values in zip(made, drawn, strict=True):
            logits[index] = values[: shape[1]]
    mask = batch.inputs.get("attention_mask", torch.ones(shape))
    return made[0].masked_fill(mask == 0, -torch.inf), made[1].masked_fill(mask == 0, -torch.inf)


def answered(task: QuestionAnswering, split: PreparedSplit, outputs: Any, size: int = 7):
    """Returns the answers and the metrics of a whole split, batch by batch."""
    records, statistics = list[Record](), torch.zeros(3, dtype=torch.float64)
    for ids in batches(size, len(split)):
        batch = task.collate(split, ids, epoch=0)
        made = outputs(batch, ids)
        statistics += task.statistics(made, batch.targets)
        records += task.records(made, batch.targets, split, ids)
    answers = task.answers(records, split)
    return answers, task.metrics(statistics.numpy(), answers)


# Loss


def model(name: str) -> Any:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = AutoConfig.for_model(
        name, **sizes, intermediate_size=32, vocab_size=600, pad_token_id=0
    )
    ensure_span_head(settings)
    torch.manual_seed(2)
    return AutoModelForQuestionAnswering.from_config(settings).eval()


MODELS = {False: ("bert",), True: ("roberta", "modernbert", "llama", "phi")}
"""Models for each of the two tokenizers; the loss of an encoder does not mind where null is."""


def own_loss(loaded: Any, batch: Batch) -> Tensor:
    """Returns the loss that transformers' model computes itself."""
    spans = {f"{name}_positions": batch.targets[name] for name in ("start", "end")}
    return loaded(**batch.inputs, **spans).loss


def total(task: QuestionAnswering, loaded: Any, batch: Batch) -> Tensor:
    sums, _ = task.loss_sums(loaded, batch.inputs, batch.targets)
    assert sums.shape == batch.counts.shape == (len(task.loss_terms),)
    weights = torch.tensor([term.weight for term in task.loss_terms])
    return (weights * sums / batch.counts).sum()


def test_the_loss_is_the_models_own(task, split):
    full = np.flatnonzero(split.lengths == task.max_seq_length)[:6]
    assert len(full) > 2
    batch = task.collate(split, full, epoch=0)
    assert "attention_mask" not in batch.inputs
    for name in MODELS[task.template.null_is_last]:
        loaded = model(name)
        torch.testing.assert_close(total(task, loaded, batch).float(), own_loss(loaded, batch))


def test_the_loss_of_a_padded_batch_is_that_of_its_windows_alone(task, split):
    ids = np.concatenate([np.argsort(split.lengths)[:3], np.argsort(split.lengths)[-3:]])
    batch = task.collate(split, ids, epoch=0)
    assert "attention_mask" in batch.inputs
    for name in MODELS[task.template.null_is_last]:
        loaded = model(name)
        alone = [own_loss(loaded, task.collate(split, ids[i : i + 1], epoch=0)) for i in range(6)]
        found, expected = total(task, loaded, batch).float(), torch.stack(alone).mean()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_every_window_counts_once_in_each_term(task, split):
    counts = sum(task.collate(split, ids, epoch=0).counts for ids in batches(7, len(split)))
    assert isinstance(counts, Tensor)
    assert counts.tolist() == [len(split), len(split)]
    assert len(split) > len(ROWS)


def test_the_loss_is_summed_in_fp32(task, split):
    batch = task.collate(split, np.arange(3), epoch=0)
    for name in MODELS[task.template.null_is_last]:
        loaded = model(name).to(torch.bfloat16)
        sums, outputs = task.loss_sums(loaded, batch.inputs, batch.targets)
        assert {sums.dtype, *(logits.dtype for logits in outputs)} == {torch.float32}
        assert not any(logits.requires_grad for logits in outputs)


# Answers


def test_sure_logits_answer_everything_and_refuse_what_has_no_answer(task, split):
    answers, metrics = answered(task, split, lambda batch, _: points(batch))
    assert [one["id"] for one in answers] == [row["id"] for row in ROWS]
    names = (
        "best_exact",
        "best_f1",
        "HasAns_f1",
        *(f"{name}_at_threshold" for name in AT_THRESHOLD),
    )
    for name in names:
        assert metrics[name] == 100.0, name
    assert metrics["start_accuracy"] == metrics["end_accuracy"] == 100.0
    assert metrics["rouge1"] > 60  # it knows a-z only, and many names have other letters
    assert metrics["never_answer"] == pytest.approx(100 / 3)
    assert metrics["length_ratio"] == 1.0
    for one, row in zip(answers, ROWS, strict=True):
        assert one["answers"] == row["answers"]["text"]
        assert (one["no_answer_probability"] > 0.99) == (not one["answers"])


def test_an_answer_is_found_in_whichever_window_it_is(task, split):
    answers, _ = answered(task, split, lambda batch, _: points(batch))
    question, window = split.array("row"), np.arange(len(split))
    first = window == np.array([np.flatnonzero(question == one)[0] for one in question])
    late = {int(question[i]) for i in np.flatnonzero(~first & (split.array("start") > 0))}
    early = {
        int(question[i])
        for i in np.flatnonzero(first & (split.array("start") != split.array("null")))
    }
    only_late = [one for one in late - early if ROWS[one]["answers"]["text"]]
    assert only_late
    for one in only_late:
        assert [answers[one]["prediction"]] == ROWS[one]["answers"]["text"]


def test_predictions_lie_in_the_context(task, split):
    """However likely question, special tokens and padding are."""

    def outside(batch: Batch, ids: np.ndarray) -> Outputs:
        logits = torch.full(batch.inputs["input_ids"].shape, 9.0)
        first, starts = split.array("context_start")[ids], split.ragged("token_starts")
        for index, (begin, window) in enumerate(zip(first, ids, strict=True)):
            logits[index, begin : begin + len(starts[window])] = -9.0
        return logits, logits

    for ids in batches(7, len(split)):
        batch = task.collate(split, ids, epoch=0)
        for record in task.records(outside(batch, ids), batch.targets, split, ids):
            length = len(ROWS[record["row"]]["context"])
            assert len(record["spans"]) == task.settings.num_best
            assert all(0 <= begin < end <= length for (begin, end), _ in record["spans"])
            assert {score for _, score in record["spans"]} == {-18.0}


def test_refusals_are_probabilities_that_differ(task, split):
    answers, metrics = answered(task, split, noise)
    odds = [one["no_answer_probability"] for one in answers]
    assert all(0 < one < 1 for one in odds)
    assert len(set(odds)) == len(ROWS)
    assert metrics["null_threshold"] in (0.0, *odds)
    assert metrics["f1_at_threshold"] >= metrics["never_answer"]


def nothing(batch: Batch, ids: np.ndarray) -> Outputs:
    """Returns logits that are all equal, but for those of padding."""
    return tuple(logits.masked_fill(logits.isfinite(), 0.0) for logits in noise(batch, ids))


@pytest.mark.parametrize("outputs", [noise, nothing])
def test_answers_do_not_depend_on_how_windows_were_dealt(task, split, outputs):
    """Each question is answered once, from all its windows, whichever rank had them."""
    expected, _ = answered(task, split, outputs, size=len(split))
    shuffled = np.random.default_rng(3).permutation(len(split))
    ranks: list[list[Record]] = [[], [], []]
    for number, places in enumerate(batches(4, len(split))):
        ids = shuffled[places]
        batch = task.collate(split, ids, epoch=0)
        ranks[number % 3] += task.records(outputs(batch, ids), batch.targets, split, ids)
    assert task.answers([*ranks[2], *ranks[0], *ranks[1]], split) == expected
    assert len(expected) == len({one["id"] for one in expected}) == len(ROWS)


def test_questions_of_one_article_are_a_group(task, split):
    """Those with one title or, without a title, with one context."""
    contexts = ["c", "c", "d", "d", "c", "d"]
    titles = [None, "t", "t", "u", None, " "]
    rows = Dataset.from_dict({"context": contexts, "title": titles})
    assert first_of_article(rows, range(6), "context") == [0, 1, 1, 3, 0, 5]
    assert first_of_article(rows, [4, 2, 1], "context") == [4, 2, 2]
    untitled = rows.remove_columns("title")
    assert first_of_article(untitled, range(6), "context") == [0, 0, 2, 2, 0, 2]
    answers, _ = answered(task, split, noise)
    assert [one["row"] for one in answers] == list(range(len(ROWS)))
    first = {row["title"]: index for index, row in reversed(list(enumerate(ROWS)))}
    assert [one["group"] for one in answers] == [first[row["title"]] for row in ROWS]


def test_records_are_short(task, split):
    batch = task.collate(split, np.arange(5), epoch=0)
    for record in task.records(noise(batch, np.arange(5)), batch.targets, split, np.arange(5)):
        assert len(json.dumps(record)) < 1200


def spans(
    start: list[float], end: list[float], first: int, last: int, **settings: Any
) -> list[Any]:
    found = best_spans(
        torch.tensor([start]),
        torch.tensor([end]),
        torch.tensor([first]),
        torch.tensor([last]),
        **{"num_best": 3, "max_answer_length": 2, **settings},
    )
    values = zip(found.starts[0], found.ends[0], found.scores[0], strict=True)
    return [(int(a), int(b), float(score)) for a, b, score in values]


def test_spans_are_the_best_within_reach():
    start, end = [9.0, 1.0, 3.0, 0.0, 9.0], [9.0, 4.0, 0.0, 2.0, 9.0]
    assert spans(start, end, 1, 3) == [(2, 3, 5.0), (1, 1, 5.0), (2, 2, 3.0)]
    assert spans(start, end, 1, 3, max_answer_length=1) == [(1, 1, 5.0), (2, 2, 3.0), (3, 3, 2.0)]
    assert (1, 3, 3.0) in spans(start, end, 1, 3, max_answer_length=3, num_best=9)
    only = spans(start, end, 2, 2)
    assert only[0] == (2, 2, 3.0)
    assert [score for *_, score in only[1:]] == [-math.inf, -math.inf]


def test_a_span_of_several_windows_has_its_best_score():
    one, two = [((3, 5), 1.0), ((0, 2), 0.5)], [((3, 5), 2.0), ((7, 9), 0.5)]
    assert list(merge([one, two], 5).items()) == [((3, 5), 2.0), ((0, 2), 0.5), ((7, 9), 0.5)]
    assert list(merge([two, one], 2).items()) == [((3, 5), 2.0), ((0, 2), 0.5)]


def test_the_probabilities_of_answers_are_a_softmax():
    expected = torch.tensor([1.0, 3.0, -2.0]).softmax(0).tolist()
    assert answer_probabilities(1.0, [3.0, -2.0]) == pytest.approx(expected)
    assert answer_probabilities(-1e4, [1e4]) == [0.0, 1.0]
    assert answer_probabilities(1e4, [-1e4]) == [1.0, 0.0]
    assert answer_probabilities(0.0, []) == [1.0]


# Scores


def answer(number: int, prediction: str, odds: float, *gold: str) -> Record:
    return {
        "id": str(number),
        "prediction": prediction,
        "no_answer_probability": odds,
        "answers": list(gold),
    }


VALIDATION = [
    answer(1, "Oslo", 0.1, "Oslo"),
    answer(2, "the red house", 0.3, "red house", "house"),
    answer(3, "Rome", 0.6),
    answer(4, "Paris", 0.7, "Lyon"),
]


def test_the_threshold_comes_from_the_validation_split():
    found = answer_metrics(VALIDATION)
    assert found["null_threshold"] == found["best_f1_thresh"] == 0.3
    assert found["exact_at_threshold"] == found["best_exact"] == 75.0
    assert found["NoAns_f1_at_threshold"] == 100.0
    assert found["HasAns_exact"] == found["HasAns_exact_at_threshold"] == pytest.approx(200 / 3)
    assert found["NoAns_f1"] == 0.0  # as the official script has it: everything is answered
    assert found["exact"] == 50.0
    test = [answer(1, "Oslo", 0.4, "Oslo"), answer(2, "Rome", 0.2), answer(3, "Bonn", 0.2, "Bonn")]
    given = answer_metrics(test, found["null_threshold"])
    assert given["null_threshold"] == 0.3
    at_threshold = given["exact_at_threshold"]
    assert at_threshold == pytest.approx(100 / 3)  # the first is refused, the second is not
    assert given["best_exact"] > at_threshold
    assert given["never_answer"] == pytest.approx(100 / 3)
    assert answer_metrics(test)["exact_at_threshold"] == given["best_exact"]


def test_without_unanswerable_questions_nothing_is_refused():
    found = answer_metrics([answer(1, "Oslo", 0.99, "Oslo"), answer(2, "Rome", 1.0, "Lyon")])
    assert found["null_threshold"] == 1.0
    assert found["exact"] == found["HasAns_exact"] == found["exact_at_threshold"] == 50.0
    assert found["never_answer"] == 0.0
    assert not any(name.startswith("NoAns") for name in found)


def test_scores_of_texts_are_over_questions_with_an_answer_as_they_are_given():
    found = answer_metrics(VALIDATION)
    assert found["rouge1"] == pytest.approx(100 * (1 + 0.8 + 0) / 3)  # best of the gold answers
    assert found["length_ratio"] == pytest.approx((1 + 3 + 1) / (1 + 1.5 + 1))
    assert {"bleu", "rouge2", "rougeL", "rougeLsum", "meteor", "meteor_matching"} <= found.keys()
    refused = answer_metrics(VALIDATION, 0.0)
    assert refused["HasAns_f1_at_threshold"] == 0.0
    for name in ("rouge1", "bleu", "HasAns_f1", "length_ratio"):
        assert refused[name] == found[name]


def test_without_answerable_questions_there_are_no_scores_of_texts():
    found = answer_metrics([answer(1, "Oslo", 0.4)])
    assert found["exact_at_threshold"] == found["never_answer"] == 100.0
    assert "bleu" not in found
    assert "length_ratio" not in found


# A whole run


def test_a_model_that_had_three_classes_gets_a_span_head_of_two_outputs(reviews_recipe):
    reviews_recipe |= {"task": {"name": "question_answering"}}
    reviews_recipe["data"] = {"source": {"builtin": "passages", "num_rows": 12}}
    reviews_recipe["batch"]["max_seq_length"] = 64
    reviews_recipe["model"]["architecture"]["num_labels"] = 3
    del reviews_recipe["evaluation"]
    inputs = build_inputs(parse_recipe(reviews_recipe, "x"), None)
    model = AutoModelForQuestionAnswering.from_config(inputs.model_config)
    assert model.qa_outputs.out_features == 2


def test_a_whole_run(reviews_recipe, write_recipe, tmp_path):
    recipe = reviews_recipe
    recipe["model"]["architecture"]["max_position_embeddings"] = 96
    recipe |= {
        "task": {"name": "question_answering", "stride": 16, "max_answer_length": 8},
        "data": {"source": {"builtin": "passages", "num_rows": 120}},
        "batch": {"global_batch_size": 16, "micro_batch_size": 8, "max_seq_length": 96},
        "evaluation": {"every": "epoch"},
    }
    directory = tmp_path / "run"
    trainer.train(write_recipe(recipe), run_dir=directory, progress=None)
    results = json.loads((directory / "results.json").read_text())
    assert results["recipe"]["evaluation"]["metric"] == "best_f1"
    assert results["best"]["metrics"].keys() == {"validation", "test"}
    validation = results["best"]["metrics"]["validation"]
    names = "exact f1 total HasAns_exact HasAns_f1 HasAns_total NoAns_exact NoAns_f1 NoAns_total "
    names += "best_exact best_exact_thresh best_f1 best_f1_thresh null_threshold never_answer "
    names += "bleu rouge1 rouge2 rougeL rougeLsum meteor start_accuracy end_accuracy "
    names += "loss loss_start loss_end"
    for metrics in results["best"]["metrics"].values():
        assert metrics.keys() >= set(names.split())
        assert metrics["loss"] == pytest.approx((metrics["loss_start"] + metrics["loss_end"]) / 2)
        assert metrics["total"] == 200
        assert metrics["null_threshold"] == validation["null_threshold"]
    assert validation["null_threshold"] == validation["best_f1_thresh"]
    test = results["best"]["metrics"]["test"]
    assert validation["null_threshold_from"] == "these answers"
    assert test["null_threshold_from"] == "validation"
    assert validation["f1_at_threshold"] == pytest.approx(validation["best_f1"])
    assert validation["loss"] < results["baseline"]["validation"]["loss"]
    assert results["scales"]["f1"] == "0-100"
    assert results["scales"]["null_threshold"] == "0-1"
    lines = (directory / "predictions" / "test.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    assert [one["id"] for one in answers] == [f"test-{number}" for number in range(200)]
    assert all(0 <= one["no_answer_probability"] <= 1 for one in answers)
    # Of a step at which nothing was evaluated the threshold is no more that of the test answers.
    (directory / "metrics.jsonl").write_text("")
    found = trainer.evaluate(directory, split="test")
    for name in ("null_threshold", "null_threshold_from", "f1_at_threshold"):
        assert found[name] == test[name]
    made = AutoModelForQuestionAnswering.from_pretrained(directory / "model")
    assert type(made).__name__ == "BertForQuestionAnswering"
