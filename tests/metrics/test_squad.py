"""SQuAD's scores against a second reading of their definition, and examples done by hand."""

import itertools
import json
import socket
import string
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import DataError
from trainer.metrics.squad import SquadRecord, squad_scores
from trainer.metrics.squad_module import SquadMetrics

PARTS = (
    "the The AN a cat Cat's Zoë zoe ﬁn İzmir U.S. — _ ß ¿ !! theatre a-n 1,000 ’s the. é e\u0301"
).split()
SPACES = ["", " ", "  ", "\t", "\n", "\u00a0", "\u3000", "-"]
PROBABILITIES = [-2.5, 0.0, 0.25, 0.5, 1.0, 7.0]

pieces = st.tuples(st.sampled_from(PARTS), st.sampled_from(SPACES)).map("".join)
texts = st.lists(pieces, max_size=4).map("".join) | st.text(max_size=6) | st.sampled_from(PARTS)


def question_lists(answers: st.SearchStrategy[str], probabilities: st.SearchStrategy[float]):
    """Lists of records, whose ids are their positions."""
    fields = st.tuples(st.lists(answers, max_size=3), answers | st.just(""), probabilities)
    return st.lists(fields, min_size=1, max_size=7).map(
        lambda rows: [SquadRecord(str(i), *row) for i, row in enumerate(rows)]
    )


def words(text: str) -> list[str]:
    """Words without patterns: runs of letters and digits, where articles become blanks."""
    kept = [sign for sign in text.lower() if sign not in string.punctuation]
    runs = ["".join(run) for _, run in itertools.groupby(kept, key=str.isalnum)]
    return "".join(" " if run in ("a", "an", "the") else run for run in runs).split()


def harmony(gold: list[str], predicted: list[str]) -> Fraction:
    """F1 as a fraction: predicted words are struck off the gold ones, each once."""
    if not gold or not predicted:
        return Fraction(gold == predicted)
    left = list(gold)
    for word in predicted:
        if word in left:
            left.remove(word)
    return Fraction(2 * (len(gold) - len(left)), len(gold) + len(predicted))


def earned(record: SquadRecord, name: str) -> Fraction:
    """What the predicted text is worth, whatever the probability."""
    golds = [gold for gold in map(words, record.gold_answers) if gold]
    golds = golds if golds else [[]]
    predicted = words(record.prediction_text)
    if name == "exact":
        return Fraction(any(gold == predicted for gold in golds))
    return max(harmony(gold, predicted) for gold in golds)


def mean_score(records: list[SquadRecord], name: str, threshold: float) -> float:
    points = [
        Fraction(not record.gold_answers)
        if record.no_answer_probability > threshold
        else earned(record, name)
        for record in records
    ]
    return float(100 * sum(points) / len(points))


def every_cut(records: list[SquadRecord], name: str) -> list[tuple[Fraction, float]]:
    """The points if 0, 1, … questions are accepted, counted independently; each cut's threshold."""
    order = sorted(range(len(records)), key=lambda i: (records[i].no_answer_probability, i))
    cuts: list[tuple[Fraction, float]] = []
    for num_accepted in range(len(order) + 1):
        accepted = order[:num_accepted]
        points = Fraction(0)
        for i, record in enumerate(records):
            if record.gold_answers:
                points += earned(record, name) if i in accepted else 0
            else:
                points += not (i in accepted and record.prediction_text)
        last = records[accepted[-1]].no_answer_probability if accepted else 0.0
        cuts.append((points, last))
    return cuts


@settings(max_examples=300)
@given(question_lists(texts, st.sampled_from(PROBABILITIES)), st.sampled_from(PROBABILITIES))
def test_scores_are_those_of_a_second_reading(records, threshold):
    scores = squad_scores(records, threshold)
    expected = {}
    groups = {
        "": records,
        "HasAns_": [record for record in records if record.gold_answers],
        "NoAns_": [record for record in records if not record.gold_answers],
    }
    for prefix, group in groups.items():
        if group:
            for name in ("exact", "f1"):
                expected[prefix + name] = mean_score(group, name, threshold)
            expected[f"{prefix}total"] = len(group)
    best_names = {"best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh"}
    assert {key: scores[key] for key in scores.keys() - best_names} == pytest.approx(expected)


@settings(max_examples=300)
@given(question_lists(texts, st.sampled_from(PROBABILITIES)))
def test_best_thresholds_are_those_of_every_cut(records):
    scores = squad_scores(records)
    for name in ("exact", "f1"):
        cuts = every_cut(records, name)
        most = max(points for points, _ in cuts)
        best = [threshold for points, threshold in cuts if points == most]
        assert scores[f"best_{name}"] == pytest.approx(float(100 * most / len(records)))
        if name == "exact":
            assert scores["best_exact_thresh"] == best[0]
        else:  # sums of F1 are rounded, so that of equal cuts a later one may win
            assert scores["best_f1_thresh"] in best


