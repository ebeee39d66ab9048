"""Classification: labels, batches, loss sums and statistics that add up to scikit-learn's."""

import math
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from trainer.data.encoded import PreparedSplit, Summary, encode_once
from trainer.data.sources import load_splits
from trainer.errors import ConfigError, DataError
from trainer.models.tokenizers.special_tokens import TextTokenizer
from trainer.recipe.data import Columns, Data, Ratio, Source, Split
from trainer.recipe.model import Model
from trainer.tasks.classification.label_notes import label_notes
from trainer.tasks.classification.labels import label_indices, label_names
from trainer.tasks.classification.settings import ClassificationSettings
from trainer.tasks.classification.task import Classification
from trainer.tasks.recipe import Recipe

COLUMNS = Columns()
PADDED = SimpleNamespace(pad_token_id=99)


def task(labels: tuple[str, ...] = ("negative", "positive"), **settings: Any) -> Classification:
    made: dict[str, Any] = {"max_seq_length": 16, "tokenizer": PADDED, "columns": COLUMNS}
    return Classification(labels=labels, **(made | settings))


def rows(labels: list[Any], texts: list[Any] | None = None) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": texts or ["words"] * len(labels), "label": labels})


def from_rows(
    train: datasets.Dataset, on_bad_example: Any = "error", **settings: Any
) -> Classification:
    recipe = Recipe(
        model=Model(name_or_path="bert"),
        task=ClassificationSettings(name="classification", **settings),
        data=Data(source=Source(builtin="reviews"), on_bad_example=on_bad_example),
    )
    return Classification.build(recipe, train, PADDED, None)


def encode(
    made: Classification, given: Any, **settings: Any
) -> tuple[dict[str, list[Any]], Summary]:
    """Returns all columns of some rows, and what was counted."""
    summary, columns = Summary(**settings), dict[str, list[Any]]()
    for chunk in made.encode(given, summary):
        for name, entries in chunk.items():
            columns.setdefault(name, []).extend(entries)
    return columns, summary


@pytest.fixture(scope="module")
def tokenizer(trained_tokenizer: Any) -> Any:
    words = ["one two three four five six seven eight nine ten"] * 3
    return trained_tokenizer("wordpiece", 128, words)


# Labels


@pytest.mark.parametrize(
    "values",
    [
        ["positive", "negative", "positive"],
        [" positive", "negative ", "positive"],
        [1, 0, 1],
        ["1", "0", "1"],
        [1.0, 0.0, 1.0],
    ],
    ids=["names", "names with spaces", "indices", "numbers as text", "floats"],
)
def test_labels_are_names_or_indices(values, tokenizer):
    assert encode(task(tokenizer=tokenizer), rows(values))[0]["label"] == [1, 0, 1]


def test_labels_that_are_numbers_are_names_before_they_are_indices(tokenizer):
    made = task(("1", "2", "3"), tokenizer=tokenizer)
    assert encode(made, rows([1, 2, 3]))[0]["label"] == [0, 1, 2]
    made = task(("-1", "1"), tokenizer=tokenizer)
    assert encode(made, rows([-1, 1, -1]))[0]["label"] == [0, 1, 0]


@pytest.mark.parametrize(
    ("values", "row", "shown"),
    [
        (["positive", "neutral"], 2, "'neutral'"),
        ([0, 1, 1, 2], 4, "2"),
        ([0, -1], 2, "-1"),
        ([0.5, 1.0], 1, "0.5"),
        (["0", "positive"], 1, "'0'"),
    ],
)
def test_an_unknown_label_names_its_row(values, row, shown, tokenizer):
    sentence = f"row {row}: the label {shown} is not one of negative, positi"
    with pytest.raises(DataError) as caught:
        encode(task(tokenizer=tokenizer), rows(values))
    assert (caught.value.key, caught.value.value) == ("data.columns.label", values[row - 1])
    skipped, summary = encode(task(tokenizer=tokenizer), rows(values), on_bad_example="skip")
    assert len(skipped["label"]) == len(skipped["input_ids"]) == len(values) - 1
    assert summary.num_skipped == 1
    assert summary.first_skipped.startswith(sentence)


def test_labels_come_from_the_rows_where_the_recipe_has_none():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "maybe"])}
    )
    with_names = rows([1, 0, 1]).cast(features)
    made = from_rows(with_names)
    assert made.labels == ("no", "maybe")
    assert label_indices(with_names, "label", made.labels) == {"0": 0, "1": 1}
    # The recipe may have them in another order: a number is still the column's own name.
    assert label_indices(with_names, "label", ("maybe", "no")) == {"0": 1, "1": 0}
    assert label_names(rows(["b", "a", "b"]), "label") == ("a", "b")
    assert label_names(rows([10, 9, -1]), "label") == ("-1", "9", "10")  # by size, not as text


