"""Prompts: which tokens an example has, and which of them are learned."""

import copy
import json
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from trainer.data.encoded import Summary
from trainer.errors import ConfigError, DataError
from trainer.models.tokenizers.special_tokens import TextTokenizer
from trainer.recipe.data import Columns, Data, Source
from trainer.recipe.model import Model
from trainer.recipe.training import Batch
from trainer.tasks.causal_lm.settings import CausalLMSettings
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.generation.prompts import Prompts, boundaries, whole_texts
from trainer.tasks.recipe import Recipe

TEXTS = ["Question: what is the capital of France? Answer: Paris is the capital of France.\n"] * 4
ANSWER = "Paris is it."

CHAT = (
    "<s>{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
NO_OLD_THOUGHTS = CHAT.replace(  # the last answer is not as it is once more messages follow
    "</s>", "{% if loop.last and not add_generation_prompt %}<thought>{% endif %}</s>"
)
OPENS_A_THOUGHT = CHAT.replace("<assistant>", "<assistant><thought>")
ONLY_THE_LAST = CHAT.replace("in messages", "in messages[-2:]")
IN_TURNS = CHAT.replace(
    "<{{",
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<{{",
)


def byte_level(begin: str | None, **special: str) -> Any:
    """Returns a tokenizer of bytes, as GPT-2's and Llama 3's; `begin` stands before a text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    learn = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, learn)
    if begin is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, backend.token_to_id(begin))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", **special)


@pytest.fixture(scope="module")
def llama() -> Any:
    made = byte_level("<s>", bos_token="<s>", eos_token="</s>")
    made.chat_template = CHAT
    return made


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return byte_level(None, eos_token="</s>")


@pytest.fixture(scope="module")
def bert(trained_tokenizer: Any) -> Any:
    return trained_tokenizer("bpe", 330, TEXTS)


class Rows(Prompts):
    def row(self, values: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Returns the tokens of a row and which are learned; raises what is wrong with it."""
        (made,) = self.encode([self.texts(values, Summary())])
        if isinstance(made, DataError):
            raise made
        return made


def prompts(tokenizer: Any, prompt: str = "{q}\n", completion: str = "{a}") -> Rows:
    settings = CausalLMSettings(name="causal_lm", prompt=prompt, completion=completion)
    return Rows(settings, Columns(), tokenizer)


def chat(tokenizer: Any, template: str = CHAT, column: str = "messages") -> Rows:
    tokenizer.chat_template = template
    settings = CausalLMSettings(name="causal_lm", chat=True)
    return Rows(settings, Columns(messages=column), tokenizer)


def parts(tokenizer: Any, encoded: tuple[list[int], list[int]]) -> list[tuple[str, bool]]:
    """Returns the text of each run of tokens, and whether it is learned."""
    found = list[tuple[list[int], int]]()
    for token, flag in zip(*encoded, strict=True):
        if not found or found[-1][1] != flag:
            found.append(([], flag))
        found[-1][0].append(token)
    return [(tokenizer.decode(ids), bool(flag)) for ids, flag in found]


# Templates


@pytest.mark.parametrize(
    ("prompt", "completion", "row", "expected"),
    [
        ("{q}\n", "{a}", {"q": "what", "a": "Paris"}, ["<s>what\n", "Paris</s>"]),
        ("{q} {c}:", "{a}", {"q": "what", "c": None, "a": "Paris"}, ["<s>what :", "Paris</s>"]),
        ("{{{q}}}", "{{}}{a}", {"q": "what", "a": "Paris"}, ["<s>{what}", "{}Paris</s>"]),
        ("{a.q}?", "{a.b.c}", {"a.q": "what", "a.b.c": "Paris"}, ["<s>what?", "Paris</s>"]),
        ("{q}", "{a}", {"q": 1, "a": 2.5}, ["<s>1", "2.5</s>"]),
        ("{q}", "{q}{q}", {"q": "what"}, ["<s>what", "whatwhat</s>"]),
        ("{q}", "{a}", {"q": "{a}", "a": "{q!r:>9}"}, ["<s>{a}", "{q!r:>9}</s>"]),
        ("{q}", "{a}", {"q": "", "a": "Paris"}, ["<s>", "Paris</s>"]),
    ],
    ids=["plain", "missing", "braces", "dots", "numbers", "repeated", "braces in values", "empty"],
)
def test_a_template_is_filled_and_only_the_completion_is_learned(
    llama, prompt, completion, row, expected
):
    made = prompts(llama, prompt, completion)
    assert made.columns(list(row)) == list(row)
    assert parts(llama, made.row(row)) == [(expected[0], False), (expected[1], True)]


@pytest.mark.parametrize("answer", ["", "  ", "\n", None])
def test_an_empty_completion_is_refused(llama, answer):
    with pytest.raises(DataError, match="the completion is empty; fix or remove the row"):
        prompts(llama).row({"q": "what", "a": answer})


def test_the_end_is_learned_and_the_beginning_never(llama, gpt2, bert):
    for tokenizer, begin, end in (
        (llama, [llama.bos_token_id], llama.eos_token_id),
        (gpt2, [], gpt2.eos_token_id),
        (bert, [bert.cls_token_id], bert.sep_token_id),
    ):
        tokens, flags = prompts(tokenizer).row({"q": "what", "a": ANSWER})
        assert boundaries(tokenizer) == (begin, [end])
        assert tokens[: len(begin)] == begin
        assert (tokens[-1], flags[-1]) == (end, 1)
        assert tokens.count(end) == 1
        assert flags[0] == 0
        tokens, flags = prompts(tokenizer).row({"q": "", "a": ANSWER})
        assert flags[0] == 0
        prompt = tokenizer("\n", add_special_tokens=False)["input_ids"]
        assert flags == [0] * len([*begin, *prompt]) + [1] * (len(flags) - len(begin) - len(prompt))


def test_without_a_prompt_or_beginning_the_first_token_is_given(gpt2):
    tokens, flags = prompts(gpt2, "{q}").row({"q": None, "a": ANSWER})
    assert flags == [0] + [1] * (len(tokens) - 1)


def test_an_answer_without_tokens_is_refused():
    tokenizer = byte_level(None)  # and no token for an end
    assert boundaries(tokenizer) == ([], [])
    with pytest.raises(DataError, match="the answer has no tokens"):
        prompts(tokenizer, "{q}").row({"q": "", "a": "a"})  # the first is given


@given(
    question=st.text("what is?\n ", max_size=20),
    answer=st.text("Paris is\n .", max_size=20).filter(str.strip),
)
def test_a_prompt_has_the_tokens_that_it_has_when_a_model_is_asked(llama, question, answer):
    tokens, flags = prompts(llama, "{q}:").row({"q": question, "a": answer})
    asked = llama(f"{question}:")["input_ids"]
    assert tokens[: flags.index(1)] == asked
    assert tokens[flags.index(1) :] == [
        *llama(answer, add_special_tokens=False)["input_ids"],
        llama.eos_token_id,
    ]


def test_tokens_do_not_join_across_the_answer(llama):
    joined = llama("what is the capital", add_special_tokens=False)["input_ids"]
    tokens, flags = prompts(llama, "{q}", "{a}").row({"q": "what is the cap", "a": "ital"})
    assert llama.decode(tokens[1:-1]) == llama.decode(joined)
    assert tokens[1:-1] != joined  # in which a token reaches over the cut
    assert tokens[: flags.index(1)] == llama("what is the cap")["input_ids"]


def test_whole_texts_have_a_beginning_and_an_end(llama, gpt2, bert):
    for tokenizer, first in ((llama, "<s>"), (gpt2, ""), (bert, "[CLS]")):
        end = tokenizer.eos_token or tokenizer.sep_token
        found = [
            tokenizer.decode(ids)
            for ids in whole_texts(TextTokenizer(tokenizer), ["what", "is it"])
        ]
        assert [text.replace(" ", "") for text in found] == [
            f"{first}what{end}",
            f"{first}isit{end}",
        ]
        assert whole_texts(TextTokenizer(tokenizer), []) == []


# Chat


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_only_answers_are_learned_in_every_turn(llama):
    turns = [
        message("system", "be brief"),
        message("user", "what"),
        message("assistant", "Paris"),
        message("user", "the capital"),
        message("user", "of France"),
        message("assistant", "it is"),
    ]
    made = chat(llama)
    assert parts(llama, made.row({"messages": turns})) == [
        ("<s><system>be brief</s><user>what</s><assistant>", False),
        ("Paris</s>", True),
        ("<user>the capital</s><user>of France</s><assistant>", False),
        ("it is</s>", True),
    ]
    assert parts(llama, made.row({"messages": turns[1:3]})) == [
        ("<s><user>what</s><assistant>", False),
        ("Paris</s>", True),
    ]
    without_answer = [*turns[1:], message("user", "and")]  # to which nothing is learned
    assert made.row({"messages": without_answer}) == made.row({"messages": turns[1:]})
    assert parts(llama, made.row({"messages": turns}))[0][0].count("<s>") == 1  # not added


def test_the_tokens_before_an_answer_are_those_of_the_template_when_a_model_is_asked(llama):
    turns = [message("user", "what"), message("assistant", ANSWER), message("user", "is it?")]
    tokens, flags = chat(llama).row({"messages": turns[:2]})
    asked = llama.apply_chat_template(
        turns[:1], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert tokens[: flags.index(1)] == asked


NO_ANSWER = ("data.columns.messages", "fix or remove the row")


def test_an_assistant_that_opens_answers_nothing(llama):
    opening = message("assistant", "hello")
    turns = [opening, message("user", "what"), message("assistant", "Paris")]
    assert parts(llama, chat(llama).row({"messages": turns})) == [
        ("<s><assistant>hello</s><user>what</s><assistant>", False),
        ("Paris</s>", True),
    ]
    with pytest.raises(DataError) as caught:
        chat(llama).row({"messages": [opening, message("user", "what")]})
    assert (caught.value.key, caught.value.hint) == NO_ANSWER


@pytest.mark.parametrize(
    ("template", "num_messages"), [(ONLY_THE_LAST, 4), (NO_OLD_THOUGHTS, 4), (OPENS_A_THOUGHT, 2)]
)
def test_a_template_that_rewrites_earlier_messages_is_refused(llama, template, num_messages):
    turns = [message(role, "text") for role in ("user", "assistant") * 2]
    made = chat(llama, template)
    with pytest.raises(DataError, match="the chat template changes earlier messages") as caught:
        made.row({"messages": turns[:num_messages]})
    assert caught.value.key == "task.chat"
    assert caught.value.hint == "set task.prompt and task.completion instead"
    if num_messages == 4:
        assert len(parts(llama, made.row({"messages": turns[:2]}))) == 2


def test_what_a_template_says_of_messages_is_passed_on(llama):
    turns = [message("user", "one"), message("user", "two"), message("assistant", "three")]
    with pytest.raises(DataError, match="the chat template refuses its messages: roles must alt"):
        chat(llama, IN_TURNS).row({"messages": turns})


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        (None, "its messages are None, not a list"),
        ("what", "its messages are the text 'what', which is not a JSON list"),
        (5, "its messages are 5, not a list"),
        ({"speaker": "a"}, "its messages are an object of speaker, not a list"),
        (["what", "Paris"], "message 1 is 'what', not an object"),
        ([{"speaker": "a", "text": "b"}], "message 1 has speaker, text; read are role and content"),
        ([message("user", "a"), {"content": "Paris"}], "message 2 has content; read are role"),
        ([message("user", 5)], r"message 1 \(user\) has 5 for its content, not text"),
        ([message("user", None)], r"message 1 \(user\) has no content"),
        ([message("user", [{"type": "image_url"}])], "message 1 has a part of the type image_url"),
        ([message("narrator", "once")], "message 1 has the role narrator; use user"),
        ([message("user", "a"), message("assistant", None)], "message 2 is an answer .* without"),
        ([message("user", "a"), message("assistant", [])], "message 2 is an answer .* without"),
        ([message("user", "a"), message("assistant", " ")], "message 2 is an answer .* without"),
        (
            [message("user", "a"), {"role": "assistant", "tool_calls": [{"id": "1"}]}],
            "message 2 has the tool call .* no function",
        ),
        (
            [
                message("user", "a"),
                {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]},
            ],
            "message 2 has tool_calls, which the chat template does not show",
        ),
    ],
)
def test_what_is_found_in_place_of_messages_is_named(llama, messages, found):
    with pytest.raises(DataError, match=found):
        chat(llama).row({"messages": messages})


TURNS = [message("user", "what"), message("assistant", "Paris")]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS},
        {"messages": json.dumps(TURNS)},
        {"messages": {"role": ["user", "assistant"], "content": ["what", "Paris"]}},
        {"messages": [{"from": "human", "value": "what"}, {"from": "gpt", "value": "Paris"}]},
        {"messages": [{**one, "name": None, "tool_calls": None} for one in TURNS]},
        {
            "messages": [
                message(one["role"], [{"type": "text", "text": one["content"]}]) for one in TURNS
            ]
        },
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"messages": TURNS, "tools": None, "system": ""},
    ],
)
def test_messages_of_every_form_give_the_same_tokens(llama, row):
    assert chat(llama).row(row) == chat(llama).row({"messages": TURNS})


