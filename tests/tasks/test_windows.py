"""Windows: every token of a context, where its characters are, and the answer among them."""

from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertGenerationConfig,
    LlamaConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
)

from trainer.data.encoded import Summary
from trainer.errors import ConfigError, DataError
from trainer.models.decoder import is_decoder
from trainer.models.tokenizers.special_tokens import TextTokenizer
from trainer.recipe.data import Columns, Data, Source
from trainer.recipe.model import Model
from trainer.tasks.question_answering.settings import QuestionAnsweringSettings
from trainer.tasks.question_answering.task import QuestionAnswering
from trainer.tasks.question_answering.windows import MIN_NEW_CONTEXT, PairTemplate, cut, tokenize
from trainer.tasks.recipe import Recipe

STRIDES = pytest.mark.skipif(
    Version(tokenizers.__version__) < Version("0.23.3"),
    reason="tokenizers before 0.23.3 stops reading a text once it has one window, and so loses "
    "the windows after it",
)
CONTEXT = (
    "Zoë Ødegård met Łucja in the  Café «Ålesund» of 東京 at 12:30, \t where 1,234 people drank "
    "tea; naïve as it is, the e\u0301tude of José was heard from Čelik's room. It wasn't her 1st "
    "😀 visit, said Müller-Nguyễn (of Gävlund), and the ship ‘Brave Petrel’ sank in 1887 off Nørby."
)
FEATURES = datasets.Features(
    {
        **dict.fromkeys(("id", "context", "question"), datasets.Value("string")),
        "answers": {
            "text": datasets.List(datasets.Value("string")),
            "answer_start": datasets.List(datasets.Value("int32")),
        },
    }
)


def row(number: int = 1, *answers: str | tuple[str, int], **values: Any) -> dict[str, Any]:
    """Returns a row as the hub has them; an answer's start is where it first occurs."""
    context = values.get("context", CONTEXT)
    pairs = [(one, context.index(one)) if isinstance(one, str) else one for one in answers]
    given = {"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]}
    question = f"Who met Łucja, number {number}?"
    made = {"id": f"q{number}", "context": context, "question": question, "answers": given}
    return made | values


@pytest.fixture(scope="module", params=["wordpiece", "bpe"])
def tokenizer(request: pytest.FixtureRequest, trained_tokenizer: Any) -> Any:
    """A tokenizer that cuts words in pieces and lower-cases, or one of bytes with their spaces."""
    texts = [CONTEXT, *(row(n)["question"] for n in range(10))]
    made = trained_tokenizer(request.param, 340, texts)
    types = ["token_type_ids"] if request.param == "wordpiece" else []
    made.model_input_names = ["input_ids", *types, "attention_mask"]
    return made


def task(
    tokenizer: Any, length: int = 64, *, is_decoder: bool = False, **settings: Any
) -> QuestionAnswering:
    return QuestionAnswering(
        QuestionAnsweringSettings(name="question_answering", **{"stride": 12, **settings}),
        columns=Columns(),
        tokenizer=tokenizer,
        max_seq_length=length,
        is_decoder=is_decoder,
    )


def encode(
    made: QuestionAnswering, *rows: dict[str, Any], summary: Summary | None = None
) -> list[dict[str, Any]]:
    """Returns the windows of some rows, each with all its columns."""
    windows: list[dict[str, Any]] = []
    data = datasets.Dataset.from_list(list(rows), features=FEATURES)
    for columns in made.encode(data, summary or Summary()):
        windows += [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
    return windows


def context_tokens(window: dict[str, Any]) -> list[int]:
    start = window["context_start"]
    return window["input_ids"][start : start + len(window["token_starts"])]


@pytest.mark.parametrize("is_decoder", [False, True])
@pytest.mark.parametrize(("length", "stride"), [(64, 12), (48, 20), (400, 12)])
def test_windows_cover_every_token_and_neighbours_share_the_stride(
    tokenizer, length, stride, is_decoder
):
    windows = encode(task(tokenizer, length, is_decoder=is_decoder, stride=stride), row())
    whole = tokenizer(CONTEXT, add_special_tokens=False, return_offsets_mapping=True)
    assert len(windows) > 1 or length == 400
    tokens, offsets = list[int](), list[tuple[int, int]]()
    for window in windows:
        assert len(window["input_ids"]) <= length
        shared = stride if tokens else 0
        part = list(zip(window["token_starts"], window["token_ends"], strict=True))
        assert len(part) > shared
        assert tokens[len(tokens) - shared :] == context_tokens(window)[:shared]
        tokens += context_tokens(window)[shared:]
        offsets += part[shared:]
    assert tokens == whole["input_ids"]
    assert offsets == whole["offset_mapping"]


def test_offsets_give_back_the_text(tokenizer):
    read = tokenize(TextTokenizer(tokenizer), [CONTEXT])[CONTEXT]
    covered = np.zeros(len(CONTEXT), bool)
    for start, end in zip(read.starts, read.ends, strict=True):
        covered[start:end] = True
    missed = "".join(np.array(list(CONTEXT))[~covered])
    assert missed.strip() in ("", "\u0301")  # an accent that the lower-casing tokenizer drops


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(48, marks=STRIDES),
        pytest.param(64, marks=STRIDES),
        400,  # one window
    ],
)
def test_windows_are_those_that_the_tokenizer_itself_makes(tokenizer, length):
    windows = encode(task(tokenizer, length), row())
    expected = tokenizer(
        row()["question"],
        CONTEXT,
        truncation="only_second",
        max_length=length,
        stride=12,
        return_overflowing_tokens=True,
    )
    assert [window["input_ids"] for window in windows] == expected["input_ids"]
    if "token_type_ids" in expected:
        assert [one["token_type_ids"] for one in windows] == expected["token_type_ids"]
    else:
        assert all("token_type_ids" not in window for window in windows)


