"""Separates the two texts of a pair, for tokenizers that put nothing between them."""

import json
from typing import Any

from trainer.errors import ConfigError
from trainer.wording import excerpt

LINE_BREAK = "\n"


def separate_pairs(tokenizer: Any, separator: str | None, what: str) -> str | None:
    """Makes a tokenizer put a separator between the texts of a pair, and returns a sentence on it.

    `separator` is that of task.pair_separator; `what` names the two texts. The tokenizer does it
    itself from then on, wherever it is used or loaded, and never cuts the separator off. One that
    already puts something between them stays as it is. Raises ConfigError for a separator that
    cannot be put there.
    """
    given = separator not in ("auto", None)
    between = _between(tokenizer)
    if between:
        if given and tokenizer(separator, add_special_tokens=False)["input_ids"] != between:
            raise ConfigError(
                f"task.pair_separator: {excerpt(repr(separator))}, but the tokenizer already "
                f"puts {excerpt(repr(tokenizer.decode(between)))} between two texts",
                key="task.pair_separator",
                hint="use auto",
            )
        return None
    nothing = f"nothing stands between {what}: "
    if separator is None:
        return f"{nothing}task.pair_separator is null"
    if not tokenizer.is_fast:
        if given:
            raise ConfigError(
                f"task.pair_separator: a {type(tokenizer).__name__} takes none",
                key="task.pair_separator",
                hint="use a tokenizer with a tokenizer.json, or auto",
            )
        return f"{nothing}a {type(tokenizer).__name__} takes no separator"
    ends = (tokenizer.eos_token, tokenizer.sep_token)
    text = separator if given else next((one for one in ends if one is not None), LINE_BREAK)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ConfigError(
            f"task.pair_separator: {excerpt(repr(text))} gives no token",
            key="task.pair_separator",
            hint="use another text, or null",
        )
    _put_between(tokenizer, ids)
    why = "" if given else ", because the tokenizer puts nothing there"
    return f"{excerpt(repr(text))} stands between {what}{why} (task.pair_separator)"


def _between(tokenizer: Any) -> list[int]:
    """Returns the tokens between the texts of a pair."""
    if not tokenizer.is_fast:
        first, second = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("a b"))[:1] * 2
        ids = tokenizer.build_inputs_with_special_tokens([first], [second])
        places = [place for place, one in enumerate(ids) if one == first]
        return ids[places[0] + 1 : places[-1]]
    encoded = tokenizer("a", "a")
    texts = encoded.sequence_ids(0)
    last = len(texts) - 1 - texts[::-1].index(0)
    return encoded["input_ids"][last + 1 : texts.index(1)]


def _put_between(tokenizer: Any, separator: list[int]) -> None:
    from tokenizers import processors

    backend, kept = tokenizer.backend_tokenizer, list[Any]()
    known = json.loads(backend.post_processor.__getstate__()) if backend.post_processor else {}
    for part in known.get("processors", [known]):
        if part.get("type") == "ByteLevel":  # which also says where the characters of a token are
            settings = {key: part[key] for key in ("add_prefix_space", "trim_offsets", "use_regex")}
            kept.append(processors.ByteLevel(**settings))
    named: dict[str, list[int]] = {}

    def piece(ids: list[int], kind: int) -> list[str]:
        tokens = tokenizer.convert_ids_to_tokens(ids)
        plain = len(ids) == 1 and ":" not in tokens[0] and not tokens[0].startswith("$")
        name = tokens[0] if plain else f"tokens {'-'.join(map(str, ids))}"
        named[name] = ids
        return [f"{name}:{kind}"] if ids else []

    alone, pair = tokenizer("a"), tokenizer("a", "a", return_token_type_ids=True)
    ids, texts, kinds = alone["input_ids"], alone.sequence_ids(0), pair["token_type_ids"]
    last = len(texts) - 1 - texts[::-1].index(0)
    before, after = ids[: texts.index(0)], ids[last + 1 :]
    single = [*piece(before, 0), "$A:0", *piece(after, 0)]
    ids, texts = pair["input_ids"], pair.sequence_ids(0)
    first, second = texts.index(0), texts.index(1)
    last = len(texts) - 1 - texts[::-1].index(1)
    one, other = kinds[first], kinds[second]
    double = [
        *piece(ids[:first], kinds[0]),
        f"$A:{one}",
        *piece(separator, one),
        f"$B:{other}",
        *piece(ids[last + 1 :], kinds[-1]),
    ]
    template = processors.TemplateProcessing(
        single=single,
        pair=double,
        special_tokens=[
            {"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
            for name, ids in named.items()
            if ids
        ],
    )
    backend.post_processor = processors.Sequence([*kept, template]) if kept else template
    _keep(tokenizer)


def _keep(tokenizer: Any) -> None:
    """Keeps the post-processor of a tokenizer when the tokenizer is saved and loaded.

    With one of these settings, and in some classes always, transformers rebuilds it and would lose
    the separator. The plain class reads it from the file.
    """
    from transformers import GPTNeoXTokenizer, PreTrainedTokenizerFast

    for setting in ("add_bos_token", "add_eos_token"):
        tokenizer.init_kwargs.pop(setting, None)
    tokenizer._should_update_post_processor = False
    if isinstance(tokenizer, GPTNeoXTokenizer):
        changed: Any = tokenizer
        changed.__class__ = PreTrainedTokenizerFast
