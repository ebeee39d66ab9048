"""Judgements: what a report says of one answer, equal to what the metrics say of all of them."""

import random
from typing import Any

import pytest

from trainer.metrics.answers import answer_metrics
from trainer.metrics.generation import generation_scores
from trainer.metrics.similarity import similarity
from trainer.tasks import task_named
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.classification.task import Classification
from trainer.tasks.judgement import LONGEST_SHOWN, Judgement, length_of
from trainer.tasks.question_answering.task import QuestionAnswering

WORDS = ["the", "Oslo", "oslo,", "river", "a", "1,000", "!!", "café"]


def question(**values: Any) -> dict[str, Any]:
    made = {"id": "q", "row": 0, "group": 0, "question": "Where is it?", "prediction": "Oslo"}
    made |= {"probability": 0.75, "no_answer_probability": 0.2, "answers": ["the Oslo"]}
    return {**made, **values}


def drawn_questions(number: int) -> list[dict[str, Any]]:
    drawn = random.Random(number)

    def text() -> str:
        return " ".join(drawn.choices(WORDS, k=drawn.randrange(4)))

    return [
        question(
            id=str(index),
            prediction=text(),
            no_answer_probability=drawn.choice([0.0, 0.25, 0.5, 0.75, 1.0]),
            answers=[text() for _ in range(drawn.randrange(3))],
        )
        for index in range(40)
    ]


def judged(answer: dict[str, Any], **metrics: Any) -> Judgement:
    return QuestionAnswering.judge(answer, metrics)


def test_a_task_without_right_answers_judges_none():
    assert task_named("masked_lm").judge({"id": 0}, {}) is None


# Classification


def test_a_label_is_right_or_wrong():
    answer = {"id": 3, "row": 5, "label": "good", "prediction": "bad", "probability": 0.9}
    found = Classification.judge(answer, {})
    assert (found.gold, found.predicted, found.right, found.score) == ("good", "bad", False, 0.0)
    assert (found.confidence, found.facets) == (0.9, {"label": "good"})
    prompted = {"id": 3, "label": "bad", "prediction": "bad", "log_likelihoods": [-1.0, -2.0]}
    found = Classification.judge(prompted, {})
    assert (found.right, found.score, found.confidence) == (True, 1.0, None)


def test_the_label_is_no_text_of_an_example():
    row = {"text": "fine", "text_pair": "x" * 9000, "label": "good", "other": 3}
    texts = Classification.shown_texts({"id": 0}, row)
    assert texts.keys() == {"text", "text_pair"}
    assert (texts["text"], len(texts["text_pair"])) == ("fine", LONGEST_SHOWN)


# Question answering


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [None, 0.5, 1.0])
def test_judgements_of_questions_add_up_to_the_scores_at_the_threshold(seed, threshold):
    answers = drawn_questions(seed)
    metrics = answer_metrics(answers, threshold)
    found = [judged(answer, **metrics) for answer in answers]
    share = 100 / len(found)
    assert share * sum(one.right for one in found) == pytest.approx(metrics["exact_at_threshold"])
    assert share * sum(one.score for one in found) == pytest.approx(metrics["f1_at_threshold"])
    assert {one.facets["answerable"] for one in found} == {"yes", "no"}


def test_a_question_above_the_threshold_counts_as_unanswered():
    answer = question(no_answer_probability=0.4)
    found = judged(answer, null_threshold=0.4)
    assert (found.predicted, found.right, found.confidence) == ("Oslo", True, 0.75)
    found = judged(answer, null_threshold=0.3)
    assert (found.predicted, found.right, found.score) == ("(no answer)", False, 0.0)
    assert found.confidence == 0.4
    found = judged({**answer, "answers": []}, null_threshold=0.3)
    assert (found.gold, found.predicted, found.right) == ("(no answer)", "(no answer)", True)
    assert found.facets == {"answerable": "no", "question word": "where"}
    assert not judged({**answer, "answers": []}).right  # without a threshold it is answered