def test_answers_in_a_prompt_are_not_learned(llama):
    more = [message("user", "the capital"), message("assistant", "it is")]
    made = chat(llama).row({"prompt": [*TURNS, more[0]], "completion": more[1:]})
    assert [text for text, learned in parts(llama, made) if learned] == ["it is</s>"]


def test_a_system_prompt_stands_first_unless_there_is_one(llama):
    made = chat(llama)
    expected = made.row({"messages": [message("system", "be brief"), *TURNS]})
    assert made.row({"messages": TURNS, "system": "be brief"}) == expected
    given = [message("system", "be brief"), *TURNS]
    assert made.row({"messages": given, "system": "is it"}) == expected


TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHAT.replace(
    "{{ message['content'] }}",
    "{{ message['content'] }}{% for call in message.tool_calls %}[{{ call.function.name }} "
    "{{ call.function.arguments | tojson }}]{% endfor %}",
)
CALLING = [
    message("user", "what"),
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "capital", "arguments": '{"of": "France"}'}}],
    },
    message("tool", "Paris"),
    message("assistant", "it is"),
]
AS_SHAREGPT = [
    {"from": "human", "value": "what"},
    {"from": "function_call", "value": '{"name": "capital", "arguments": {"of": "France"}}'},
    {"from": "observation", "value": "Paris"},
    {"from": "gpt", "value": "it is"},
]


