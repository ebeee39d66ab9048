"""The separator between two texts: in a run, after truncation, and in the exported tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trainer.errors import ConfigError
from trainer.models.tokenizers.pair_separator import separate_pairs
from trainer.models.tokenizers.tokenizer import train_tokenizer
from trainer.recipe.model import TrainedTokenizer
from trainer.tasks.question_answering.windows import PairTemplate

CLASSES = ("PreTrainedTokenizerFast", "GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer")
FIRST, SECOND = "one two three four", "five six"


def byte_level(end: str | None = "<end>", *, begin: str | None = None) -> Any:
    """Returns a tokenizer of bytes, as GPT-2's; `begin` comes before a text, as in Llama 3's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "eos_token": end, "bos_token": begin}
    roles: dict[str, Any] = {role: token for role, token in special.items() if token is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    if begin is not None:
        tokenizer.backend_tokenizer.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=True),
                processors.TemplateProcessing(
                    single=f"{begin} $A",
                    pair=f"{begin} $A $B:1",
                    special_tokens=[(begin, tokenizer.bos_token_id)],
                ),
            ]
        )
    return tokenizer


def between(tokenizer: Any) -> str:
    text = tokenizer.decode(tokenizer(FIRST, SECOND)["input_ids"])
    return text[text.index(FIRST) + len(FIRST) : text.index(SECOND)]


@pytest.mark.parametrize(
    ("tokenizer", "separator", "stands_there"),
    [
        (byte_level(), "auto", "<end>"),
        (byte_level(None), "auto", "\n"),
        (byte_level(), "\n", "\n"),
        (byte_level(), "<end>\n", "<end>\n"),
        (byte_level(), None, ""),
        (byte_level(begin="<begin>"), "auto", "<end>"),
    ],
)
def test_a_pair_has_the_separator_and_a_single_text_none(
    tokenizer: Any, separator: str | None, stands_there: str
) -> None:
    alone = tokenizer(FIRST)["input_ids"]
    pair = tokenizer(FIRST, SECOND)["input_ids"]
    assert between(tokenizer) == ""
    note = separate_pairs(tokenizer, separator, "the two texts")
    assert "task.pair_separator" in str(note)
    assert between(tokenizer) == stands_there
    assert tokenizer(FIRST)["input_ids"] == alone
    ids = tokenizer(FIRST, SECOND)["input_ids"]
    extra = tokenizer(stands_there, add_special_tokens=False)["input_ids"]
    place = len(ids) - len(tokenizer(SECOND, add_special_tokens=False)["input_ids"]) - len(extra)
    assert ids[:place] + ids[place + len(extra) :] == pair
    template = PairTemplate.of(tokenizer, is_decoder=True)
    assert list(template.between) == extra
    if separator is not None:
        assert separate_pairs(tokenizer, separator, "the two texts") is None


@pytest.mark.parametrize("length", range(3, 24))
def test_no_cut_takes_the_separator(length: int) -> None:
    tokenizer = byte_level(begin="<begin>")
    separate_pairs(tokenizer, "auto", "the two texts")
    ids = tokenizer(FIRST, SECOND, truncation=True, max_length=length)["input_ids"]
    assert len(ids) == min(length, 1 + len(FIRST) + 1 + len(SECOND))
    assert ids.count(tokenizer.eos_token_id) == 1
    begin, middle = ids.index(tokenizer.bos_token_id), ids.index(tokenizer.eos_token_id)
    assert FIRST.startswith(tokenizer.decode(ids[begin + 1 : middle]))
    assert SECOND.startswith(tokenizer.decode(ids[middle + 1 :]))


def test_characters_and_types_of_tokens_stay() -> None:
    tokenizer = byte_level(begin="<begin>")
    before = tokenizer(FIRST, SECOND, return_offsets_mapping=True, return_token_type_ids=True)
    separate_pairs(tokenizer, "auto", "the two texts")
    after = tokenizer(FIRST, SECOND, return_offsets_mapping=True, return_token_type_ids=True)
    place = after["input_ids"].index(tokenizer.eos_token_id)
    for name in ("offset_mapping", "token_type_ids"):
        values = list(after[name])
        values.pop(place)
        assert values == before[name]
    assert after["token_type_ids"][0] != after["token_type_ids"][-1]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("settings", [{}, {"add_bos_token": False}])
def test_the_exported_tokenizer_puts_it_there_by_itself(
    tmp_path: Path, kind: str, settings: dict[str, bool]
) -> None:
    letters = [chr(one) for one in range(ord("a"), ord("z") + 1)]
    backend = Tokenizer(models.BPE({one: n for n, one in enumerate(["<end>", "Ġ", *letters])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    roles = {"eos_token": "<end>", "bos_token": "<end>", "unk_token": "<end>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **roles).save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), **settings, "tokenizer_class": kind})
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert between(tokenizer) == ""
    separate_pairs(tokenizer, "auto", "the two texts")
    tokenizer.save_pretrained(tmp_path / "exported")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert between(loaded) == "<end>"
    assert loaded(FIRST, SECOND) == tokenizer(FIRST, SECOND)
    assert loaded(FIRST) == tokenizer(FIRST)


def test_a_tokenizer_that_separates_pairs_stays_as_it_is(tmp_path: Path) -> None:
    train_tokenizer(TrainedTokenizer(train="bpe", vocab_size=300), ["a b"], tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    before = tokenizer.backend_tokenizer.to_str()
    assert separate_pairs(tokenizer, "auto", "the two texts") is None
    assert separate_pairs(tokenizer, "[SEP]", "the two texts") is None
    assert separate_pairs(tokenizer, None, "the two texts") is None
    assert tokenizer.backend_tokenizer.to_str() == before
    with pytest.raises(ConfigError, match=r"already puts '\[SEP\]'") as caught:
        separate_pairs(tokenizer, "\n", "the two texts")
    assert (caught.value.key, caught.value.value) == ("task.pair_separator", "\n")
    assert caught.value.hint == "use auto"


def test_a_separator_without_tokens_is_refused() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    with pytest.raises(ConfigError, match="gives no token") as caught:
        separate_pairs(tokenizer, "\n", "the two texts")
    assert (caught.value.key, caught.value.value) == ("task.pair_separator", "\n")
