"""Predictions: the numbers of an evaluation, in the order of the input, whatever form it has."""

import csv
import gzip
import json
import os
import shutil
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
import torch
import transformers
from pyarrow import parquet
from support.command_line import invoke, run

import trainer
from trainer.data.streamed_rows import plain
from trainer.metrics.answers import answer_metrics
from trainer.prediction import answering
from trainer.prediction.loading import load_source
from trainer.prediction.predict import answers_to
from trainer.prediction.source import find_source
from trainer.tasks import TASKS, task_named
from trainer.tasks.predictor import Predictor


def write_lines(file: Path, rows) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def read_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", ["classification", "classification-llama"])
def test_labels_are_those_that_were_measured(name, run_of, rows_of_run, measured):
    """The accuracy of the test split follows from the answers to its rows, to the last digit."""
    directory = run_of(name)
    metrics, recorded = measured(directory)
    rows = rows_of_run(directory)
    answers = trainer.load(directory).predict(rows)
    assert [answer["prediction"] for answer in answers] == [r["prediction"] for r in recorded]
    assert [answer["probability"] for answer in answers] == [r["probability"] for r in recorded]
    right = [
        answer["prediction"] == r["label"] for answer, r in zip(answers, recorded, strict=True)
    ]
    assert sum(right) / len(right) == metrics["test"]["accuracy"]
    for answer in answers:
        shares = answer["probabilities"]
        assert sum(shares.values()) == pytest.approx(1)
        assert answer["probability"] == max(shares.values()) == shares[answer["prediction"]]