def test_numbers_of_a_column_with_class_names_are_indices():
    names = datasets.ClassLabel(names=["1", "0"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    given = rows([0, 1, 1]).cast(features)
    assert label_indices(given, "label", from_rows(given).labels) == {"0": 0, "1": 1}


@pytest.mark.parametrize("label", [None, math.nan, ""])
def test_a_row_without_a_label_is_named(label):
    given = [1.0, 0.0, label] if label != "" else ["a", "b", ""]
    with pytest.raises(DataError, match="train split, row 3: the column label has no label"):
        from_rows(rows(given))


def test_a_row_without_a_label_can_be_skipped_where_labels_come_from_the_rows(tokenizer):
    given = rows(["a", None, "b", " "])
    made = from_rows(given, on_bad_example="skip")
    assert made.labels == ("a", "b")
    made.text_tokenizer = TextTokenizer(tokenizer)
    columns, summary = encode(made, given, on_bad_example="skip")
    assert (columns["label"], summary.num_skipped) == ([0, 1], 2)
    with pytest.raises(DataError) as caught:
        from_rows(rows([None, None]), on_bad_example="skip")
    assert (caught.value.key, caught.value.value) == ("data.columns.label", None)


def test_rows_with_several_labels_are_refused(tokenizer):
    given = rows([[3], [1, 2]])
    with pytest.raises(DataError, match=r"row 1: the column label has \[3\], not one label"):
        from_rows(given)
    with pytest.raises(DataError) as caught:
        encode(task(tokenizer=tokenizer), given)
    assert (caught.value.key, caught.value.value) == ("data.columns.label", [3])


def test_no_label_is_no_class_of_that_name(tokenizer):
    made, given = task(("None", "nan", "x"), tokenizer=tokenizer), rows(["x", None, "None"])
    columns, summary = encode(made, given, on_bad_example="skip")
    assert (columns["label"], summary.num_skipped) == ([2, 0], 1)
    balanced = from_rows(given, labels=("None", "x"), class_weights="balanced")
    assert balanced.class_weights.tolist() == [1.0, 1.0]


def test_rows_keep_their_numbers_through_a_division(tmp_path):
    lines = [f'{{"text": "row {number}", "label": "yes"}}' for number in range(1, 101)]
    lines[41] = '{"text": "", "label": "no"}'
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    source = Source(files={"train": str(tmp_path / "a.jsonl")})
    split = Split(validation=Ratio(ratio=0.5))
    parts = load_splits(Data(source=source, split=split))[0]
    part = next(rows for rows in parts.values() if "" in rows["text"])
    with pytest.raises(DataError, match=r"^row 42: ") as caught:
        encode(task(("no", "yes")), part)
    assert (caught.value.key, caught.value.value) == ("data.columns.text", "")


def test_a_recipe_names_the_labels_in_their_order():
    assert from_rows(rows([0, 1]), labels=("bad", "good")).config_values() == {
        "num_labels": 2,
        "id2label": {0: "bad", 1: "good"},
        "label2id": {"bad": 0, "good": 1},
        "problem_type": None,
    }


def test_one_label_is_too_few():
    with pytest.raises(DataError, match="only one label, same; classification needs at") as caught:
        from_rows(rows(["same", "same"]))
    assert (caught.value.key, caught.value.value) == ("data.columns.label", "label")


def test_class_names_unlike_the_labels_are_noted():
    others = rows([0, 1]).cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
    columns = {"label": np.array([0, 1]), "row": np.array([0, 1])}
    notes = label_notes(
        "validation",
        PreparedSplit(columns, Summary(), others),
        ("bad", "good"),
        column="label",
        texts=["text"],
    )
    assert notes == [
        "the classes no, yes of the validation split share no name with task.labels and are "
        "matched to it by position: bad, good"
    ]


# Encoding


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "is empty"), ("  \n", "is empty"), (None, "is empty"), (math.nan, "is 1.0")],
)
def test_a_row_without_text_is_named(tokenizer, text, sentence):
    given = rows([0, 1], ["one", text] if text == text else [1.0, math.nan])
    first = 1 if text != text else 2
    with pytest.raises(DataError, match=f"row {first}: the column text {sentence}") as caught:
        encode(task(tokenizer=tokenizer), given)
    assert caught.value.key == "data.columns.text"