@pytest.mark.parametrize("messages", [CALLING, AS_SHAREGPT, json.dumps(CALLING)])
@pytest.mark.parametrize(
    "tools", [[{"name": "capital"}], '[{"name": "capital"}]', '{"name": "capital"}']
)
def test_tools_and_calls_of_every_form_reach_the_template(llama, messages, tools):
    made = chat(llama, TOOLS).row({"messages": messages, "tools": tools})
    assert parts(llama, made) == [
        ('[{"name": "capital"}]<s><user>what</s><assistant>', False),
        ('[capital {"of": "France"}]</s>', True),
        ("<tool>Paris</s><assistant>", False),
        ("it is</s>", True),
    ]


def test_arguments_are_text_for_a_template_that_adds_them_to_text(llama):
    adds = TOOLS.replace(
        "{{ call.function.arguments | tojson }}", "{{ '' + call.function.arguments }}"
    )
    made = chat(llama, adds).row({"messages": CALLING})
    assert parts(llama, made)[1] == ('[capital {"of": "France"}]</s>', True)


@pytest.mark.parametrize("tools", ["what", 5, [5], '[{"name"'])
def test_tools_of_another_form_are_refused(llama, tools):
    with pytest.raises(DataError, match="its tools"):
        chat(llama, TOOLS).row({"messages": TURNS, "tools": tools})