@pytest.mark.parametrize("name", ["question_answering", "question_answering-llama"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_answers_to_questions_give_the_metrics_of_the_run(
    name, split, run_of, rows_of_run, measured
):
    """With the threshold of the validation split; Llama's span head is no class of transformers."""
    directory = run_of(name)
    metrics, recorded = measured(directory, split)
    threshold = metrics["validation"]["null_threshold"]
    rows = [(row["question"], row["context"]) for row in rows_of_run(directory, split)]
    answers = trainer.load(directory).predict(rows)
    for answer, known in zip(answers, recorded, strict=True):
        known["no_answer_probability"] = answer["no_answer_probability"]
        known["prediction"] = answer["best_answer"]
        refused = answer["no_answer_probability"] > threshold
        assert answer["prediction"] == ("" if refused else answer["best_answer"])
        likelier = answer["no_answer_probability"] > answer["probability"]
        assert (answer["null_score"] > 0) == likelier
    scores = answer_metrics(recorded, threshold)
    shared = scores.keys() & metrics[split].keys()
    assert {"exact", "f1_at_threshold", "bleu"} <= shared
    assert {key: scores[key] for key in shared} == {key: metrics[split][key] for key in shared}


def test_continuations_are_those_that_were_scored(run_of, rows_of_run, measured):
    directory = run_of("causal_lm-instructions")
    _, recorded = measured(directory)
    rows = rows_of_run(directory)
    prompts = [{name: row[name] for name in ("instruction", "input")} for row in rows]
    answers = trainer.load(directory).predict(prompts)
    with pytest.raises(trainer.DataError, match="call one of them instruction"):
        trainer.load(directory).predict([{"x": "a"}])
    assert recorded
    for known in recorded:
        assert answers[known["row"]] == {"prediction": known["prediction"]}


@pytest.mark.parametrize(
    "name", ["masked_lm", pytest.param("masked_lm-pairs", marks=pytest.mark.distributed)]
)
def test_each_mask_is_filled(name, run_of):
    """Also by a model that has a second head, for pairs of segments."""
    result = trainer.load(run_of(name))
    mask = result.load()[1].mask_token
    (answer, second) = result.predict([f"a {mask} is [CLS] {mask}.", f"{mask} b"])
    assert [len(candidates) for candidates in answer["masks"]] == [5, 5]
    shares = [token["probability"] for token in answer["masks"][0]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) < 1
    assert mask not in answer["prediction"]
    assert "is [CLS]" in answer["prediction"], "other special tokens stay text"
    assert second["prediction"].endswith(" b")
    with pytest.raises(trainer.DataError, match=r"row 1: the column text has no \[MASK\]"):
        result.predict(["nothing to fill"])


def test_every_task_has_a_predictor():
    for name in TASKS:
        place = task_named(name).predictor
        assert place is not None
        assert issubclass(EntryPoint(name, place, "").load(), Predictor)


def test_the_process_is_left_as_it_was(reviews_run):
    def switches():
        logging = transformers.logging
        return (
            dict(os.environ),
            list(warnings.filters),
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            logging.get_verbosity(),
            logging.is_progress_bar_enabled(),
            datasets.are_progress_bars_disabled(),
        )

    before = switches()
    trainer.load(reviews_run).predict(["a fine film"])
    assert switches() == before


def test_inputs_are_texts_pairs_columns_or_roles(reviews_run, run_of):
    result = trainer.load(reviews_run)
    expected = result.predict(["a fine film"])
    assert result.predict([{"text": "a fine film", "label": "unread"}]) == expected
    assert result.predict([("a fine film",)]) == expected
    assert result == trainer.load(reviews_run), "a loaded model is no part of the value"
    assert result.predict([]) == []
    pairs = trainer.load(run_of("classification-llama"))
    as_pair = pairs.predict([("a man sleeps", "he is awake")])
    assert pairs.predict([{"premise": "a man sleeps", "hypothesis": "he is awake"}]) == as_pair
    assert pairs.predict([{"text": "a man sleeps", "text_pair": "he is awake"}]) == as_pair
    for wrong in (
        ["one text"],
        [("a", "b", "c")],
        [5],
        [{"premise": "a"}],
        "a text",
        [("a", None)],
    ):
        with pytest.raises(trainer.DataError):
            pairs.predict(wrong)


def test_the_order_of_rows_does_not_matter(reviews_run, rows_of_run):
    """Rows are sorted by length to be read, and batches are cut differently here."""
    rows = rows_of_run(reviews_run)
    result = trainer.load(reviews_run)
    answers = result.predict(rows)
    for answer, again in zip(answers, reversed(result.predict(rows[::-1])), strict=True):
        assert answer["probability"] == pytest.approx(again["probability"], abs=1e-6)
    loaded = load_source(find_source(reviews_run), 3)
    for answer, again in zip(answers, answers_to(loaded, rows), strict=True):
        assert answer["probability"] == pytest.approx(again["probability"], abs=1e-6)


def test_memory_that_runs_out_halves_the_batch(reviews_run, rows_of_run):
    loaded = load_source(find_source(reviews_run))
    model, sizes = loaded.model, []
    forward = model.forward

    def limited(**inputs):
        size = len(inputs["input_ids"])
        if size > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(size)
        return forward(**inputs)

    rows = rows_of_run(reviews_run)[:40]
    block = answering.Block(0, 1, rows)
    expected = answering.Answering(loaded).answers(block)
    model.forward = limited
    answers = answering.Answering(loaded).answers(block)
    assert [a["prediction"] for a in answers] == [e["prediction"] for e in expected]
    assert max(sizes) <= 5
    assert sum(sizes) == 40

    def never(**_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.forward = never
    with pytest.raises(trainer.OutOfMemoryError, match="--batch-size"):
        answering.Answering(loaded).answers(block)


FORMS = ["jsonl", "jsonl.gz", "json", "csv", "tsv", "parquet", "txt"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_input_gives_the_same_answers(form, reviews_run, tmp_path):
    texts = ["a fine film", "dull, very dull", 'so "good"', "007", "naïve"]
    rows = [{"text": text} for text in texts]
    file = tmp_path / f"input.{form}"
    if form == "txt":
        file.write_text("\n".join(texts))
    elif form == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
    elif form == "json":
        file.write_text(json.dumps(rows))
    elif form in ("csv", "tsv"):
        with file.open("w", newline="") as opened:
            if form == "csv":
                csv.writer(opened).writerows([["text"], *[[text] for text in texts]])
            else:
                opened.write("text\n" + "\n".join(texts) + "\n")
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file.write_bytes(gzip.compress(lines) if form.endswith("gz") else lines)
    answers = read_lines(run("predict", reviews_run, file))
    assert [row["text"] for row in answers] == texts
    expected = trainer.load(reviews_run).predict(texts)
    assert [row["probability"] for row in answers] == [e["probability"] for e in expected]


@pytest.mark.parametrize("answers", ['{"text": "a"}\n\n{"text": "b"}\n', "a\nb\n"])
def test_standard_input_is_json_lines_or_texts(answers, reviews_run):
    done = invoke("predict", reviews_run, "-", answers=answers)
    assert done.exit_code == 0, done.output
    assert [row["text"] for row in read_lines(done.stdout)] == ["a", "b"]


@pytest.mark.parametrize("form", ["jsonl", "out", "csv", "tsv", "parquet"])
def test_the_columns_of_the_input_are_kept(form, reviews_run, tmp_path):
    rows = [
        {"text": "a fine\nfilm", "id": "007", "prediction": "old", "tags": ["a", "\t"], "n": None},
        {"text": "dull", "id": "é", "prediction": "older", "tags": [], "n": 2.5},
    ]
    output = tmp_path / f"answers.{form}"
    run("predict", reviews_run, write_lines(tmp_path / "input.jsonl", rows), "--output", output)
    if form == "parquet":
        answers = parquet.read_table(output).to_pylist()
    elif form in ("csv", "tsv"):
        with output.open(newline="") as opened:
            answers = list(csv.DictReader(opened, delimiter="\t" if form == "tsv" else ","))
        for row in answers:
            row |= {"tags": json.loads(row["tags"]), "n": float(row["n"]) if row["n"] else None}
            row["probabilities"] = json.loads(row["probabilities"])
    else:
        answers = read_lines(output.read_text())
    expected = trainer.load(reviews_run).predict(rows)
    for row, answer, known in zip(rows, answers, expected, strict=True):
        assert answer["prediction"] == known["prediction"]
        assert answer["probabilities"] == known["probabilities"]
        assert answer["input_prediction"] == row["prediction"]
        assert {name: answer[name] for name in ("text", "id", "tags", "n")} == {
            name: row[name] for name in ("text", "id", "tags", "n")
        }
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "answers"))] == [
        output.name
    ]


def test_values_beyond_json_are_kept_as_text():
    import datetime

    import numpy as np

    day = datetime.date(2026, 1, 2)
    row = {"a": float("nan"), "b": day, "c": b"\x00\xff", "d": np.int64(3), "e": ({"x": 1e400},)}
    assert plain(row) == {"a": None, "b": "2026-01-02", "c": "AP8=", "d": 3, "e": [{"x": None}]}


def test_numbers_that_json_lacks_become_null(reviews_run, tmp_path):
    file, output = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    file.write_text('{"text": "a", "n": NaN, "of": [Infinity, 1]}\n')
    run("predict", reviews_run, file, "--output", output)
    for text in (output.read_text(), run("predict", reviews_run, file)):
        assert '"n": null, "of": [null, 1]' in text


def test_columns_of_different_types_become_parquet_text(reviews_run, tmp_path):
    rows = [{"text": "a", "id": 1}, {"text": "b", "id": "one"}, {"text": "c"}]
    output = tmp_path / "answers.parquet"
    run("predict", reviews_run, write_lines(tmp_path / "rows.jsonl", rows), "--output", output)
    assert parquet.read_table(output)["id"].to_pylist() == ["1", '"one"', None]


def test_a_bad_row_is_named_or_kept_with_its_problem(reviews_run, tmp_path):
    rows = [{"text": "good"}, {"text": " "}, {"other": 1}, {"text": 5}, {"text": "bad"}]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    output = tmp_path / "answers.csv"
    failed = invoke("predict", reviews_run, file, "--output", output)
    assert failed.exit_code == 2
    assert failed.stderr.startswith("trainer: row 2: the column text is empty")
    assert failed.stderr.count("\n") == 1
    assert not output.exists()
    skipping = ("--set", "data.on_bad_example=skip")
    answers = read_lines(run("predict", reviews_run, file, *skipping))
    assert ["problem" in row for row in answers] == [False, True, True, True, False]
    assert [row["problem"] for row in answers[1:4]] == [
        "row 2: the column text is empty, not text",
        "row 3: the column text is empty, not text",
        "row 4: the column text is 5, not text",
    ]
    assert "prediction" not in answers[1]
    assert answers[2]["other"] == 1


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "a.jsonl", "is empty"),
        ('{"sentence": "a"}\n', "a.jsonl", "data.columns.text: the input has no column text"),
        ('{"txt": "a"}\n', "a.jsonl", "did you mean txt?"),
        ('{"text": "a"', "a.jsonl", "line 1 is not valid JSON"),
        ('{"text": "a"}\n{"text": "a", "text": "b"}\n', "a.jsonl", "line 2"),
        ("text,label\na\n", "a.csv", "line 2 has 1 cells"),
        ("text\n", "a.csv", "no rows"),
        ("x", "a.parquet", "cannot be read as parquet"),
        ("x", "a.xlsx", "is not of a known kind"),
        (None, "a.jsonl", "there is no file"),
    ],
)
def test_a_bad_input_is_one_sentence(content, name, message, reviews_run, tmp_path):
    file, output = tmp_path / name, tmp_path / "answers.jsonl"
    if content is not None:
        file.write_text(content)
    failed = invoke("predict", reviews_run, file, "--output", output)
    assert (failed.exit_code, failed.stdout) == (2, ""), failed.output
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert [path for path in tmp_path.iterdir() if path != file] == []


