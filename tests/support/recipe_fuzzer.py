"""Damaged recipes and overrides, drawn from a seed, and how the trainer handles each."""

import contextlib
import copy
import io
import json
import math
import os
import random
import signal
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from trainer.errors import TrainerError
from trainer.recipe.keys import known_keys as keys_of
from trainer.recipe.keys import sections_in
from trainer.recipe.schema import Recipe, TaskSettings
from trainer.tasks import TASKS as KNOWN
from trainer.wording import LONGEST_MESSAGE

MODEL = {
    "architecture": {
        "model_type": "bert",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 64,
    },
    "initialization": "random",
    "tokenizer": {"train": "wordpiece", "vocab_size": 300},
}
DECODER = {
    "architecture": {
        "model_type": "llama",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 128,
    },
    "initialization": "random",
    "tokenizer": {"train": "bpe", "vocab_size": 300},
}
COMMON = {
    "seed": 1,
    "batch": {"global_batch_size": 4, "micro_batch_size": 2, "max_seq_length": 64},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3},
    "schedule": {"name": "linear", "steps": 2, "warmup_ratio": 0.1},
    "precision": "fp32",
    "tracking": {"trackers": [], "log_every_steps": 1},
}
TASKS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "classification": ({"labels": ["negative", "positive"]}, "reviews", MODEL),
    "masked_lm": ({"next_sentence_prediction": True}, "documents", MODEL),
    "question_answering": ({"stride": "auto"}, "passages", MODEL),
    "causal_lm": (
        {
            "prompt": "{instruction}\n",
            "completion": "{output}",
            "generation": {"num_examples": 1, "max_new_tokens": 2},
        },
        "instructions",
        DECODER,
    ),
}
SECONDS = 5.0
"""A case that takes longer hangs: everything here is tiny."""

WEIRD: list[Any] = [
    *(0, 1, 2, 3, -1, 7, 64, 2**31, 2**32, 2**63, 2**64, -(2**63) - 1, 10**40, 0.0, -0.0, 0.5),
    *(1.0, 1.5, 1e-320, 1e30, 1e308, True, False, None, "", " ", "\n", "auto", "null", "x", "0"),
    *(
        "1",
        "-1",
        "²",
        "١٢",
        "1e5",
        "0x10",
        "1_000",
        ".nan",
        "nan",
        "inf",
        "true",
        "no",
        "é",
        "\u200b",
    ),
    *("\U0001f600", "{", "{}", "{text", "{text!r}", "{text:>9}", "{0}", "{a.b}", "{a[0]}", "%s"),
    *("x" * 256, "x" * 5000, "a/b", "a/b/c", "../..", "/", ".", "~", "~nobody/x", "/dev/null"),
    *("/dev/zero", "*", "[a]*", "a::b", "file:///etc/passwd", "</s>", "[MASK]", "<script>", "a|b"),
    *([], {}, [[]], [{}], {"x": {}}, [None], [0], [1, 2], ["a", "a"], ["a"], {"ratio": 0.5}),
    *({"ratio": 1e-9}, {"ratio": 0.999999}, {"train": "bpe"}, {"a": [1]}, list(range(3000))),
    *([f"label {i}" for i in range(3000)], {f"k{i}": i for i in range(300)}),
    [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]],
]
NUMBERS = """
    hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings
    vocab_size type_vocab_size hidden_act pad_token_id hidden_dropout_prob initializer_range
    attention_probs_dropout_prob rope_theta layer_norm_eps num_key_value_heads head_dim dtype
    tie_word_embeddings model_type is_decoder attn_implementation id2label num_labels use_cache
""".split()
FRAGMENTS = [
    *(
        "!!python/object/apply:os.system ['true']",
        "!!int 'x'",
        "!!binary x",
        "!!set {a, b}",
        "!x y",
    ),
    *("!!timestamp 2020-01-01", "!!float ''", "&a [*a]", "*nothing", "&a {b: *a}", "<<: {a: 1}"),
    *("? [a, b]\n: c", "{1: 2}", "{null: 1}", "{true: 1}", "{[a]: 1}", "9" * 5000, "!x y"),
    *("1e999", "-1e999", "1e-999", "." * 50, "'", '"', "[", "]", "{", "}", "|", ">", "%", "@", "`"),
    *(
        "\t",
        "\r",
        "\x00",
        "\x85",
        "\u2028",
        "\ufeff",
        "\ud7ff",
        "---",
        "...",
        "--- a\n--- b",
        "#",
        ":",
    ),
    *(
        "[" * 60,
        "{a: " * 60,
        "[" * 3000,
        "- " * 500,
        '"\\ud800"',
        '"\\0"',
        '"\\x07"',
        "? ",
        "!!null 1",
    ),
]


def recipes() -> list[dict[str, Any]]:
    """Returns a sound recipe of each task; each trains in a second."""
    return [
        {
            **copy.deepcopy(COMMON),
            "model": copy.deepcopy(model),
            "task": {"name": name, **settings},
            "data": {"source": {"builtin": source, "num_rows": 24}, "max_rows": 12},
        }
        for name, (settings, source, model) in TASKS.items()
    ]


def known_keys() -> list[str]:
    """Returns the dotted keys of the schema, and numbers of architectures."""
    tasks = [key for task in KNOWN.values() for key in keys_of(task.settings, "task.")]
    keys = [
        *dict.fromkeys([*keys_of(Recipe), *tasks]),
        *(f"model.architecture.{one}" for one in NUMBERS),
    ]
    return [*keys, "data.source.files.train", "data.source.files.test", "data.exclude.label"]