@given(st.data())
def test_without_ties_no_threshold_gives_more_than_the_best_one(data):
    plain = st.lists(st.sampled_from(["cat", "dog", "bird"]), min_size=1, max_size=3).map(" ".join)
    records = data.draw(question_lists(plain, st.just(0.0)))
    odds = data.draw(st.permutations([(i + 1) / 8 for i in range(len(records))]))
    records = [
        SquadRecord(record.id, record.gold_answers, record.prediction_text, probability)
        for record, probability in zip(records, odds, strict=True)
    ]
    scores = squad_scores(records)
    for name in ("exact", "f1"):
        tried = [squad_scores(records, threshold)[name] for threshold in [0.0, *odds]]
        assert scores[f"best_{name}"] == pytest.approx(max(tried))
        at_best = squad_scores(records, scores[f"best_{name}_thresh"])[name]
        assert at_best == pytest.approx(max(tried))


def test_an_example_done_by_hand():
    records = [
        SquadRecord("q1", ["the Normans", "Norman people"], "Normans!", 0.1),  # exact
        SquadRecord("q2", ["in the 10th century"], "10th and 11th", 0.3),  # 1 of 3, 1 of 3
        SquadRecord("q3", ["Rollo", "Rollo of Norway"], "king Rollo", 0.6),  # 2/3 by the first
        SquadRecord("q4", [], "", 0.9),
        SquadRecord("q5", [], "France", 0.8),
    ]
    assert squad_scores(records) == pytest.approx(
        {
            "exact": 40.0,
            "f1": 100 * (1 + 1 / 3 + 2 / 3 + 1 + 0) / 5,
            "total": 5,
            "HasAns_exact": 100 / 3,
            "HasAns_f1": 200 / 3,
            "HasAns_total": 3,
            "NoAns_exact": 50.0,
            "NoAns_f1": 50.0,
            "NoAns_total": 2,
            "best_exact": 60.0,  # q1 answered, the other four refused
            "best_exact_thresh": 0.1,
            "best_f1": 80.0,  # q1 to q3 answered
            "best_f1_thresh": 0.6,
        }
    )
    refused = squad_scores(records, 0.5)
    assert (refused["exact"], refused["HasAns_f1"], refused["NoAns_f1"]) == pytest.approx(
        (60.0, 400 / 9, 100.0)
    )


def test_a_probability_equal_to_the_threshold_accepts_the_answer():
    records = [SquadRecord("q", ["cat"], "cat", 0.5)]
    assert squad_scores(records, 0.5)["exact"] == 100.0
    assert squad_scores(records, 0.49)["exact"] == 0.0


def test_version_1_1_takes_the_best_gold_answer_of_each_question():
    records = [
        SquadRecord("a", ["Denver Broncos", "The Denver Broncos", "Broncos"], "the Broncos."),
        SquadRecord("b", ["gold", "golden"], "a gold anniversary"),
        SquadRecord("c", ["Levi's Stadium"], "Levis stadium in Santa Clara"),
        SquadRecord("d", ["1,000"], "thousand"),
    ]
    f1 = 100 * (1 + 2 / 3 + 2 * (2 / 5) / (1 + 2 / 5) + 0) / 4
    scores = squad_scores(records)
    assert (scores["exact"], scores["f1"], scores["total"]) == (25.0, pytest.approx(f1), 4)
    assert (scores["best_exact"], scores["best_f1"]) == (25.0, pytest.approx(f1))
    assert not any(name.startswith("NoAns") for name in scores)


def test_repeated_words_count_as_often_as_both_sides_have_them():
    scores = squad_scores([SquadRecord("q", ["no no no yes"], "no no maybe")])
    assert scores["f1"] == pytest.approx(100 * 2 * 2 / (4 + 3))


@pytest.mark.parametrize(
    ("gold", "predicted", "exact"),
    [
        ("ÉCOLE", "école", True),
        ("e\u0301cole", "école", False),  # no Unicode normalisation
        ("东京", "东京。", False),  # only ASCII punctuation goes
        ("New\u00a0York", "new   york\n", True),
        ("well-known", "wellknown", True),
        ("well-known", "well known", False),
        ("theatre", "atre", False),
        ("theé", "é", False),  # an article ends where no letter of any script follows
        ("a_n apple", "Apple", True),  # punctuation goes before articles
        ("then—the—now", "then— —now", True),  # an article leaves a blank
    ],
)
def test_normalisation(gold, predicted, exact):
    assert squad_scores([SquadRecord("q", [gold], predicted)])["exact"] == 100.0 * exact


def test_gold_answers_that_normalise_to_nothing_are_dropped():
    several = SquadRecord("q", ["the", "cat"], "")
    assert squad_scores([several])["exact"] == 0.0
    only = SquadRecord("q", ["the", "?!"], "")
    scores = squad_scores([only])
    assert (scores["HasAns_exact"], scores["HasAns_f1"]) == (100.0, 100.0)
    assert squad_scores([only], -1.0)["HasAns_exact"] == 0.0  # it has answers, so refusing is wrong