@given(st.data())
def test_the_target_is_the_shortest_span_that_covers_the_answer(tokenizer, data):
    start = data.draw(st.integers(0, len(CONTEXT) - 1))
    end = data.draw(st.integers(start + 1, min(start + 30, len(CONTEXT))))
    answer = CONTEXT[start:end]
    if not answer.strip(" \t\u0301"):
        return
    windows = encode(task(tokenizer), row(1, (answer, start)))
    marked = np.zeros(len(CONTEXT), bool)
    for window in windows:
        if window["start"] == window["null"]:
            assert window["end"] == window["null"]
            continue
        first, last = (window[name] - window["context_start"] for name in ("start", "end"))
        starts, ends = window["token_starts"], window["token_ends"]
        outside = CONTEXT[start : starts[first]] + CONTEXT[ends[last] : end]
        assert not outside.strip(" \t\u0301")
        assert ends[first] > start
        assert starts[last] < end
        marked[starts[first] : ends[last]] = True
    whole = tokenize(TextTokenizer(tokenizer), [CONTEXT])[CONTEXT].span(start, end)
    assert whole is not None
    if whole[1] - whole[0] < 12:  # as many tokens as windows share lie in one of them
        assert marked.any()


@pytest.mark.parametrize("is_decoder", [False, True])
def test_windows_without_the_whole_answer_point_at_no_answer(tokenizer, is_decoder):
    made = task(tokenizer, is_decoder=is_decoder)
    windows = encode(made, row(1, "1887"))
    assert len(windows) > 1
    for window in windows:
        null = len(window["input_ids"]) - 1 if is_decoder else 0
        assert window["null"] == null
        text = CONTEXT[window["token_starts"][0] : window["token_ends"][-1]]
        if "1887" in text:
            first, last = (window[name] - window["context_start"] for name in ("start", "end"))
            found = CONTEXT[window["token_starts"][first] : window["token_ends"][last]]
            assert found.strip() == "1887"
        else:
            assert window["start"] == window["end"] == null
    assert "1887" not in CONTEXT[: windows[0]["token_ends"][-1]]
    assert any(window["start"] != window["null"] for window in windows)
    unanswered = encode(made, row(1))
    assert all(one["start"] == one["end"] == one["null"] for one in unanswered)


def test_the_first_of_several_answers_is_the_target(tokenizer):
    assert encode(task(tokenizer), row(1, "Zoë", "Łucja")) == encode(task(tokenizer), row(1, "Zoë"))