def damaged_recipe(draw: random.Random, keys: list[str]) -> str:
    """Returns the text of a recipe with one to three damages, of values or of the YAML itself."""
    values = draw.choice(recipes())
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        _damage(values, draw, keys)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10**6)
    if draw.random() < 0.3:
        for _ in range(draw.choice((1, 1, 2, 4))):
            text = _scratch(text, draw)
    return text


def damaged_override(draw: random.Random, keys: list[str]) -> str:
    """Returns the text of a --set."""
    key = draw.choice(keys)
    if draw.random() < 0.3:
        key = _scratch(key, draw)
    how = draw.random()
    if how < 0.2:
        return f"{key}={draw.choice(FRAGMENTS)}"
    value = draw.choice(_plausible(key) if how < 0.6 else WEIRD)
    text = value if isinstance(value, str) else json.dumps(value)
    return draw.choice((f"{key}={text}", f"{key}={text}", f"{key}={text}", key, f"={text}"))


def _damage(values: dict[str, Any], draw: random.Random, keys: list[str]) -> None:
    parents = draw.choice(keys).split(".")
    leaf, section = parents.pop(), values
    for parent in parents:
        inner = section.get(parent)
        if not isinstance(inner, dict):
            inner = section[parent] = {}
        section = inner
    how = draw.random()
    if how < 0.5:
        section[leaf] = copy.deepcopy(draw.choice(_plausible(".".join([*parents, leaf]))))
    elif how < 0.55:
        section.pop(leaf, None)
    elif how < 0.6:
        section[_scratch(leaf, draw)] = section.pop(leaf, 1)
    else:
        section[leaf] = copy.deepcopy(draw.choice(WEIRD))


def _plausible(key: str) -> list[Any]:
    """Returns values of the kind that a key takes: its words, or small numbers and names."""
    section: Any = Recipe
    for part in key.split("."):
        sections = sections_in(section)
        if TaskSettings in sections:
            sections = [task.settings for task in KNOWN.values()]
        fields = [one for one in sections if part in one.model_fields]
        if not fields:
            break
        section = fields[0].model_fields[part].annotation
    words = [word for word in _words_of(section) if word is not None]
    return words or [1, 2, 3, 4, 5, 7, 8, 12, 16, 100, 0.1, 0.3, 0.9, 1e-3, "text", "label", True]


def _words_of(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in _words_of(part)]


def _scratch(text: str, draw: random.Random) -> str:
    place = draw.randrange(len(text) + 1)
    how = draw.random()
    if how < 0.4:
        return text[:place] + draw.choice(FRAGMENTS) + text[place:]
    if how < 0.6:
        return text[:place] + text[place + draw.randrange(1, 9) :]
    if how < 0.8:
        lines = text.splitlines(keepends=True) or [""]
        line = draw.randrange(len(lines))
        lines.insert(line, draw.choice(lines))
        return "".join(lines)
    return text[:place] + chr(draw.randrange(1, 0x300)) + text[place + 1 :]


@contextlib.contextmanager
def limited(seconds: float) -> Generator[None]:
    """Raises TimeoutError inside once the time is over."""

    def over(_number: int, _frame: Any) -> None:
        raise TimeoutError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(work: Callable[[], Any], seconds: float = SECONDS) -> tuple[str, str]:
    """Returns how some work ends, "right", "refused" or what is wrong with it, and its message."""
    try:
        with limited(seconds), contextlib.redirect_stdout(io.StringIO()):
            work()
    except TrainerError as error:
        message = str(error)
        if not message.strip() or "Traceback" in message:
            return "no sentence", message
        return ("refused" if len(message) <= LONGEST_MESSAGE else "long"), message
    except TimeoutError as error:
        return "hang", str(error) + traceback.format_exc(limit=-3)
    except MemoryError:
        return "memory", traceback.format_exc(limit=-3)
    except BaseException as error:  # SystemExit too: the library leaves no process
        return "traceback", f"{type(error).__name__}: {error}\n" + traceback.format_exc(limit=-4)
    return "right", ""


def use(file: Path, overrides: tuple[str, ...] = (), *, train: Path | None = None) -> None:
    """Reads a recipe and, if it is valid, counts its model and prepares its data.

    With `train` it is trained in that folder, too.
    """
    from trainer.assembly.inputs import build_inputs
    from trainer.planning.parameters import count
    from trainer.recipe.reading import dump_yaml
    from trainer.tasks.recipe import load_recipe

    recipe = load_recipe(str(file), overrides)
    dump_yaml(recipe).encode()
    count(recipe)
    build_inputs(recipe, None)
    if train is not None:
        train_here(file, overrides, train)


def train_here(file: Path, overrides: tuple[str, ...], directory: Path) -> None:
    """Trains in this process; a run that ends without results.json is an error."""
    from trainer.cli.train import train

    code = train(str(file), overrides, directory, "auto")
    results = json.loads((directory / "results.json").read_text("utf-8"))
    assert code == 0
    loss = results["final"]["metrics"].get("validation", {}).get("loss", 0.0)
    assert math.isfinite(loss), f"validation loss {loss}"


def special_files(folder: Path) -> list[str]:
    """Creates a FIFO, a folder and an empty file, and returns their names."""
    os.mkfifo(folder / "fifo.jsonl")
    (folder / "folder").mkdir()
    (folder / "empty.csv").touch()
    return [str(folder / name) for name in ("fifo.jsonl", "folder", "empty.csv")]