def test_bad_arguments_are_one_sentence(reviews_run, tmp_path):
    file = write_lines(tmp_path / "rows.jsonl", [{"text": "a"}])
    (tmp_path / "old.jsonl").write_text("kept")
    cases = [
        ([reviews_run], "nothing to answer"),
        ([reviews_run, file, "--text", "a"], "two inputs"),
        ([reviews_run, "-", "--output", tmp_path / "new"], "cannot continue"),
        ([reviews_run, file, "--output", tmp_path / "old.jsonl"], "--overwrite"),
        ([reviews_run, file, "--output", tmp_path / "no" / "new"], "has no folder"),
        ([reviews_run, file, "--output", tmp_path], "is a folder"),
        ([reviews_run, file, "--output", file, "--overwrite"], "is the input"),
        ([reviews_run, "--text-pair", "a"], "reads text, not text_pair"),
        ([reviews_run, file, "--output", "a" * 300], "--output"),
        ([reviews_run, file, "--batch-size", "0"], "--batch-size"),
        ([reviews_run, file, "--batch-size", "²"], "--batch-size"),
        ([reviews_run, file, "--set", "data.colums.text=a"], "data.columns"),
        ([reviews_run, tmp_path], "is a folder"),
        ([reviews_run, "--question", "who?"], "reads text"),
        ([tmp_path, file], "neither a run directory nor the folder of a model"),
        ([reviews_run, file, "--set", "batch.max_seq_length=9999"], "positions of the model"),
        ([tmp_path / "nothing", file], "there is no folder"),
        ([reviews_run / "checkpoints", file], "give"),
        (["a\0b", file], "there is no folder"),
    ]
    for arguments, message in cases:
        failed = invoke("predict", *arguments)
        assert failed.exit_code == 2, (arguments, failed.output)
        assert message in failed.stderr, failed.stderr
        assert failed.stderr.count("\n") == 1
    assert (tmp_path / "old.jsonl").read_text() == "kept"
    run("predict", reviews_run, file, "--output", tmp_path / "old.jsonl", "--overwrite")
    assert len(read_lines((tmp_path / "old.jsonl").read_text())) == 1


