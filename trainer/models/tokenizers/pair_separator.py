"""Puts a separator between the two texts of a pair if the tokenizer puts nothing there."""

import json
from typing import Any

from trainer.errors import ConfigError
from trainer.wording import excerpt

LINE_BREAK = "\n"


def separate_pairs(tokenizer: Any, separator: str | None, pair: str) -> str | None:
    """Makes a tokenizer put a separator between the texts of a pair; returns a note about it.

    `separator` is the value of task.pair_separator, and `pair` names the two texts in the note. The
    tokenizer itself changes: it adds the separator wherever it is used or loaded later, and
    truncation never removes it. A tokenizer that already puts something between the texts stays as
    it is, and there is no note. Raises ConfigError for a separator that cannot be added.
    """
    is_chosen = separator not in ("auto", None)
    present = _tokens_between(tokenizer)
    if present:
        if is_chosen and tokenizer(separator, add_special_tokens=False)["input_ids"] != present:
            raise ConfigError(
                f"task.pair_separator: {excerpt(repr(separator))}, but the tokenizer already "
                f"puts {excerpt(repr(tokenizer.decode(present)))} between two texts",
                key="task.pair_separator",
                value=separator,
                hint="use auto",
            )
        return None
    if separator is None:
        return f"nothing separates {pair}: task.pair_separator is null"
    kind = type(tokenizer).__name__
    if not tokenizer.is_fast:
        if is_chosen:
            raise ConfigError(
                f"task.pair_separator: a {kind} cannot add a separator",
                key="task.pair_separator",
                value=separator,
                hint="use a tokenizer with a tokenizer.json, or auto",
            )
        return f"nothing separates {pair}: a {kind} cannot add a separator"
    defaults = (tokenizer.eos_token, tokenizer.sep_token, LINE_BREAK)
    text = separator if is_chosen else next(token for token in defaults if token is not None)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ConfigError(
            f"task.pair_separator: {excerpt(repr(text))} gives no token",
            key="task.pair_separator",
            value=text,
            hint="use another text, or null",
        )
    _insert_separator(tokenizer, ids)
    why = "" if is_chosen else ", because the tokenizer puts nothing there"
    return f"{excerpt(repr(text))} separates {pair}{why} (task.pair_separator)"


def _tokens_between(tokenizer: Any) -> list[int]:
    """Returns the ids that the tokenizer puts between the texts of a pair."""
    if not tokenizer.is_fast:
        token = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("a b"))[0]
        ids = tokenizer.build_inputs_with_special_tokens([token], [token])
        positions = [position for position, index in enumerate(ids) if index == token]
        return ids[positions[0] + 1 : positions[-1]]
    encoded = tokenizer("a", "a")
    texts = encoded.sequence_ids(0)
    return encoded["input_ids"][_last(texts, 0) + 1 : texts.index(1)]


def _last(values: list[Any], value: Any) -> int:
    return len(values) - 1 - values[::-1].index(value)


def _insert_separator(tokenizer: Any, separator: list[int]) -> None:
    """Replaces the post-processor by one that also adds the ids `separator` between two texts."""
    from tokenizers import processors

    backend, kept = tokenizer.backend_tokenizer, list[Any]()
    present = json.loads(backend.post_processor.__getstate__()) if backend.post_processor else {}
    for part in present.get("processors", [present]):
        if part.get("type") == "ByteLevel":  # which corrects the offsets of tokens
            settings = {key: part[key] for key in ("add_prefix_space", "trim_offsets", "use_regex")}
            kept.append(processors.ByteLevel(**settings))
    ids_by_name: dict[str, list[int]] = {}

    def piece(ids: list[int], token_type: int) -> list[str]:
        """Returns the piece of a template that stands for special tokens, or nothing for none."""
        tokens = tokenizer.convert_ids_to_tokens(ids)
        is_plain = len(ids) == 1 and ":" not in tokens[0] and not tokens[0].startswith("$")
        name = tokens[0] if is_plain else f"tokens {'-'.join(map(str, ids))}"
        ids_by_name[name] = ids
        return [f"{name}:{token_type}"] if ids else []

    single, pair = tokenizer("a"), tokenizer("a", "a", return_token_type_ids=True)
    ids, texts = single["input_ids"], single.sequence_ids(0)
    before, after = ids[: texts.index(0)], ids[_last(texts, 0) + 1 :]
    template_of_single = [*piece(before, 0), "$A:0", *piece(after, 0)]
    ids, texts, types = pair["input_ids"], pair.sequence_ids(0), pair["token_type_ids"]
    first, second = texts.index(0), texts.index(1)
    template_of_pair = [
        *piece(ids[:first], types[0]),
        f"$A:{types[first]}",
        *piece(separator, types[first]),
        f"$B:{types[second]}",
        *piece(ids[_last(texts, 1) + 1 :], types[-1]),
    ]
    template = processors.TemplateProcessing(
        single=template_of_single,
        pair=template_of_pair,
        special_tokens=[
            {"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
            for name, ids in ids_by_name.items()
            if ids
        ],
    )
    backend.post_processor = processors.Sequence([*kept, template]) if kept else template
    _keep_post_processor(tokenizer)


def _keep_post_processor(tokenizer: Any) -> None:
    """Makes the tokenizer keep its post-processor when it is saved and loaded.

    With either of these settings, and in some classes always, transformers rebuilds the
    post-processor, which would drop the separator. The plain class reads it from the file.
    """
    from transformers import GPTNeoXTokenizer, PreTrainedTokenizerFast

    for setting in ("add_bos_token", "add_eos_token"):
        tokenizer.init_kwargs.pop(setting, None)
    tokenizer._should_update_post_processor = False
    if isinstance(tokenizer, GPTNeoXTokenizer):
        changed: Any = tokenizer
        changed.__class__ = PreTrainedTokenizerFast
