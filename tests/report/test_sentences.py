"""The paragraph of a report says what the numbers are worth, good or bad."""

from pathlib import Path
from typing import Any

import pytest
from support.recorded_runs import Answers, asked, classified, counted, measured_answers, write_run

from trainer.report.recorded import RecordedRun
from trainer.report.sentences import summary
from trainer.report.statistics.evidence import statistics
from trainer.tasks.finding import Finding

LABELS = "nnnnpppppp" * 20
SHUFFLED = "npnpnpnpnp" * 20
GOOD = "nnnnpppppn" * 20
ALWAYS = "p" * 200
LOSS_ONLY = " (a mean, for which no interval is computed)"


def paragraph(run: RecordedRun, *findings: Finding) -> str:
    return summary(run, statistics(run), findings)


def classifier(
    folder: Path,
    before: str | None,
    after: str,
    *,
    labels: str = LABELS,
    split: str = "test",
    keep: bool = True,
    **settings: Any,
) -> RecordedRun:
    """A run whose answers before and after training are given."""
    files = {split: classified(labels, after)}
    metrics = {"best": {split: counted(files[split])}}
    if before is not None:
        files[f"baseline-{split}"] = classified(labels, before)
        metrics["baseline"] = {split: counted(files[f"baseline-{split}"])}
    return write_run(folder, metrics, files if keep else {}, best_step=20, **settings)


def test_training_that_helped(tmp_path):
    assert paragraph(classifier(tmp_path, SHUFFLED, GOOD)) == (
        "Fine-tuning raised test accuracy from 0.500 (always 'p': 0.600) to 0.900 (95 % interval "
        "0.851 to 0.934; exact McNemar p < 0.001, 200 examples)."
    )


def test_training_that_harmed(tmp_path):
    text = paragraph(classifier(tmp_path, GOOD, SHUFFLED, initialization="random"))
    assert text.startswith("Training lowered test accuracy from 0.900 (always 'p': 0.600) to 0.500")
    assert (
        "p < 0.001, 200 examples), which is worse. The model is not shown to be better than" in text
    )
    text = paragraph(classifier(tmp_path / "no", GOOD, "n" * 200))
    assert "which is worse. The model is worse than always 'p' (accuracy 0.400 against" in text


def test_a_difference_that_may_be_chance(tmp_path):
    after = SHUFFLED[:-4] + "pppp"  # two more are right
    text = paragraph(classifier(tmp_path, SHUFFLED, after))
    assert text.startswith(
        "Test accuracy was 0.500 (always 'p': 0.600) before fine-tuning and is 0.510 after it "
        "(95 % interval 0.441 to 0.578; exact McNemar p = "
    )
    assert ", 200 examples): the difference may be chance" in text


def test_the_detectable_difference_is_named(tmp_path):
    # Of 200 examples, 20 become right and 16 wrong.
    before = LABELS[:100] + ALWAYS[100:150] + LABELS[150:]
    after = ALWAYS[:40] + LABELS[40:]
    run = classifier(tmp_path, before, after)
    detectable = statistics(run)["test"]["detectable"]["accuracy"]
    expected = f"these examples show only differences from about {detectable:.3f}."
    assert expected in paragraph(run)


def test_one_class_for_everything(tmp_path):
    assert paragraph(classifier(tmp_path, ALWAYS, ALWAYS)).endswith(
        " before fine-tuning and still is 0.600 (95 % interval 0.531 to 0.665; exact McNemar "
        "p = 1, 200 examples): nothing was learned that changes it. Its accuracy of 0.600 is that "
        "of always 'p': nothing useful was learned."
    )


def test_a_rise_that_only_reaches_the_majority(tmp_path):
    after = ALWAYS[:-10] + SHUFFLED[-10:]
    text = paragraph(classifier(tmp_path, "n" * 200, after))
    assert "raised test accuracy from 0.400" in text
    assert "The model is not shown to be better than always 'p' (accuracy 0.595 against" in text


def test_a_deciding_metric_that_always_one_class_makes_high(tmp_path):
    text = paragraph(classifier(tmp_path, "n" * 200, ALWAYS, metric="f1"))
    assert "raised test f1 from 0.000 (always 'p': 0.750) to 0.750" in text
    assert "Its accuracy of 0.600 is that of always 'p': nothing useful was learned." in text


def test_without_a_baseline(tmp_path):
    text = paragraph(classifier(tmp_path, None, GOOD))
    assert text == (
        "After fine-tuning, test accuracy is 0.900 (95 % interval 0.851 to 0.934; 200 examples); "
        "always 'p' gives 0.600; there is no baseline to compare it with."
    )


def test_only_validation(tmp_path):
    text = paragraph(classifier(tmp_path / "best", SHUFFLED, GOOD, split="validation"))
    assert text.startswith("Fine-tuning raised validation accuracy from 0.500")
    assert text.endswith(
        "There is no test split; the best step was chosen by these numbers, so they flatter."
    )


def test_nothing_was_measured(tmp_path):
    run = write_run(tmp_path, {"best": {}}, {})
    assert paragraph(run) == "The run measured neither a validation nor a test split."


def test_the_answers_were_not_kept(tmp_path):
    text = paragraph(classifier(tmp_path, SHUFFLED, GOOD, keep=False))
    assert text == (
        "Fine-tuning raised test accuracy from 0.500 (always 'p': 0.600) to 0.900 (95 % interval "
        "0.851 to 0.934; 200 examples); it is not tested, because no answers of the baseline were "
        "kept."
    )


def test_several_tests_are_corrected(tmp_path):
    before, after = GOOD, GOOD[:-30] + LABELS[-30:]
    test = statistics(run := classifier(tmp_path, before, after))["test"]
    (result,) = [
        result
        for result in test["tests"]
        if (result["metric"], result["before"]) == ("accuracy", "baseline")
    ]
    assert f"p = {result['p_adjusted']:.2g} after Holm's correction" in paragraph(run)


