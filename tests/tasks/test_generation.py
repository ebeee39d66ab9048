"""Generation: a prompt gets the text that it alone would get, and what is asked of an example."""

import copy
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trainer.data.encoded import PreparedSplit, Ragged, Summary, encode_once
from trainer.recipe.data import Data, Source
from trainer.recipe.model import Model
from trainer.recipe.training import Batch
from trainer.tasks.causal_lm.settings import CausalLMSettings
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.generation.generator import BATCH, Generator, examples, first_answers
from trainer.tasks.generation.settings import GenerationSettings
from trainer.tasks.recipe import Recipe

NUM_WORDS = 40
PAD, END = NUM_WORDS, NUM_WORDS + 1
NUM_POSITIONS = 48
SIZES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": NUM_POSITIONS,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": NUM_POSITIONS},
}
CHAT = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A tokenizer of words w0, w1 and so on, some others, padding and an end."""
    words = {f"w{number}": number for number in range(NUM_WORDS - 4)}
    words |= {"user": NUM_WORDS - 4, "assistant": NUM_WORDS - 3, "?": NUM_WORDS - 2, "<unk>": 39}
    backend = Tokenizer(models.WordLevel(words | {"<pad>": PAD, "<end>": END}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )
    made.chat_template = CHAT
    return made


@pytest.fixture(scope="module", params=SIZES)
def model(request: pytest.FixtureRequest) -> Any:
    """A random model, sure of its words, that says the end now and then."""
    settings = transformers.CONFIG_MAPPING[request.param](
        vocab_size=NUM_WORDS + 2,
        initializer_range=0.5,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
        tie_word_embeddings=False,
        **SIZES[request.param],
    )
    torch.manual_seed(3)
    made = transformers.AutoModelForCausalLM.from_config(settings).eval()
    with torch.no_grad():
        made.get_output_embeddings().weight[END] *= 1.6
    return made


def generator(
    tokenizer: Any, num_new: int, num_positions: int | None = NUM_POSITIONS, **others: Any
) -> Generator:
    return Generator(GenerationSettings(max_new_tokens=num_new), tokenizer, num_positions, **others)


def prompts(*lengths: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.integers(0, NUM_WORDS, size).astype(np.int32) for size in lengths]


@torch.no_grad()
def continued(
    model: Any, prompt: np.ndarray, num_new: int, ends: tuple[int, ...] = (END,)
) -> list[int]:
    """Returns the likeliest tokens one by one, without padding or cache, up to an end."""
    tokens = prompt.tolist()
    while len(tokens) < min(len(prompt) + num_new, NUM_POSITIONS):
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
        tokens.append(int(logits.argmax()))
        if tokens[-1] in ends:
            break
    return tokens[len(prompt) :]


def test_each_prompt_of_a_batch_is_continued_as_if_it_were_alone(model, tokenizer):
    random = np.random.default_rng(2)
    asked = prompts(*random.integers(1, 30, 2 * BATCH + 3).tolist())
    alone = [continued(model, prompt, 10) for prompt in asked]
    ended = [tokens[-1] == END for tokens in alone]
    assert any(ended)
    assert not all(ended)
    assert len({len(tokens) for tokens in alone}) > 2  # they end at different places
    texts = generator(tokenizer, 10).generate(model, asked)
    assert texts == [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in alone]
    assert "<end>" not in "".join(texts)
    assert "<pad>" not in "".join(texts)
    order = random.permutation(len(asked))
    again = generator(tokenizer, 10).generate(model, [asked[index] for index in order])
    assert again == [texts[index] for index in order]


def test_a_long_prompt_takes_no_room_from_others_in_its_batch(model, tokenizer):
    asked = prompts(3, NUM_POSITIONS - 1, 5, NUM_POSITIONS, NUM_POSITIONS - 4, NUM_POSITIONS + 9, 4)
    texts = generator(tokenizer, 8).generate(model, asked)
    alone = [continued(model, prompt, 8) for prompt in asked]
    assert texts == [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in alone]
    assert texts[3] == texts[5] == ""  # no position is left
    assert len(alone[1]) == 1
    assert max(len(tokens) for tokens in alone) > 4


def test_no_more_tokens_are_made_than_asked_for(model, tokenizer):
    for num_new in (1, 3):
        texts = generator(tokenizer, num_new).generate(model, prompts(4, 6, 9))
        assert all(text.count("w") <= num_new for text in texts)
    assert generator(tokenizer, 4).generate(model, []) == []


@pytest.mark.parametrize("model", ["llama"], indirect=True)  # those of a GPT-2 are a table
def test_a_model_without_a_limit_of_positions_generates_all(tokenizer, model):
    asked = prompts(NUM_POSITIONS - 2)
    limited = generator(tokenizer, 12).generate(model, asked)[0]
    free = generator(tokenizer, 12, None).generate(model, asked)[0]
    assert free.startswith(limited)


# PEFT before 0.20 takes any output layer for a tied one.
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_what_a_model_was_published_with_does_not_change_its_likeliest_tokens(model, tokenizer):
    asked = prompts(4, 6, 9, 12)
    alone = [tokenizer.decode(continued(model, one, 10), skip_special_tokens=True) for one in asked]
    own = model.generation_config
    model.generation_config = transformers.GenerationConfig(
        repetition_penalty=9.0,
        num_beams=3,
        no_repeat_ngram_size=1,
        suppress_tokens=list(range(20)),
        eos_token_id=[END, 5],  # a word of this tokenizer
    )
    published = model.generation_config.to_dict()
    try:
        names = [name for name, one in model.named_modules() if type(one) is torch.nn.Linear]
        adapters = LoraConfig(r=2, target_modules=names)
        for one in (model, get_peft_model(copy.deepcopy(model), adapters).eval()):
            assert generator(tokenizer, 10).generate(one, asked) == alone
            assert one.generation_config.to_dict() == published
    finally:
        model.generation_config = own


def test_an_answer_ends_where_its_turn_or_the_model_says(model, tokenizer):
    asked = prompts(*range(3, 23))
    unknown = tokenizer.unk_token_id
    free = [continued(model, prompt, 12) for prompt in asked]
    turn_end = next(token for tokens in free for token in tokens[1:-1] if token < unknown)
    expected = [continued(model, one, 12, ends=(END, turn_end, unknown)) for one in asked]
    assert any(tokens[-1] == turn_end for tokens in expected)
    own = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [END, unknown]
    try:
        texts = generator(tokenizer, 12, turn_end=[turn_end]).generate(model, asked)
    finally:
        model.generation_config.eos_token_id = own
    assert texts == [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in expected]


def test_generation_leaves_the_model_as_it_was(model, tokenizer):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    generator(tokenizer, 4).generate(model, prompts(4, 6))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not model.training
    assert not any(weight.grad is not None for weight in model.parameters())


# What is asked


def split_of(**columns: list[list[int]]) -> PreparedSplit:
    def ragged(entries: list[list[int]]) -> Ragged:
        values = np.array([value for entry in entries for value in entry], np.int32)
        return Ragged(values, np.cumsum([0, *map(len, entries)]))

    return PreparedSplit({name: ragged(entries) for name, entries in columns.items()}, Summary())


@pytest.mark.parametrize(
    ("learned", "prompt", "answer"),
    [
        ([0, 0, 0, 1, 1, 1], [10, 11, 12], [13, 14, 15]),
        ([0, 0, 1, 1, 0, 1], [10, 11], [12, 13]),
        ([0, 1, 0, 0, 1, 1], [10], [11]),
        ([0, 0, 0, 0, 0, 1], [10, 11, 12, 13, 14], [15]),
    ],
    ids=["one answer", "several turns", "one token", "cut"],
)
def test_the_first_answer_is_the_first_run_of_learned_tokens(learned, prompt, answer):
    split = split_of(input_ids=[[1, 2], list(range(10, 16))], learned=[[0, 1], learned])
    assert first_answer(split, 1) == (prompt, answer)


def test_each_example_of_a_packed_sequence_can_be_asked():
    split = split_of(
        input_ids=[list(range(10, 17)), [20, 21]],
        learned=[[0, 0, 1, 1, 0, 1, 1], [0, 1]],
        position_ids=[[0, 1, 2, 3, 0, 1, 2], [0, 1]],
    )
    assert examples(split).tolist() == [0, 4, 7, 9]
    assert [first_answer(split, index) for index in range(3)] == [
        ([10, 11], [12, 13]),
        ([14], [15, 16]),
        ([20], [21]),
    ]


def first_answer(split: PreparedSplit, index: int) -> tuple[list[int], list[int]]:
    ((_, prompt, answer),) = first_answers(split, np.array([index]))
    return prompt.tolist(), answer.tolist()


def task(tokenizer: Any, **settings: Any) -> CausalLM:
    recipe = Recipe(
        model=Model(name_or_path="llama"),
        task=CausalLMSettings(name="causal_lm", **settings),
        data=Data(source=Source(builtin="instructions")),
        batch=Batch(max_seq_length=30),
    )
    empty = datasets.Dataset.from_dict({})
    numbers = transformers.LlamaConfig(max_position_embeddings=NUM_POSITIONS)
    return CausalLM.build(recipe, empty, tokenizer, numbers)


ROWS = [
    {"q": f"w{number} w{number % 7}" + " w3" * (number % 5), "a": "w1 w2" + " w5" * (number % 3)}
    for number in range(24)
]


@pytest.fixture
def cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path))


def prepared(made: CausalLM, rows: list[dict[str, Any]]) -> PreparedSplit:
    given = datasets.Dataset.from_list(rows)
    return encode_once("split", lambda summary: made.encode(given, summary))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("packing", [False, True])
def test_a_model_is_asked_what_the_rows_ask(model, tokenizer, packing):
    generation = GenerationSettings(num_examples=5, max_new_tokens=6)
    templates = {"prompt": "{q} ?", "completion": "{a}"}
    made = task(tokenizer, packing=packing, generation=generation, **templates)
    split = prepared(made, ROWS)
    assert (len(split) < len(ROWS)) == packing
    ids = made.sample(split)
    assert len(set(ids.tolist())) == len(ids) == 5
    assert made.sample(split).tolist() == ids.tolist()
    answers = {str(tokenizer(f"{row['q']} ?")["input_ids"]): row["a"] for row in ROWS}
    records = made.generate(model, split, ids)
    assert [record["id"] for record in records] == ids.tolist()
    for record in records:
        prompt, _ = first_answer(split, record["id"])
        assert record["reference"] == answers[str(prompt)].replace(" ", "")
        assert record["prompt"] == tokenizer.decode(prompt)
        expected = continued(model, np.array(prompt), 6)
        assert record["prediction"] == tokenizer.decode(expected, skip_special_tokens=True)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("packing", [False, True])
def test_all_examples_are_asked_where_as_many_are_wanted(model, tokenizer, packing):
    generation = GenerationSettings(num_examples=len(ROWS), max_new_tokens=1)
    made = task(tokenizer, packing=packing, generation=generation, prompt="{q} ?", completion="{a}")
    split = prepared(made, ROWS)
    records = made.generate(model, split, made.sample(split))
    found = sorted((record["prompt"], record["reference"]) for record in records)
    rows = [(f"{row['q']} ?".replace(" ", ""), row["a"].replace(" ", "")) for row in ROWS]
    assert found == sorted(rows)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("packing", "bad"), [(False, False), (False, True), (True, False)])
def test_an_answer_names_its_row_unless_rows_were_packed_or_skipped(model, tokenizer, packing, bad):
    generation = GenerationSettings(num_examples=3, max_new_tokens=1)
    made = task(tokenizer, packing=packing, generation=generation, prompt="{q} ?", completion="{a}")
    rows = datasets.Dataset.from_list([*ROWS, *[{**ROWS[0], "a": ""}] * bad])
    made_of = encode_once("split", lambda counted: made.encode(rows, counted), Summary("skip"))
    split = PreparedSplit(made_of.columns, made_of.summary, rows)
    records = made.generate(model, split, made.sample(split))
    found = [record.get("row") for record in records]
    ids = [record["id"] for record in records]
    assert found == ([None] * 3 if packing or bad else ids)
    assert all(row is None or ROWS[row]["a"].replace(" ", "") == record["reference"]
               for row, record in zip(found, records, strict=True))  # fmt: skip


@pytest.mark.usefixtures("cache")
def test_of_a_conversation_the_first_answer_is_asked(model, tokenizer):
    made = task(tokenizer, chat=True, generation=GenerationSettings(max_new_tokens=4))
    turns = [("user", "w1 w2"), ("assistant", "w3"), ("user", "w4"), ("assistant", "w5 w6")]
    messages = [{"role": role, "content": content} for role, content in turns]
    split = prepared(made, [{"messages": messages}])
    asked = tokenizer.apply_chat_template(
        messages[:1], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    prompt, answer = first_answer(split, 0)
    assert prompt == asked
    assert tokenizer.convert_ids_to_tokens(answer) == ["w3", "<end>"]
    record = made.generate(model, split, np.array([0]))[0]
    assert record["reference"] == "w3"
    assert record["prompt"] == "userw1w2assistant"


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (CHAT, [END, END]),
        (CHAT.replace(" <end>", " <unk>"), [END, 39]),  # a token of the turn, as in ChatML
        (CHAT.replace(" <end>", " <unk> <end>"), [END, 39]),
        (CHAT.replace(" <end>", " w1"), [END]),
        ("{{ raise_exception('no') }}", [END]),
    ],
)
def test_an_answer_ends_with_the_end_of_its_turn(tokenizer, template, ends):
    tokenizer.chat_template = template
    try:
        assert task(tokenizer, chat=True).generator.ends == ends
    finally:
        tokenizer.chat_template = CHAT


@pytest.mark.usefixtures("cache")
def test_nothing_is_asked_of_running_text_or_where_a_recipe_wants_none(tokenizer):
    text = task(tokenizer)
    split = prepared(text, [{"text": "w1 w2 w3 w4"}])
    assert text.sample(split).tolist() == []
    assert text.generate(None, split, text.sample(split)) == []
    none = GenerationSettings(num_examples=0)
    made = task(tokenizer, prompt="{q}", completion="{a}", generation=none)
    assert made.sample(split).tolist() == []
    assert "bleu" not in made.metrics_offered