def test_an_article_alone_answers_nothing_but_costs_the_best_threshold_a_point():
    scores = squad_scores([SquadRecord("q", [], "The", 0.2), SquadRecord("r", ["x"], "x", 0.4)])
    assert scores["NoAns_exact"] == 100.0
    assert scores["exact"] == 100.0
    assert (scores["best_exact"], scores["best_exact_thresh"]) == (50.0, 0.0)


def test_ties_are_taken_one_by_one_in_the_order_of_the_records():
    right = SquadRecord("right", ["cat"], "cat", 0.5)
    wrong = SquadRecord("wrong", [], "dog", 0.5)
    scores = squad_scores([right, wrong])
    assert (scores["best_exact"], scores["best_exact_thresh"]) == (100.0, 0.5)
    scores = squad_scores([wrong, right])
    assert (scores["best_exact"], scores["best_exact_thresh"]) == (50.0, 0.0)


def test_of_equal_thresholds_the_lowest_is_the_best():
    records = [
        SquadRecord("1", ["cat"], "cat", -3.0),
        SquadRecord("2", [], "dog", -2.0),
        SquadRecord("3", ["cat"], "cat", 4.0),
    ]
    scores = squad_scores(records)
    assert (scores["best_f1"], scores["best_f1_thresh"]) == (pytest.approx(200 / 3), -3.0)


def prediction(identity: str, text: str = "", probability: float = 0.0) -> dict[str, object]:
    return {"id": identity, "prediction_text": text, "no_answer_probability": probability}


def reference(identity: str, *answers: str) -> dict[str, object]:
    return {"id": identity, "answers": {"text": [*answers], "answer_start": [0] * len(answers)}}


@pytest.mark.parametrize(
    ("predictions", "references", "message", "wrong"),
    [
        (["a", "a"], ["a", "b"], "prediction 'a' occurs more than once", "a"),
        (["a", "b"], ["b", "b"], "question 'b' occurs more than once", "b"),
        (["a", "c"], ["a", "b"], "prediction 'c' belongs to none of the 2 questions", "c"),
    ],
)
def test_predictions_and_questions_must_pair_up(predictions, references, message, wrong):
    module = SquadMetrics(keep_in_memory=True)
    with pytest.raises(DataError, match=message) as raised:
        module.compute(
            predictions=[prediction(identity) for identity in predictions],
            references=[reference(identity) for identity in references],
        )
    assert (raised.value.key, raised.value.value) == ("id", wrong)


def test_records_must_be_one_for_each_question_and_comparable():
    record = SquadRecord("a", [], "")
    with pytest.raises(DataError, match="prediction 'a' occurs more than once") as raised:
        squad_scores([record, SquadRecord("b", [], ""), record])
    assert (raised.value.key, raised.value.value) == ("id", "a")
    with pytest.raises(DataError, match="no_answer_probability of 'n' is NaN") as raised:
        squad_scores([record, SquadRecord("n", [], "", float("nan"))])
    assert raised.value.key == "no_answer_probability"


def test_without_records_there_are_no_scores():
    assert squad_scores([]) == {}


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("a metric asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("offline")
def test_the_module_pairs_batches_by_id_and_keeps_the_order_of_predictions(tmp_path):
    predictions = [
        prediction("q1", "Zürich — 東京", 0.5),
        prediction("q2", "dog", 0.5),
        prediction("q3", "", 3.5),
        prediction("q4", "the red cat", -1.25),
    ]
    references = [
        reference("q4", "cat", "cats"),
        reference("q3"),
        reference("q2"),
        reference("q1", "zürich —  東京"),
    ]
    module = SquadMetrics(cache_dir=str(tmp_path))
    for part in (slice(0, 3), slice(3, 4)):
        module.add_batch(predictions=predictions[part], references=references[part])
    scores = module.compute(no_answer_threshold=2.0)
    expected = squad_scores(
        [
            SquadRecord("q1", ["zürich —  東京"], "Zürich — 東京", 0.5),
            SquadRecord("q2", [], "dog", 0.5),
            SquadRecord("q3", [], "", 3.5),
            SquadRecord("q4", ["cat", "cats"], "the red cat", -1.25),
        ],
        2.0,
    )
    assert scores == expected
    assert scores is not None
    assert (scores["exact"], scores["best_exact"], scores["best_exact_thresh"]) == (50.0, 75.0, 0.5)
    assert json.loads(json.dumps(scores)) == expected
    once = SquadMetrics(keep_in_memory=True)
    again = once.compute(predictions=predictions, references=references, no_answer_threshold=2.0)
    assert again == expected


@pytest.mark.usefixtures("offline")
def test_the_module_takes_every_answer_by_default_and_refuses_foreign_ids():
    module = SquadMetrics(keep_in_memory=True)
    answers = [reference("a", "cat")]
    scores = module.compute(predictions=[prediction("a", "cat", 1.0)], references=answers)
    assert scores is not None
    assert scores["exact"] == 100.0
    with pytest.raises(DataError, match="prediction 'b'"):
        module.compute(predictions=[prediction("b", "cat")], references=answers)