def test_answers_of_older_runs_and_of_prompts_have_no_confidence():
    answer = question(answers=["Oslo", "Oslo", "in Oslo"])
    del answer["probability"]
    found = judged(answer, null_threshold=0.1)
    assert (found.confidence, found.gold) == (None, "Oslo | in Oslo")
    assert found.facets["answer length"] == "1"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("In what year did the king, who was ill, die?", "what"),
        ("Whose idea was it?", "who"),
        ("How many people live here?", "how many"),
        ("How much is it", "how many"),
        ("How is it made?", "how"),
        ("WHICH one?", "which"),
        ("Why?", "why"),
        ("When's the train?", "when"),
        ("Name the capital.", "other"),
        ("Was ist das?", None),
        ("Où est le chat ?", None),
        ("谁写了这本书?", None),
    ],
)
def test_questions_are_counted_by_their_first_question_word(text, word):
    assert judged(question(question=text)).facets.get("question word") == word


def test_lengths_of_answers_are_gathered():
    lengths = [length_of("word " * number) for number in (0, 1, 2, 3, 5, 6, 10, 11, 90)]
    assert lengths == ["0", "1", "2", "3 to 5", "3 to 5", "6 to 10", "6 to 10", *["11 or more"] * 2]


@pytest.mark.parametrize("at", [0, 1, 300, 4000, 9990])
def test_the_context_is_shown_around_the_gold_answer(at):
    context = f"{'a ' * (at // 2)}GOLD{'z ' * (5000 - at // 2)}"
    start = context.index("GOLD")
    row = {"question": "?", "context": context}
    row |= {"answers": {"text": ["GOLD"], "answer_start": [start]}}
    shown = QuestionAnswering.shown_texts(question(), row)
    assert shown["question"] == "Where is it?"
    assert "GOLD" in shown["context"]
    assert LONGEST_SHOWN - 2 <= len(shown["context"]) <= LONGEST_SHOWN
    assert shown["context"].strip("…") in context
    assert shown["context"].startswith("…") == (start > 250)
    guess = question(prediction="GOLD", answers=[])
    assert QuestionAnswering.shown_texts(guess, {**row, "answers": []}) == shown


def test_of_an_answer_longer_than_what_is_shown_the_beginning_is_shown():
    context = f"{'a ' * 1000}FIRST {'b ' * 1000}LAST{' c' * 1000}"
    start, end = context.index("FIRST"), context.index("LAST") + 4
    answers = {"text": [context[start:end]], "answer_start": [start]}
    shown = QuestionAnswering.shown_texts(question(), {"context": context, "answers": answers})
    assert "FIRST" in shown["context"]
    whole = {"context": context[start : start + 300], "answers": None}
    assert QuestionAnswering.shown_texts(question(), whole)["context"] == whole["context"]
    assert QuestionAnswering.shown_texts(question(), {}).keys() == {"question"}


# Generated text


def test_generated_text_is_right_if_it_is_equal_and_close_by_its_words_in_order():
    def score(prediction: str, reference: str) -> float:
        answer = {"id": 0, "prompt": "p", "prediction": prediction, "reference": reference}
        found = CausalLM.judge(answer, {})
        assert found.graded
        assert found.right == (prediction.strip() == reference.strip())
        return found.score

    assert score(" one two \n", "one two") == 1.0
    assert score("", "") == 1.0
    assert score("!", "!") == 1.0
    assert score("", "one") == 0.0
    assert score("two one", "one two") == 0.5  # longest common subsequence: one of two words
    assert score("кот сидит", "кот спит") == 0.5  # in any script
    assert score("one four", "one two three") == pytest.approx(2 * 0.5 * (1 / 3) / (0.5 + 1 / 3))


def test_the_score_of_a_text_in_plain_letters_is_rouge():
    drawn = random.Random(0)
    for _ in range(20):
        one, two = (" ".join(drawn.choices("A b, c-d 12 the".split(), k=6)) for _ in range(2))
        rouge = generation_scores([one], [[two]])["rougeL"]
        assert 100 * similarity(one, two) == pytest.approx(rouge)


def test_the_prompt_of_a_generated_text_is_shown():
    answer = {"id": 0, "prompt": "say " * 900, "prediction": "", "reference": "x"}
    shown = CausalLM.shown_texts(answer, {})
    assert shown.keys() == {"prompt"}
    assert len(shown["prompt"]) == LONGEST_SHOWN
