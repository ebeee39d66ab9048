"""Zero-shot: answers are likelihoods and texts of the model itself, in any company."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from pydantic import ValidationError

from trainer.data.encoded import PreparedSplit, Summary, encode_once
from trainer.errors import ConfigError
from trainer.models.architecture import build_model_config
from trainer.models.output_layer import install_output_layer
from trainer.models.tokenizers.special_tokens import TextTokenizer
from trainer.models.tokenizers.tokenizer import load_tokenizer
from trainer.recipe import schema
from trainer.recipe.data import Columns, Data, Source
from trainer.recipe.model import Model
from trainer.recipe.training import Batch
from trainer.tasks.classification.settings import ClassificationSettings, LabelPrompt
from trainer.tasks.classification.task import Classification
from trainer.tasks.generation.fitted_prompt import FittedPrompt
from trainer.tasks.generation.zero_shot import (
    GeneratedAnswer,
    LabelLikelihood,
    mean_log_likelihoods,
)
from trainer.tasks.question_answering.settings import (
    GeneratedAnswerSettings,
    QuestionAnsweringSettings,
)
from trainer.tasks.question_answering.task import QuestionAnswering
from trainer.tasks.recipe import Recipe

NUM_POSITIONS = 48
SIZES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "phi": {},
    "gpt2": {},
}
TEXTS = [
    "a lovely film",
    "dull",
    "it is long and has no end and no sense at all",
    "good and bad, bad and good, and then some more of it",
    "a weak film that is not very good " * 9,
]
PROMPT = "Review: {text}\nSentiment:"
ANSWERS = (" bad", " rather good")


@pytest.fixture(scope="module")
def folder(trained_tokenizer: Any) -> Path:
    """A tokenizer of byte pieces that begins a text with [CLS]."""
    texts = [*TEXTS, "Review: \nSentiment: bad rather good Question: Answer:"]
    return Path(trained_tokenizer("bpe", 320, texts).name_or_path)


def build(folder: Path, kind: str) -> tuple[Any, Any, Any]:
    """Returns tokenizer, configuration and a random model that is sure of its words."""
    numbers = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    numbers |= {"max_position_embeddings": NUM_POSITIONS, "initializer_range": 0.4}
    if kind != "gpt2":
        numbers["intermediate_size"] = 64
    settings = Model(
        architecture={"model_type": kind, **numbers, **SIZES[kind]},
        initialization="random",
        tokenizer=str(folder),
    )
    tokenizer = load_tokenizer(settings)
    model_config = build_model_config(settings, tokenizer)
    torch.manual_seed(1)
    made = transformers.AutoModelForCausalLM.from_config(model_config).eval()
    install_output_layer(made)
    return tokenizer, model_config, made


@pytest.fixture(scope="module", params=SIZES)
def asked(request: pytest.FixtureRequest, folder: Path) -> tuple[Any, Any, Any]:
    return build(folder, request.param)


@pytest.fixture(scope="module")
def llama(folder: Path) -> tuple[Any, Any, Any]:
    return build(folder, "llama")


def prompt_of(tokenizer: Any, model_config: Any, template: str = PROMPT, **more: Any) -> Any:
    tokenizer = TextTokenizer(tokenizer)
    return FittedPrompt(template, tokenizer=tokenizer, model_config=model_config, **more)


# The prompt


def test_an_answer_has_the_tokens_that_it_has_after_its_prompt(llama):
    tokenizer, model_config, _ = llama
    made = prompt_of(tokenizer, model_config, answers=ANSWERS)
    begin = tokenizer.cls_token_id
    for answer, (tokens, start) in zip(ANSWERS, made.with_answers({"text": "dull"}), strict=True):
        assert tokens[0] == begin
        assert tokenizer.decode(tokens[1:]).strip() == f"Review: dull\nSentiment:{answer}"
        assert tokenizer.decode(tokens[start:]) == answer
        alone = tokenizer(f"Review: dull\nSentiment:{answer}", add_special_tokens=False)
        assert tokens[1:].tolist() == alone["input_ids"]


def test_an_answer_that_joins_the_prompt_begins_where_they_differ(llama):
    tokenizer, model_config, _ = llama
    made = prompt_of(tokenizer, model_config, "{text} goo", answers=("d", "x"))
    joined, apart = made.with_answers({"text": "a"})
    assert tokenizer.decode(joined.tokens[joined.start :]).strip() == "good"
    assert tokenizer.decode(apart.tokens[apart.start :]).endswith("x")


def test_a_long_text_is_cut_and_the_words_after_it_stay(llama):
    tokenizer, model_config, _ = llama
    made = prompt_of(tokenizer, model_config, answers=ANSWERS)
    for text in TEXTS[:4]:
        assert made.cut({"text": text}) == ({"text": text}, False)
    texts, was_cut = made.cut({"text": TEXTS[4]})
    assert was_cut
    assert TEXTS[4].startswith(texts["text"])
    longest = max(len(tokens) for tokens, _ in made.with_answers(texts))
    assert NUM_POSITIONS - 1 <= longest <= NUM_POSITIONS
    more = {"text": TEXTS[4][: len(texts["text"]) + 8]}
    assert max(len(tokens) for tokens, _ in made.with_answers(more)) > NUM_POSITIONS
    assert all("Sentiment:" in tokenizer.decode(tokens) for tokens, _ in made.with_answers(texts))


def test_what_gives_most_goes_first_and_the_question_last(llama):
    tokenizer, model_config, _ = llama
    made = prompt_of(tokenizer, model_config, "{question} {context} Answer:", max_new_tokens=8)
    texts, was_cut = made.cut({"context": TEXTS[4], "question": "is it good"})
    assert was_cut
    assert texts["question"] == "is it good"
    assert 0 < len(texts["context"]) < len(TEXTS[4])
    assert len(made.tokens(texts)) <= NUM_POSITIONS - 8
    both, _ = made.cut({"context": TEXTS[4], "question": TEXTS[4]})
    assert both["context"] == ""
    assert 0 < len(both["question"]) < len(TEXTS[4])
    assert len(made.tokens(both)) <= NUM_POSITIONS - 8


def test_a_model_without_a_limit_of_positions_cuts_nothing(folder):
    settings = Model(
        architecture={"model_type": "bloom", "hidden_size": 32, "n_head": 4},
        initialization="random",
        tokenizer=str(folder),
    )
    tokenizer = load_tokenizer(settings)
    made = prompt_of(tokenizer, build_model_config(settings, tokenizer), answers=ANSWERS)
    assert made.cut({"text": TEXTS[4] * 9}) == ({"text": TEXTS[4] * 9}, False)


# Likelihoods


@torch.no_grad()
def direct(model: Any, tokens: np.ndarray, start: int) -> float:
    """Returns the mean log-likelihood from all logits of one sequence by itself."""
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    likelihoods = model(input_ids=ids).logits[0].double().log_softmax(-1)
    return float(likelihoods[range(start - 1, len(tokens) - 1), ids[0, start:]].mean())


def test_means_are_those_of_all_logits_of_each_sequence_alone(asked):
    tokenizer, model_config, model = asked
    made = prompt_of(tokenizer, model_config, answers=ANSWERS)
    sequences = [
        one for text in TEXTS for one in made.with_answers(made.cut({"text": text})[0])
    ] * 3
    assert len({len(tokens) - start for tokens, start in sequences}) > 1  # tokens an answer
    found = mean_log_likelihoods(model, sequences, tokenizer.pad_token_id)
    expected = [direct(model, tokens, start) for tokens, start in sequences]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    one = mean_log_likelihoods(model, sequences[3:4], tokenizer.pad_token_id)
    np.testing.assert_allclose(one, expected[3:4], rtol=1e-5)
    assert mean_log_likelihoods(model, [], tokenizer.pad_token_id).shape == (0,)


# Classification


def recipe_of(task: Any, **columns: Any) -> schema.Recipe:
    return Recipe(
        model=Model(name_or_path="some-model"),
        task=task,
        data=Data(source=Source(builtin="reviews"), columns=Columns(**columns)),
        batch=Batch(max_seq_length=16),
    )


def labelled(answers: tuple[str, ...] = ANSWERS, prompt: str = PROMPT) -> ClassificationSettings:
    words = LabelPrompt(prompt=prompt, answers=answers)
    return ClassificationSettings(name="classification", zero_shot=words)


def classification(made: tuple[Any, Any, Any], settings: Any, **columns: Any) -> Classification:
    rows = datasets.Dataset.from_dict({"text": TEXTS[:2], "label": ["bad", "good"]})
    return Classification.build(recipe_of(settings, **columns), rows, made[0], made[1])


def prepared(task: Any, rows: datasets.Dataset, cache: Path) -> PreparedSplit:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRAINER_CACHE", str(cache))
        made = encode_once("split", lambda counted: task.encode(rows, counted), Summary("skip"))
    return PreparedSplit(made.columns, made.summary, rows)


def test_labels_go_by_length_normalised_likelihood_in_any_company(asked, tmp_path):
    _, _, model = asked
    made = classification(asked, labelled())
    texts = [TEXTS[0], "", *TEXTS[1:]]  # a bad row, after which rows and examples differ
    labels = ["good", "bad", "bad", "bad", "good", "bad"]
    rows = datasets.Dataset.from_dict({"text": texts, "label": labels})
    split = prepared(made, rows, tmp_path)
    assert split.array("row").tolist() == [0, 2, 3, 4, 5]
    shot = made.zero_shot
    assert isinstance(shot, LabelLikelihood)
    assert shot.sample(split).tolist() == [0, 1, 2, 3, 4]
    together = shot.answer(model, split, np.arange(5))
    assert [record["row"] for record in together] == [0, 2, 3, 4, 5]
    assert [record["label"] for record in together] == ["good", "bad", "bad", "good", "bad"]
    assert [record["truncated"] for record in together] == [False] * 4 + [True]
    for record, text in zip(together, TEXTS, strict=True):
        sequences = shot.prompt.with_answers(shot.prompt.cut({"text": text})[0])
        expected = [direct(model, tokens, start) for tokens, start in sequences]
        assert record["log_likelihoods"] == pytest.approx(expected, rel=1e-5)
        assert record["prediction"] == ("bad", "good")[int(np.argmax(expected))]
    alone = [shot.answer(model, split, np.array([index]))[0] for index in (4, 0, 2)]
    for record, index in zip(alone, (4, 0, 2), strict=True):
        near = pytest.approx(together[index]["log_likelihoods"], rel=1e-5)
        assert record == {**together[index], "log_likelihoods": near}
    metrics = shot.metrics(together)
    right = [record["label"] == record["prediction"] for record in together]
    assert metrics["accuracy"] == pytest.approx(np.mean(right))
    assert metrics["num_truncated"] == 1
    assert metrics.keys() <= {*made.metrics_offered, "per_class", "num_truncated"}
    assert json.dumps(metrics)


def test_pairs_fill_both_fields(llama, tmp_path):
    made = classification(
        llama, labelled(prompt="{text} {text_pair}?"), text="one", text_pair="other"
    )
    given = {"one": ["a film", "dull"], "other": ["it is", "bad"], "label": ["bad", "good"]}
    split = prepared(made, datasets.Dataset.from_dict(given), tmp_path)
    assert made.zero_shot is not None
    (record,) = made.zero_shot.answer(llama[2], split, np.array([1]))
    sequences = made.zero_shot.prompt.with_answers({"text": "dull", "text_pair": "bad"})
    expected = [direct(llama[2], tokens, start) for tokens, start in sequences]
    assert record["log_likelihoods"] == pytest.approx(expected, rel=1e-5)


# Questions

ROWS = [
    {
        "id": f"q{number}",
        "question": f"is it good {number}",
        "context": "a film that is long and good" if number % 3 else TEXTS[4],
        "answers": {"text": ["good"], "answer_start": [24]} if number % 3 else {
            "text": [], "answer_start": []
        },
    }
    for number in range(30)
]  # fmt: skip


def question_answering(made: tuple[Any, Any, Any], **settings: Any) -> QuestionAnswering:
    asking = GeneratedAnswerSettings(prompt="{context}\nQuestion: {question}\nAnswer:", **settings)
    task = QuestionAnsweringSettings(name="question_answering", stride=2, zero_shot=asking)
    recipe = recipe_of(task).model_copy(update={"batch": Batch(max_seq_length=40)})
    return QuestionAnswering.build(recipe, datasets.Dataset.from_list(ROWS), made[0], made[1])


def test_questions_are_asked_and_the_first_line_is_scored(llama, tmp_path):
    made = question_answering(llama, num_examples=6, max_new_tokens=5, no_answer="none")
    split = prepared(made, datasets.Dataset.from_list(ROWS), tmp_path)
    shot = made.zero_shot
    assert isinstance(shot, GeneratedAnswer)
    ids = shot.sample(split)
    assert ids.tolist() == [0, 5, 10, 15, 20, 25] == shot.sample(split).tolist()
    real = shot.answer(llama[2], split, ids)
    prompts: list[str] = []

    class Said:
        def generate(self, model: Any, tokens: list[np.ndarray]) -> list[str]:
            prompts.extend(llama[0].decode(one, skip_special_tokens=True) for one in tokens)
            assert all(len(one) <= NUM_POSITIONS - 5 for one in tokens)
            return ["None.", "good\nand more", " the Good ", "long", "", "none"]

    shot.generator = Said()  # type: ignore[assignment]
    records = shot.answer(llama[2], split, ids)
    assert [one["prediction"] for one in records] == ["", "good", "the Good", "long", "", ""]
    assert [one["no_answer_probability"] for one in records] == [1, 0, 0, 0, 1, 1]
    assert [one["answers"] for one in records] == [[] if i % 3 == 0 else ["good"] for i in ids]
    assert [one["truncated"] for one in records] == [int(i) % 3 == 0 for i in ids]
    for prompt, index in zip(prompts, ids, strict=True):
        assert prompt.endswith(f"Question: is it good {index}\nAnswer:")
    metrics = shot.metrics(records)
    # Rows 0 and 15 have no answer: the first is refused, the other answered "long". Of the others
    # two are right and two refused.
    assert (metrics["exact"], metrics["f1"]) == (pytest.approx(50), pytest.approx(50))
    assert (metrics["HasAns_exact"], metrics["NoAns_exact"]) == (50, 50)
    assert metrics["never_answer"] == pytest.approx(100 / 3)
    assert (metrics["total"], metrics["num_truncated"]) == (6, 2)
    assert not metrics.keys() & {"best_exact", "best_f1", "best_f1_thresh", "null_threshold"}
    assert [one["id"] for one in real] == [one["row"] for one in real] == ids.tolist()
    assert [one["group"] for one in real] == [0, 5, 5, 0, 5, 5]  # questions about one context
    assert all("\n" not in one["prediction"] for one in real)


def test_few_questions_are_all_asked(llama, tmp_path):
    made = question_answering(llama, num_examples=99, max_new_tokens=4)
    split = prepared(made, datasets.Dataset.from_list(ROWS), tmp_path)
    assert made.zero_shot is not None
    assert made.zero_shot.sample(split).tolist() == list(range(30))


# What is refused


@pytest.mark.parametrize(
    ("answers", "prompt", "key", "words"),
    [
        ((" a", " b", " c"), PROMPT, "answers", "3 answers for the 2 labels bad, good"),
        ((" a", " b"), "{text} {text_pair}", "prompt", "data.columns.text_pair, which is null"),
        ((" a", " b"), "{text}" + " words" * 60, "prompt", "the model has 48 positions"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_loaded(
    answers, prompt, key, words, llama
):
    with pytest.raises(ConfigError, match=words) as caught:
        classification(llama, labelled(answers, prompt))
    value = {"answers": answers, "prompt": prompt}[key]
    assert (caught.value.key, caught.value.value) == (f"task.zero_shot.{key}", value)


def test_answers_that_are_the_same_tokens_are_refused(llama):
    class OneWord:
        def __init__(self, tokenizer: Any) -> None:
            self.tokenizer = tokenizer

        def __getattr__(self, name: str) -> Any:
            return getattr(self.tokenizer, name)

        def __call__(self, texts: Any, **settings: Any) -> Any:
            replaced = [one.replace("rather good", "bad") for one in texts] if texts else texts
            return self.tokenizer(replaced, **settings)

    with pytest.raises(ConfigError, match="has the tokens of ' bad'") as caught:
        classification((OneWord(llama[0]), llama[1], None), labelled())
    assert caught.value.key == "task.zero_shot.answers"
    assert caught.value.value == " rather good"


@pytest.mark.parametrize("kind", ["bert", "roberta", "t5"])
def test_a_model_that_continues_no_text_is_refused(kind, llama):
    other = transformers.CONFIG_MAPPING[kind]()
    with pytest.raises(ConfigError) as caught:
        classification((llama[0], other, None), labelled())
    assert (caught.value.key, caught.value.value) == ("task.zero_shot", kind)
    assert caught.value.hint == "set task.zero_shot: null"


def test_random_weights_are_not_asked(llama):
    settings = labelled()
    recipe = recipe_of(settings)
    random = recipe.model.model_copy(update={"initialization": "random"})
    rows = datasets.Dataset.from_dict({"text": TEXTS[:2], "label": ["bad", "good"]})
    other = transformers.BertConfig()
    made = Classification.build(recipe.model_copy(update={"model": random}), rows, llama[0], other)
    assert made.zero_shot is None


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"prompt": "Review:"}, "prompt names no column; write one as {text} or {text_pair}"),
        (
            {"prompt": "{sentence}"},
            "names {sentence}, which does not exist here; write {text} or",
        ),
        ({"prompt": "{text!r}"}, "between braces"),
        ({"prompt": "{text"}, "prompt is not a template"),
        ({"answers": (" a", " a")}, "answers must differ"),
        ({"answers": (" a", " ")}, "each label needs a word"),
        ({"answers": (" a",)}, "at least 2"),
    ],
)
def test_label_words_that_cannot_be_right(values, part):
    with pytest.raises(ValidationError) as error:
        LabelPrompt.model_validate({"prompt": PROMPT, "answers": ANSWERS} | values)
    assert part in str(error.value)


def test_answers_are_as_many_as_labels():
    words = LabelPrompt(prompt=PROMPT, answers=ANSWERS)
    with pytest.raises(ValidationError, match="2 answers for 3 labels"):
        ClassificationSettings(name="classification", labels=("a", "b", "c"), zero_shot=words)


def test_questions_have_their_own_fields():
    with pytest.raises(ValidationError, match=r"write \{context\} or \{question\}"):
        GeneratedAnswerSettings(prompt="{text}")