def bytes_tokenizer(**special: str) -> Any:
    """A tokenizer that puts nothing around texts, as GPT-2's and Phi's."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {token: index for index, token in enumerate([*sorted(alphabet), "<end>", "<pad>"])}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", **special)


@pytest.mark.parametrize("special", [{"eos_token": "<end>"}, {"sep_token": "<end>"}])
def test_a_decoder_gets_an_end_where_its_tokenizer_has_none(special):
    plain = bytes_tokenizer(**special)
    end = plain.convert_tokens_to_ids("<end>")
    assert PairTemplate.of(plain, is_decoder=False).after == ()
    window, *_ = encode(task(plain, 128, is_decoder=True), row(1, context="It was Zoë."))
    assert window["input_ids"][-1] == end
    assert end not in window["input_ids"][:-1]
    assert window["null"] == window["start"] == len(window["input_ids"]) - 1


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ConfigError) as caught:
        PairTemplate.of(Slow(), is_decoder=False)
    assert (caught.value.key, caught.value.value) == ("model.tokenizer", "Slow")
    assert "tokenizer.json" in (caught.value.hint or "")


def test_decoders_are_told_from_encoders():
    assert [is_decoder(kind()) for kind in (LlamaConfig, PhiConfig)] == [True, True]
    assert [is_decoder(kind()) for kind in (BertConfig, RobertaConfig)] == [False, False]
    assert is_decoder(BertConfig(is_decoder=True))
    assert not is_decoder(BertGenerationConfig())
    assert not is_decoder(T5Config())


@given(st.integers(1, 300), st.integers(2, 60), st.data())
def test_cuts_reach_the_end_once(length, room, data):
    stride = data.draw(st.integers(0, room - 1))
    parts = list(cut(length, room, stride))
    assert parts[0][0] == 0
    assert [end for _, end in parts].count(length) == 1 == (parts[-1][1] == length)
    assert all(end - start == room for start, end in parts[:-1])
    assert all(before[1] - after[0] == stride for before, after in pairwise(parts))


# Bad rows


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (row(2, ("Zoe", 0)), r"the answer 'Zoe' is not at character 0 .* has 'Zoë' there"),
        (row(2, "Zoë", ("Łucja", 15)), "the answer 'Łucja' is not at character 15"),
        (row(2, ("Zoë", -1)), "the answer 'Zoë' is not at character -1"),
        (row(2, ("Zoë", 5000)), "the answer 'Zoë' is not at character 5000"),
        (row(2, (" ", 3)), "an answer is empty"),
        (
            row(2, answers={"text": ["Zoë"], "answer_start": []}),
            "the answers are not texts with an answer_start",
        ),
        (row(2, answers=None), "it has no answers; give them, or an empty list"),
        (row(2, context="  "), "the context is empty"),
        (row(2, context=None), "the context is empty"),
        (row(2, question=""), "the question is empty"),
        (row(2, id="q1"), "row 1 has the same id"),
        (row(2, question="Who? " * 60), r"the question has \d+ tokens, .*leaves 0 of .*stride"),
    ],
)
def test_a_bad_row_is_named_with_its_id(tokenizer, bad, sentence):
    with pytest.raises(DataError, match=rf"^row 2 \(id {bad['id']}\): {sentence}"):
        encode(task(tokenizer), row(1, "Zoë"), bad)


@pytest.mark.parametrize("name", [None, "", " "])
def test_a_row_without_an_id_is_named(tokenizer, name):
    with pytest.raises(DataError, match="row 2 has no id"):
        encode(task(tokenizer), row(1), row(2, id=name))


def test_an_answer_that_gives_no_token_is_named(trained_tokenizer):
    made = task(trained_tokenizer("wordpiece", 200, ["one two"]))
    with pytest.raises(DataError, match=r"row 1 \(id q1\): the answer .* gives no token"):
        encode(made, row(1, "\u0301", context="one \u0301 two"))
    with pytest.raises(DataError, match=r"row 1 \(id q1\): the context gives no token"):
        encode(made, row(1, context="\u0301"))


def test_a_long_question_is_no_problem_beside_a_short_context(tokenizer):
    asked = "Who was it? " * 4
    length = len(tokenizer(asked, "Zoë.")["input_ids"])
    assert len(encode(task(tokenizer, length), row(1, question=asked, context="Zoë."))) == 1
    with pytest.raises(DataError, match=f"and {MIN_NEW_CONTEXT} are needed"):
        encode(task(tokenizer, length), row(1, question=asked))


def test_the_stride_is_a_third_of_a_sequence_where_a_recipe_does_not_say(tokenizer):
    assert [task(tokenizer, length, stride="auto").stride for length in (48, 384, 999)] == [
        *(16, 128, 128)
    ]
    windows = encode(task(tokenizer, 48, stride="auto"), row())
    assert len(windows) > 2
    assert windows[0]["token_starts"][-16:] == windows[1]["token_starts"][:16]


def test_skipped_rows_keep_the_places_of_the_others(tokenizer):
    summary = Summary("skip")
    rows = [row(1, ("no", 0)), row(2, "Zoë"), row(3, question=" "), row(4)]
    windows = encode(task(tokenizer), *rows, summary=summary)
    assert {window["row"] for window in windows} == {1, 3}
    assert summary.num_skipped == 2
    assert summary.first_skipped.startswith("row 1 (id q1): the answer 'no'")


def test_texts_are_questions_and_each_context_once():
    recipe = Recipe(
        model=Model(name_or_path="bert"),
        task=QuestionAnsweringSettings(name="question_answering"),
        data=Data(source=Source(builtin="passages")),
    )
    rows = [row(1), row(2, context="Other."), row(3)]
    data = datasets.Dataset.from_list(rows, features=FEATURES)
    texts = list(QuestionAnswering.texts(recipe, data))
    assert sorted(texts) == sorted([CONTEXT, "Other.", *(one["question"] for one in rows)])


def test_a_column_that_holds_no_texts_gives_none():
    recipe = Recipe(
        model=Model(name_or_path="bert"),
        task=QuestionAnsweringSettings(name="question_answering"),
        data=Data(source=Source(builtin="passages")),
    )
    data = datasets.Dataset.from_list([{"question": "Who?", "context": {"body": "Zoë."}}])
    assert list(QuestionAnswering.texts(recipe, data)) == ["Who?"]


def test_the_tokenizer_that_is_exported_is_left_as_it_was(tokenizer):
    before = tokenizer.backend_tokenizer.to_str()
    encode(task(tokenizer), row(1, "Zoë"))
    assert tokenizer.backend_tokenizer.to_str() == before