def test_tools_that_the_template_does_not_show_are_counted(llama):
    rows = [{"messages": TURNS, "tools": tools} for tools in ([{"name": "f"}], None, [])]
    for template, expected in ((CHAT, [1]), (TOOLS, [])):
        llama.chat_template = template
        _, summary = encode(task(llama, 256, chat=True), rows)
        assert [count for count, _ in summary.remarks.values()] == expected


# Special tokens in data


def test_only_the_special_tokens_of_a_chat_template_are_special(llama):
    end = llama.eos_token_id
    turns = [message("user", "what</s> is"), message("assistant", "Paris <s> it")]
    tokens, flags = chat(llama).row({"messages": turns})
    assert tokens.count(end) == 2
    assert tokens.count(llama.bos_token_id) == 1
    assert parts(llama, (tokens, flags)) == [
        ("<s><user>what</s> is</s><assistant>", False),
        ("Paris <s> it</s>", True),
    ]
    parsed = Rows(CausalLMSettings(name="causal_lm", chat=True), Columns(), llama, "parsed").row(
        {"messages": turns}
    )
    assert (parsed[0].count(end), parsed[0].count(llama.bos_token_id)) == (3, 2)


def test_only_the_special_tokens_of_a_recipe_template_are_special(llama):
    row = {"q": "a</s>b", "a": "<s>c"}
    tokens, _ = prompts(llama, "{q}</s>", "{a}").row(row)
    assert llama.decode(tokens) == "<s>a</s>b</s><s>c</s>"
    assert (tokens.count(llama.eos_token_id), tokens.count(llama.bos_token_id)) == (2, 1)