def test_a_run_without_a_model_says_so(reviews_run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text((reviews_run / "config.yaml").read_text())
    failed = invoke("predict", tmp_path / "run", "--text", "a")
    assert failed.exit_code == 2
    assert "has no model yet" in failed.stderr
    with pytest.raises(trainer.CheckpointError):
        trainer.load(tmp_path / "run").predict(["a"])


def test_what_is_shown_is_harmless(reviews_run, tmp_path):
    text = run("predict", reviews_run, "--text", "a \x1b[31m film")
    assert "probability" in text
    assert "\x1b" not in text
    answer = json.loads(run("predict", reviews_run, "--text", "a film", "--json"))
    assert answer == trainer.load(reviews_run).predict(["a film"])[0]
    harmful = write_lines(tmp_path / "rows.jsonl", [{"text": "a", "\x1b[31m": 1}])
    output = tmp_path / "a\x1b[2Jb"
    assert "\x1b" not in run("predict", reviews_run, harmful, "--output", output)
    refused = invoke("predict", reviews_run, harmful, "--set", "data.columns.text=b")
    assert "it has text, \\x1b[31m" in refused.stderr
    lines = invoke("predict", reviews_run, "-", answers="a \x9b31m\u202e film\n").stdout
    assert lines.strip().isprintable()
    assert json.loads(lines)["text"] == "a \x9b31m\u202e film"


def test_a_model_without_a_run_is_answered_by_its_head(reviews_run, run_of, tmp_path):
    expected = trainer.load(reviews_run).predict(["a film"])
    answer = json.loads(run("predict", reviews_run / "model", "--text", "a film", "--json"))
    assert answer == expected[0]
    question = ("--question", "who?", "--context", "Anna went home.", "--json")
    answer = json.loads(run("predict", run_of("question_answering-llama") / "model", *question))
    assert answer.keys() == {
        *("prediction", "best_answer", "probability", "no_answer_probability", "null_score")
    }
    limit = answer["no_answer_probability"] > answer["probability"]
    assert answer["prediction"] == ("" if limit else answer["best_answer"])
    assert "prediction" in run("predict", run_of("masked_lm") / "model", "--text", "a [MASK]")
    bare = tmp_path / "bare"
    model = transformers.AutoModel.from_pretrained(reviews_run / "model")
    model.save_pretrained(bare)
    failed = invoke("predict", bare, "--text", "a")
    assert failed.exit_code == 2
    assert "BertModel" in failed.stderr
    settings = json.loads((bare / "config.json").read_text())
    settings["architectures"] = ["BertForSequenceClassification"]
    (bare / "config.json").write_text(json.dumps(settings))
    without_tokenizer = invoke("predict", bare, "--text", "a")
    assert without_tokenizer.exit_code == 2
    assert "has no tokenizer" in without_tokenizer.stderr
    transformers.AutoTokenizer.from_pretrained(reviews_run / "model").save_pretrained(bare)
    without_head = invoke("predict", bare, "--text", "a")
    assert without_head.exit_code == 2
    assert "lacks 2 weights" in without_head.stderr
    for name, words in (("NewForCausalLM", "does not have"), (5, "answers nothing")):
        (bare / "config.json").write_text(json.dumps({**settings, "architectures": [name]}))
        failed = invoke("predict", bare, "--text", "a")
        assert failed.exit_code == 2, failed.output
        assert words in failed.stderr


def test_columns_may_be_nested_joined_and_named_by_set(reviews_run, tmp_path):
    rows = [{"article": {"head": "a fine", "body": "film"}}, {"article": {"body": "dull"}}]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    setting = ("--set", "data.columns.text=[article.head, article.body]")
    answers = read_lines(run("predict", reviews_run, file, *setting))
    expected = trainer.load(reviews_run).predict(["a fine\nfilm"])
    assert answers[0]["probability"] == expected[0]["probability"]
    assert answers[0]["article"] == rows[0]["article"]


@pytest.mark.parametrize("name", ["classification", "masked_lm"])
def test_numbers_that_are_not_finite_are_no_answer(name, run_of):
    loaded = load_source(find_source(run_of(name)))
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight.fill_(torch.nan)
    text = dict.fromkeys(loaded.predictor.columns, "a [MASK] film")
    with pytest.raises(trainer.DataError, match="not finite in fp32"):
        answers_to(loaded, [text])


@pytest.mark.parametrize("text", ["{", '{"best": {}}', '{"best": {"metrics": {}}, "precision": 7}'])
def test_answers_are_refused_if_what_the_run_measured_cannot_be_read(text, reviews_run, tmp_path):
    """The threshold of "no answer" is among it."""
    shutil.copytree(reviews_run, tmp_path / "run")
    (tmp_path / "run" / "results.json").write_text(text)
    done = invoke("predict", tmp_path / "run", "--text", "a film")
    assert done.exit_code == 2
    assert "results.json cannot be read" in done.stderr
    assert "in place of the run" in done.stderr
    (tmp_path / "run" / "results.json").unlink()
    assert invoke("predict", tmp_path / "run", "--text", "a film").exit_code == 0