def test_texts_become_tokens_and_what_is_cut_is_counted(tokenizer):
    texts = ["one two", "one two three four five six", "one two three four"]
    made = task(max_seq_length=6, tokenizer=tokenizer)
    encoded, summary = encode(made, rows([0, 1, 0], texts))
    tokens = [tokenizer.convert_ids_to_tokens(ids) for ids in encoded["input_ids"]]
    assert tokens == [
        ["[CLS]", "one", "two", "[SEP]"],
        ["[CLS]", "one", "two", "three", "four", "[SEP]"],
        ["[CLS]", "one", "two", "three", "four", "[SEP]"],
    ]
    assert encoded["label"] == [0, 1, 0]
    assert (summary.num_truncated, summary.longest) == (1, 8)
    _, summary = encode(task(max_seq_length=8, tokenizer=tokenizer), rows([0, 1, 0], texts))
    assert (summary.num_truncated, summary.longest) == (0, 8)


def test_a_pair_of_texts_has_two_types_of_tokens(tokenizer):
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    made = task(("no", "yes"), columns=Columns(text_pair="other"), tokenizer=tokenizer)
    pairs = rows([0, 1], ["one", "one two"]).add_column("other", ["two three", "three"])
    encoded, _ = encode(made, pairs)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]) == (
        ["[CLS]", "one", "[SEP]", "two", "three", "[SEP]"]
    )
    assert encoded["token_type_ids"] == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]]


# Batches


@pytest.fixture
def split(tmp_path, monkeypatch) -> PreparedSplit:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path))
    ids = [[2, 7, 3], [2, 8, 9, 10, 3], [2, 11, 3], [2, 3]]
    types = [[0] * len(one) for one in ids]
    columns = {"input_ids": ids, "label": [0, 1, 2, 1], "token_type_ids": types}
    return encode_once("split", lambda _: [columns])


LABELS = ("a", "b", "c")


