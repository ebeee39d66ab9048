"""Data sets that are generated rather than downloaded: pure functions of (num_rows, seed)."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

Rows = list[dict[str, str]]

# What a sentence may be about. Every aspect is singular, so that "the {a} was ..." holds.
ASPECTS: dict[str, tuple[str, ...]] = {
    "film": ("acting", "plot", "soundtrack", "ending", "dialogue", "camera work"),
    "restaurant": ("soup", "service", "menu", "dessert", "wine list", "dining room"),
    "hotel": ("room", "breakfast", "bed", "pool", "view", "reception"),
    "phone": ("screen", "battery", "camera", "keyboard", "speaker", "packaging"),
    "book": ("story", "prose", "cover", "opening chapter", "translation", "last chapter"),
}

# Only mild adjectives are negated: "not bad" praises, whereas "not superb" hardly blames.
MILD = {
    "positive": tuple(
        [
            "good",
            "pleasant",
            "enjoyable",
            "impressive",
            "convincing",
            "memorable",
            "satisfying",
            "charming",
            "appealing",
            "likeable",
        ]
    ),
    "negative": tuple(
        [
            "bad",
            "dull",
            "boring",
            "annoying",
            "disappointing",
            "tedious",
            "unpleasant",
            "mediocre",
            "clumsy",
            "dreary",
        ]
    ),
}
STRONG = {
    "positive": tuple(["superb", "excellent", "wonderful", "brilliant", "outstanding", "terrific"]),
    "negative": tuple(["awful", "dreadful", "terrible", "horrible", "abysmal", "appalling"]),
}
# Words of faint praise, where the degree alone decides.
FAINT = ("tolerable", "acceptable", "adequate", "passable")
FAINT_DEGREES = {"positive": "more than {}", "negative": "barely {}"}
MILD_DEGREES = ("{}", "{}", "very {}", "quite {}", "really {}", "rather {}")
STRONG_DEGREES = ("{}", "{}", "truly {}", "simply {}", "nothing short of {}")
NEGATIONS = (
    "not {}",
    "not {} at all",
    "not the least bit {}",
    "hardly {}",
    "never {}",
    "far from {}",
    "anything but {}",
    "by no means {}",
)
NEGATORS = ("not", "never", "hardly")  # those that fit "I had _ read" as well as "was _ good"

# Sentence frames. {q} is the predicate that decides and {p} the opposite one that is conceded
# ("contrast") or rejected ("correction"); in "scope" a negator stands either at {n}, where it
# leaves the verdict alone, or in {q}. {t} is the thing reviewed, {a} and {b} two of its aspects.
TRAIN_FRAMES: dict[str, tuple[str, ...]] = {
    "simple": (
        "the {a} was {q}",
        "I found the {a} {q}",
        "to me the {a} of this {t} was {q}",
        "my friends noticed that the {a} was {q}",
    ),
    "contrast": (
        "the {a} was {p}, but the {b} was {q}",
        "although the {a} was {p}, the {b} was {q}",
        "the {b} was {q}, although the {a} was {p}",
        "the {b} was {q}, even though the {a} was {p}",
        "to me the {b} was {q}, even though I found the {a} {p}",
        "yes, the {a} was {p}, but what matters is that the {b} was {q}",
        "what matters is that the {b} was {q}, even if the {a} was {p}",
        "despite the fact that the {a} was {p}, I found the {b} {q}",
        "I found the {b} {q}, despite the fact that the {a} was {p}",
        "I found the {a} {p}, yet the {b} was {q}",
        "the {a} may have been {p}, but I found the {b} {q}",
        "while the {a} was {p}, to me the {b} was {q}",
    ),
    "correction": (
        "the {a} was {q}, not {p}",
        "the {a} was not {p} but {q}",
        "far from being {p}, the {a} was {q}",
        "the {a} was anything but {p}; in fact it was {q}",
        "I expected the {a} to be {p}, but it was {q}",
        "my friends called the {a} {p}, yet to me it was {q}",
        "whoever called the {a} {p} is wrong, because it was {q}",
        "instead of {p}, the {a} of this {t} was {q}",
        "in fact I found the {a} {q} and by no means {p}",
    ),
    "scope": (
        "I had {n}read about this {t}, and I found the {a} {q}",
        "the {a} was {q}, which I had {n}expected",
        "we had {n}seen pictures of it, and the {a} was {q}",
        "my sister had {n}heard of this {t}, and to me the {a} was {q}",
        "as we had {n}planned ahead, we noticed that the {a} was {q}",
        "the {a} of this {t} was {q}, and I had {n}asked for advice",
        "I found the {a} {q}, and my friends had {n}expected that",
    ),
}
HELD_OUT_FRAMES: dict[str, tuple[str, ...]] = {
    "simple": (
        "in fact the {a} of this {t} was {q}",
        "we found the {a} {q}",
    ),
    "contrast": (
        "even though the {a} was {p}, the {b} was {q}",
        "the {a} was {p}, yet I found the {b} {q}",
        "I found the {b} {q}, although to me the {a} was {p}",
        "the {a} may have been {p}, yet what matters is that the {b} was {q}",
        "the {b} was {q}, even if I found the {a} {p}",
    ),
    "correction": (
        "the {a} was far from {p}; in fact it was {q}",
        "I expected the {a} to be {p}, yet to me it was {q}",
        "to me the {a} was {q} and by no means {p}",
        "instead of being {p}, the {a} was in fact {q}",
    ),
    "scope": (
        "we had {n}asked for advice, and the {a} was {q}",
        "I found the {a} {q}, which my sister had {n}expected",
        "as I had {n}read about this {t}, we noticed that the {a} was {q}",
    ),
}

# How often each kind of frame is drawn. The simple ones are the only rows that a bag of words can
# tell apart (so it stays below 58 %); without them a small model finds no gradient to start from.
KINDS = 2 * ("simple",) + 3 * ("contrast",) + 2 * ("correction",) + ("scope",)

# Neutral company, the same for both labels; some of it negates or contrasts without a verdict.
LEADS = (
    "last June, ",
    "on a rainy Sunday in March, ",
    "as far as I can tell, ",
    "for what it is worth, ",
    "after two weeks with this {t}, ",
    "I do not write many reviews. ",
    "a colleague had mentioned this {t} at work. ",
    "we meant to choose another {t}, but it was late and we had an hour to fill. ",
    "this was the second {t} that we tried in the same month, and the first one on our own. ",
    "I had never heard of this {t} before, although it has been around for more than ten years. ",
)
TAILS = (
    " I was there with my brother.",
    " That is all I have to say.",
    " It was not the first {t} I tried this year.",
    " We took the bus home, even though it was only a short walk.",
    " My parents, who live far from here, asked me about this {t} on the phone later that week.",
)


class _Pair(NamedTuple):
    """Two texts of the same words, of which the first praises and the second blames."""

    positive: str
    negative: str


def _choose(rng: random.Random, options: Sequence[str]) -> str:
    # random() is the one method whose sequence Python promises to keep over its versions.
    return options[int(rng.random() * len(options))]


def _opposite(label: str) -> str:
    return "negative" if label == "positive" else "positive"


def _plain(rng: random.Random, label: str) -> str:
    """Return an adjective of this polarity, perhaps with a degree: "good", "truly awful"."""
    if rng.random() < 0.6:
        return _choose(rng, MILD_DEGREES).format(_choose(rng, MILD[label]))
    return _choose(rng, STRONG_DEGREES).format(_choose(rng, STRONG[label]))


def _predicate(rng: random.Random, label: str, plain: float) -> str:
    """Return a predicate of this polarity, plain or by negation and degree: "barely adequate"."""
    draw = rng.random()
    if draw < plain:
        return _plain(rng, label)
    if draw < 0.9 + 0.1 * plain:
        return _choose(rng, NEGATIONS).format(_choose(rng, MILD[_opposite(label)]))
    return FAINT_DEGREES[label].format(_choose(rng, FAINT))


def _pair(rng: random.Random, frames: dict[str, tuple[str, ...]]) -> _Pair:
    """Return one sentence and its counterpart: the same words, reordered to the other label."""
    kind = _choose(rng, KINDS)
    frame = _choose(rng, frames[kind])
    if kind == "scope":
        negator, label = _choose(rng, NEGATORS), _choose(rng, ("positive", "negative"))
        adjective = _choose(rng, MILD[label])
        fills = {
            label: {"n": f"{negator} ", "q": adjective},
            _opposite(label): {"n": "", "q": f"{negator} {adjective}"},
        }
    else:
        plain = {"simple": 0.65, "contrast": 0.6, "correction": 1.0}[kind]
        praise = _predicate(rng, "positive", plain)
        blame = _predicate(rng, "negative", plain)
        fills = {
            "positive": {"p": blame, "q": praise},
            "negative": {"p": praise, "q": blame},
        }
    thing = _choose(rng, tuple(ASPECTS))
    aspect = _choose(rng, ASPECTS[thing])
    other = _choose(rng, [name for name in ASPECTS[thing] if name != aspect])
    lead = _choose(rng, LEADS) if rng.random() < 0.25 else ""
    tail = _choose(rng, TAILS) if rng.random() < 0.4 else ""
    if lead.endswith(". "):
        frame = frame[0].upper() + frame[1:]
    text = f"{lead}{frame}.{tail}"
    text = text[0].upper() + text[1:]
    return _Pair(
        text.format(t=thing, a=aspect, b=other, **fills["positive"]),
        text.format(t=thing, a=aspect, b=other, **fills["negative"]),
    )


def reviews(num_rows: int, seed: int) -> dict[str, Rows]:
    """Return review sentences whose sentiment is decided by negation, contrast and degree.

    The splits are "train" (`num_rows` rows), "validation" and "test" (`max(200, num_rows // 8)`
    rows each); a row is {"text": ..., "label": "negative" or "positive"}. No text occurs twice,
    in one split or in two. Every text has a counterpart in its split, made of the same words and
    of the opposite label (but for the last one of an odd number), so a bag of words scores 50 %.
    The test split is written with `HELD_OUT_FRAMES`, the others with `TRAIN_FRAMES`.

    Raises ValueError if `num_rows` is less than 1.
    """
    if num_rows < 1:
        raise ValueError(f"num_rows={num_rows} gives no train rows; use 1 or more")
    num_held_out = max(200, num_rows // 8)
    seen: set[str] = set()
    splits: dict[str, Rows] = {}
    for split, size, frames in (
        ("train", num_rows, TRAIN_FRAMES),
        ("validation", num_held_out, TRAIN_FRAMES),
        ("test", num_held_out, HELD_OUT_FRAMES),
    ):
        rng = random.Random(f"reviews/{split}/{seed}")
        rows: Rows = []
        while len(rows) < size:
            pair = _pair(rng, frames)
            if seen.isdisjoint(pair):
                seen.update(pair)
                rows.append({"text": pair.positive, "label": "positive"})
                rows.append({"text": pair.negative, "label": "negative"})
        del rows[size:]
        rows.sort(key=lambda _: rng.random())  # a shuffle
        splits[split] = rows
    return splits


# name -> generator(num_rows, seed)
BUILTIN: dict[str, Callable[[int, int], dict[str, Rows]]] = {"reviews": reviews}