def test_a_model_that_was_prompted(tmp_path):
    files = {
        "zero_shot_test": classified(LABELS, ALWAYS),
        "test": classified(LABELS, GOOD),
    }
    metrics = {
        "zero_shot": {"test": counted(files["zero_shot_test"])},
        "best": {"test": counted(files["test"])},
    }
    assert paragraph(write_run(tmp_path, metrics, files, best_step=20)).endswith(
        "Prompted without training, the model reaches 0.600; on the same 200 examples the trained "
        "model is 0.300 better, exact McNemar p < 0.001."
    )


def questions(folder: Path, before: Answers, after: Answers, metric: str) -> RecordedRun:
    metrics = {
        column: {"test": measured_answers(answers)}
        for column, answers in (("baseline", before), ("best", after))
    }
    scales = dict.fromkeys(("exact", "exact_at_threshold", "f1_at_threshold"), "0-100")
    return write_run(
        folder,
        metrics,
        {"baseline-test": before, "test": after},
        task="question_answering",
        metric=metric,
        scales=scales,
        best_step=20,
    )


def test_questions_are_measured_out_of_a_hundred(tmp_path):
    golds = [[f"name {index}"] if index % 2 else [] for index in range(80)]
    loud, right = ["nobody"] * 80, [texts[0] if texts else "" for texts in golds]
    text = paragraph(questions(tmp_path, asked(golds, loud), asked(golds, right), "exact"))
    assert text.startswith(
        "Fine-tuning raised test exact from 0.0 (never answering: 50.0) to 100.0 (paired bootstrap "
        "p < 0.001, 80 examples)."
    )


def test_the_best_threshold_is_not_taken_from_the_test(tmp_path):
    golds = [[f"name {index}"] if index % 2 else [] for index in range(80)]
    unsure = asked(golds, [texts[0] if texts else "nobody" for texts in golds])
    for answer in unsure:  # the model knows which questions have an answer
        answer["no_answer_probability"] = 0.1 if answer["answers"] else 0.9
    loud = [{**answer, "no_answer_probability": 0.5} for answer in asked(golds, ["nobody"] * 80)]
    text = paragraph(questions(tmp_path / "a", loud, unsure, "best_f1"))
    assert "raised test f1_at_threshold from 50.0 (never answering: 50.0) to 100.0" in text
    assert "never answering (" not in text  # `exact`, which refuses nothing, is 50.0 as well
    text = paragraph(questions(tmp_path / "b", unsure, loud, "best_exact"))
    assert "lowered test exact_at_threshold from 100.0 (never answering: 50.0) to 50.0" in text
    assert "Its exact_at_threshold of 50.0 is that of never answering" in text


def test_language_models_have_a_loss_without_an_interval(tmp_path):
    metrics = {
        "baseline": {"test": {"loss": 6.93, "perplexity": 1024.5, "token_accuracy": 0.01}},
        "best": {"test": {"loss": 3.12345, "perplexity": 22.7, "token_accuracy": 0.41}},
    }
    settings: dict[str, Any] = {
        "task": "causal_lm",
        "mode": "min",
        "scales": {"token_accuracy": "0-1"},
        "best_step": 20,
    }
    text = paragraph(write_run(tmp_path / "a", metrics, {}, metric="perplexity", **settings))
    assert text == (
        f"Fine-tuning lowered test perplexity from 1024 to 22.7{LOSS_ONLY}. "
        "Fine-tuning raised test token_accuracy from 0.010 to 0.410."
    )
    worse = {"baseline": metrics["best"], "best": metrics["baseline"]}
    text = paragraph(write_run(tmp_path / "b", worse, {}, metric="loss", **settings))
    assert f"raised test loss from 3.123 to 6.93{LOSS_ONLY}, which is worse." in text
    same = {"baseline": metrics["best"], "best": metrics["best"]}
    text = paragraph(write_run(tmp_path / "c", same, {}, metric="loss", **settings))
    assert text.startswith(f"Fine-tuning left test loss at 3.123{LOSS_ONLY}.")


def test_the_worst_finding_follows(tmp_path):
    run = classifier(tmp_path, SHUFFLED, GOOD)
    wrong = Finding(code="a", message="20 examples are train rows", split="test", severity="wrong")
    second = Finding(code="b", message="something else is wrong", severity="wrong")
    doubtful = Finding(code="c", message="it may be", split="test")
    assert paragraph(run, doubtful, wrong, second).endswith(
        "200 examples). But on test, 20 examples are train rows."
    )
    assert paragraph(run, second).endswith(" But something else is wrong.")
    assert paragraph(run, doubtful).endswith("200 examples).")


@pytest.mark.parametrize("label", ["<script>", "a'b\n\x1b[31m", "x" * 500])
def test_text_from_data_is_quoted_and_shortened(tmp_path, label):
    answers = [{**answer, "label": label, "prediction": label} for answer in classified("pp", "pp")]
    measured = {
        **counted(classified("pp", "pp")),
        "per_class": {label: {"support": 2, "predicted": 2, "precision": 1, "recall": 1, "f1": 1}},
    }
    metrics = {"best": {"test": measured}}
    run = write_run(tmp_path, metrics, {"test": answers}, best_step=20)
    text = paragraph(run, Finding(code="a", message=label * 3, severity="wrong"))
    assert "always " in text
    assert text.isprintable()
    assert len(text) < 600


def test_a_metric_that_was_not_measured(tmp_path):
    run = classifier(tmp_path, SHUFFLED, GOOD, metric="absent")
    assert paragraph(run) == "Test absent was not measured."