def test_a_batch_is_padded_to_its_longest_and_masked(split):
    batch = task(LABELS).collate(split, np.array([1, 0]), epoch=1)
    assert batch.inputs["input_ids"].tolist() == [[2, 8, 9, 10, 3], [2, 7, 3, 99, 99]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch.inputs["token_type_ids"].shape == (2, 5)
    assert batch.targets["labels"].tolist() == [1, 0]
    assert batch.counts.tolist() == [2.0]


def test_nothing_is_masked_where_nothing_is_padded(split):
    batch = task(LABELS).collate(split, np.array([0, 2]), epoch=1)
    assert set(batch.inputs) == {"input_ids", "token_type_ids"}


# Loss


class Table(nn.Module):
    """A toy model whose logits are a row of a table, chosen by the first token."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        table = torch.randn(20, num_labels, generator=torch.Generator().manual_seed(1))
        self.table = nn.Parameter(table)

    def forward(self, input_ids: torch.Tensor, **_: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.table[input_ids[:, 1]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 3.0)])
@pytest.mark.parametrize("cut", [[[0, 1, 2, 3]], [[0, 3], [1, 2]], [[2], [0, 1, 3]]])
def test_sums_over_counts_are_cross_entropy_however_the_step_was_cut(
    split, weights, smoothing, cut
):
    made = task(LABELS, class_weights=weights, label_smoothing=smoothing)
    model = Table(3)
    total, count, logits, labels = torch.zeros(1), torch.zeros(1, dtype=torch.float64), [], []
    for ids in cut:
        batch = made.collate(split, np.array(ids), epoch=1)
        loss, outputs = made.loss_sums(model, batch.inputs, batch.targets)
        assert loss.shape == batch.counts.shape == (1,)
        assert loss.dtype == torch.float32
        total, count = total + loss, count + batch.counts
        logits.append(outputs)
        labels.append(batch.targets["labels"])
    (total / count).sum().backward()
    found, model.table.grad = model.table.grad, None

    weight = torch.tensor(weights) if weights else None
    rows_ = torch.tensor([split.ragged("input_ids")[i][1] for ids in cut for i in ids])
    expected = functional.cross_entropy(
        model.table[rows_], torch.cat(labels), weight=weight, label_smoothing=smoothing
    )
    expected.backward()
    assert torch.equal(torch.cat(logits), model.table[rows_])
    torch.testing.assert_close((total / count).float().squeeze(), expected)
    torch.testing.assert_close(found, model.table.grad)


def test_the_loss_is_summed_in_fp32(split):
    made = task(LABELS)
    batch = made.collate(split, np.array([0, 1]), epoch=1)
    loss, outputs = made.loss_sums(Table(3).to(torch.bfloat16), batch.inputs, batch.targets)
    assert loss.dtype == outputs.dtype == torch.float32
    assert not outputs.requires_grad


def test_balanced_weights_are_those_of_scikit_learn():
    labels = [0, 0, 0, 1, 2, 2, 0, 1, 0, 0]
    made = from_rows(rows(labels), class_weights="balanced")
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert made.class_weights.tolist() == pytest.approx(expected.tolist())
    assert from_rows(rows(labels)).class_weights.tolist() == [1.0, 1.0, 1.0]


def test_weights_that_do_not_fit_the_labels_are_refused():
    with pytest.raises(ConfigError) as caught:
        from_rows(rows([0, 1, 2]), class_weights=(1.0, 2.0))
    assert (caught.value.key, caught.value.value) == ("task.class_weights", (1.0, 2.0))
    with pytest.raises(ConfigError, match="balanced, but no train row has the label c") as caught:
        from_rows(rows(["a", "b"]), labels=("a", "b", "c"), class_weights="balanced")
    assert (caught.value.key, caught.value.value) == ("task.class_weights", "balanced")


# Metrics


def measured(made: Classification, labels: np.ndarray, outputs: torch.Tensor, size: int = 7):
    """Returns the metrics of outputs whose statistics are added up batch by batch."""
    total = sum(
        made.statistics(outputs[start : start + size], {"labels": torch.from_numpy(part)})
        for start in range(0, len(labels), size)
        if (part := labels[start : start + size]).size
    )
    assert isinstance(total, torch.Tensor)
    assert (total.dtype, total.shape) == (torch.float64, (made.num_statistics,))
    return made.metrics(total.numpy(), [])


@pytest.mark.parametrize("num_labels", [2, 4])
def test_metrics_of_random_predictions_are_those_of_scikit_learn(num_labels):
    made = task(tuple("abcd"[:num_labels]))
    labels = np.random.default_rng(1).integers(0, num_labels, 100)
    outputs = torch.randn(100, num_labels, generator=torch.Generator().manual_seed(2))
    found, predicted = measured(made, labels, outputs), outputs.argmax(-1).numpy()
    macro = metrics.precision_recall_fscore_support(labels, predicted, average="macro")
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        **dict(zip(("precision_macro", "recall_macro", "f1_macro"), macro[:3], strict=True)),
    }
    if num_labels == 2:
        binary = metrics.precision_recall_fscore_support(labels, predicted, average="binary")
        expected |= dict(zip(("precision", "recall", "f1"), binary[:3], strict=True))
    per_class = found.pop("per_class")
    assert found == pytest.approx(expected)
    assert set(found) == set(made.metrics_offered) - {"loss"} == set(made.scales)
    by_class = metrics.precision_recall_fscore_support(labels, predicted)
    for index, label in enumerate(made.labels):
        one = per_class[label]
        assert [one["precision"], one["recall"], one["f1"], one["support"]] == pytest.approx(
            [column[index] for column in by_class]
        )
        assert one["predicted"] == (predicted == index).sum()


@pytest.mark.parametrize("num_labels", [2, 4])
def test_perfect_predictions_score_1(num_labels):
    made = task(tuple("abcd"[:num_labels]))
    labels = np.arange(40) % num_labels
    found = measured(made, labels, functional.one_hot(torch.from_numpy(labels)).float())
    assert {found[name] for name in made.scales} == {1.0}


def test_predictions_of_one_class_only_score_0_for_the_others_without_a_warning():
    labels = np.array([0, 1, 1, 2])
    found = measured(task(LABELS), labels, torch.tensor([[0.0, 1.0, 0.0]]).repeat(4, 1))
    assert found["accuracy"] == 0.5
    assert found["f1_macro"] == pytest.approx((2 / 3) / 3)
    assert found["per_class"]["a"]["f1"] == found["per_class"]["c"]["precision"] == 0.0
    assert found["per_class"]["b"]["predicted"] == 4


def test_a_class_without_rows_keeps_its_place():
    labels = np.array([0, 1, 1, 0])
    found = measured(task(LABELS), labels, functional.one_hot(torch.from_numpy(labels), 3).float())
    assert found["per_class"]["c"]["support"] == 0
    assert found["accuracy"] == 1.0
    assert found["f1_macro"] == 1.0  # over the labels that occur, as scikit-learn's default


def test_a_prediction_names_its_label_and_how_sure_it_is():
    outputs = torch.tensor([[0.0, math.log(3.0)], [1.0, 1.0 - math.log(4.0)]])
    targets = {"labels": torch.tensor([1, 1])}
    split = PreparedSplit({"row": np.array([0, 1, 3, 4, 7])}, Summary())
    found = task().records(outputs, targets, split, np.array([4, 2]))
    assert [(one["id"], one["row"]) for one in found] == [(4, 7), (2, 3)]
    assert [(one["label"], one["prediction"]) for one in found] == [
        ("positive", "positive"),
        ("positive", "negative"),
    ]
    assert [one["probability"] for one in found] == pytest.approx([0.75, 0.8])