@pytest.mark.parametrize("messages", [[], [message("user", "what")], [message("system", "what")]])
def test_a_conversation_without_an_answer_is_refused(llama, messages):
    with pytest.raises(DataError, match="no message is an answer of the role assistant"):
        chat(llama).row({"messages": messages})


# Examples of a split


def task(tokenizer: Any, length: int, **settings: Any) -> CausalLM:
    templates = {} if settings.get("chat") else {"prompt": "{q}\n", "completion": "{a}"}
    recipe = Recipe(
        model=Model(name_or_path="llama"),
        task=CausalLMSettings(name="causal_lm", **templates, **settings),
        data=Data(source=Source(builtin="instructions")),
        batch=Batch(max_seq_length=length),
    )
    return CausalLM.build(recipe, datasets.Dataset.from_dict({}), tokenizer, LlamaConfig())


def encode(made: CausalLM, rows: list[dict[str, Any]], **settings: Any) -> Any:
    """Returns all columns of some rows, and what was counted."""
    summary, columns = Summary(**settings), dict[str, Any]()
    for chunk in made.encode(datasets.Dataset.from_list(rows), summary):
        for name, entries in chunk.items():
            columns.setdefault(name, []).extend(entries)
    return columns, summary


@pytest.mark.parametrize("packing", [False, True])
def test_a_prompt_that_leaves_no_room_is_named_or_counted(llama, packing):
    rows = [{"q": "what", "a": "Paris"}, {"q": "what is the capital? " * 9, "a": "Paris"}]
    made = task(llama, 24, packing=packing)
    size = len(llama(rows[1]["q"] + "\n")["input_ids"])
    assert size > 24
    sentence = f"row 2: the prompt of {size} tokens leaves no room .* raise batch.max_seq_length"
    with pytest.raises(DataError, match=sentence):
        encode(made, rows)
    columns, summary = encode(made, [*rows, rows[0]], on_bad_example="skip")
    assert summary.num_skipped == 1
    kept, _ = encode(made, [rows[0]] * 2)
    assert columns == kept


def test_room_for_one_token_of_an_answer_is_enough(llama):
    row = {"q": "what is", "a": "the capital of France"}
    size = len(llama(row["q"] + "\n")["input_ids"])
    with pytest.raises(DataError) as caught:
        encode(task(llama, size), [row])
    assert (caught.value.key, caught.value.value) == ("batch.max_seq_length", size)
    columns, summary = encode(task(llama, size + 1), [row])
    assert columns["learned"] == [[0] * size + [1]]
    assert summary.num_truncated == 1


def test_what_is_cut_is_counted_and_loses_its_end(llama):
    rows = [{"q": "what", "a": "Paris"}, {"q": "what", "a": "Paris is the capital. " * 9}]
    made = task(llama, 24)
    columns, summary = encode(made, rows)
    tokens, flags = columns["input_ids"], columns["learned"]
    whole = [prompts(llama).row(row) for row in rows]
    assert tokens == [ids[:24] for ids, _ in whole]
    assert flags == [flags[:24] for _, flags in whole]
    assert (summary.num_truncated, summary.longest) == (1, len(whole[1][0]))
    assert [ids[-1] == llama.eos_token_id for ids in tokens] == [True, False]


@pytest.mark.parametrize("answer", [" ", None])
def test_a_row_without_an_answer_is_named_or_counted(llama, answer):
    rows = [{"q": "what", "a": "Paris"}, {"q": "what", "a": answer}]
    with pytest.raises(DataError) as caught:
        encode(task(llama, 24), rows)
    assert caught.value.key == "task.completion"
    columns, summary = encode(task(llama, 24), rows, on_bad_example="skip")
    assert len(columns["input_ids"]) == summary.num_skipped == 1
    assert summary.first_skipped.startswith("row 2: the completion is empty")


def test_bad_messages_of_a_split_are_named(llama):
    llama.chat_template = CHAT
    good = [message("user", "what"), message("assistant", "Paris")]
    rows = [{"messages": good}, {"messages": good[:1]}, {"messages": None}]
    made = task(llama, 64, chat=True)
    with pytest.raises(DataError, match=r"^row 2: ") as caught:
        encode(made, rows)
    assert caught.value.key == NO_ANSWER[0]
    columns, summary = encode(made, rows, on_bad_example="skip")
    assert (len(columns["input_ids"]), summary.num_skipped) == (1, 2)
    with pytest.raises(DataError, match="row 1: its messages are None, not a list"):
        encode(made, rows[2:] + rows[:1])


@pytest.mark.parametrize("special", [True, False])
def test_the_token_after_an_answer_ends_it(llama, special):
    """Also one that is not marked as special, which no other text of a template would be."""
    tokenizer = copy.deepcopy(llama)
    tokenizer.add_tokens([AddedToken("<|end|>", special=special)], special_tokens=special)
    turn_end = tokenizer.convert_tokens_to_ids("<|end|>")
    tokenizer.chat_template = CHAT.replace("</s>", "\n<|end|>\n")
    made = task(tokenizer, 64, chat=True)
    assert made.prompts.turn_end() == [turn_end]
    assert made.generator.ends == [tokenizer.eos_token_id, turn_end]
    ids = [*tokenizer("Paris", add_special_tokens=False)["input_ids"], turn_end]
    assert made.generator.decode(ids) == "Paris"
    tokenizer.chat_template = CHAT.replace("</s>", "\n### ")
    assert task(tokenizer, 64, chat=True).prompts.turn_end() == []


def test_chat_needs_a_template(gpt2):
    with pytest.raises(ConfigError, match="the tokenizer has no chat template") as caught:
        task(gpt2, 64, chat=True)
    assert (caught.value.key, caught.value.value) == ("task.chat", True)


def test_what_decides_the_tokens_is_in_the_settings(llama):
    before = chat(llama).settings()
    assert chat(llama, ONLY_THE_LAST).settings() != before
    assert chat(llama, CHAT, "turns").settings() != before
    assert prompts(llama).settings() != prompts(llama, "{q}").settings()
    assert prompts(llama).settings() != prompts(llama, completion="{a}.").settings()
