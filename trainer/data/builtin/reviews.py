"""Review sentences whose sentiment is decided by negation, contrast and degree."""

from itertools import product
from random import Random
from typing import NamedTuple

from trainer.data.builtin.draws import Rows, choose, draw_splits, is_held_out, words_of

# Things reviewed, and their aspects. These are singular, so that "the {a} was ..." is correct.
ASPECTS: dict[str, tuple[str, ...]] = {
    "film": ("acting", "plot", "soundtrack", "ending", "dialogue", "camera work"),
    "restaurant": ("soup", "service", "menu", "dessert", "wine list", "dining room"),
    "hotel": ("room", "breakfast", "bed", "pool", "view", "reception"),
    "phone": ("screen", "battery", "camera", "keyboard", "speaker", "packaging"),
    "book": ("story", "prose", "cover", "opening chapter", "translation", "last chapter"),
}

# Only mild adjectives are negated: "not bad" praises, whereas "not superb" hardly blames.
MILD = {
    "positive": words_of("good pleasant enjoyable impressive convincing memorable charming"),
    "negative": words_of("bad dull boring annoying disappointing tedious unpleasant"),
}
STRONG = {
    "positive": words_of("superb excellent wonderful brilliant outstanding"),
    "negative": words_of("awful dreadful terrible horrible appalling"),
}
# Words of faint praise, of which the degree decides the label.
FAINT = ("tolerable", "acceptable", "adequate", "passable")
FAINT_DEGREES = {"positive": "more than {}", "negative": "barely {}"}
MILD_DEGREES = ("{}", "{}", "very {}", "really {}")
STRONG_DEGREES = ("{}", "truly {}")
NEGATIONS = ("not {}", "not {} at all", "hardly {}", "never {}", "far from {}", "anything but {}")
NEGATORS = ("not", "never", "hardly")  # those that fit "I had _ read" as well as "was _ good"


def _clauses(aspect: str, verdict: str) -> tuple[str, ...]:
    return (
        f"the {aspect} was {verdict}",
        f"I found the {aspect} {verdict}",
        f"to me the {aspect} was {verdict}",
        f"the {aspect} of this {{t}} was {verdict}",
        f"I thought that the {aspect} was {verdict}",
    )


_DECIDES = _clauses("{a}", "{q}")
_CONCEDED = _clauses("{b}", "{p}")
_ASIDES = (
    "I had {n}read about it",
    "we had {n}asked for advice",
    "my sister had {n}tried it",
    "we had {n}planned ahead",
    "my friends had {n}heard of it",
)
_SUBJECTS = ("the {a}", "the {a} of this {t}", "its {a}", "the {a} itself")

# The parts of the sentence frames: a frame joins one option of each part. {q} is the predicate
# that decides and {p} the opposite one that is conceded ("contrast") or rejected ("correction");
# in "scope" a negator stands either at {n}, where it leaves the verdict alone, or in {q}.
# {t} is the thing reviewed, {a} and {b} two of its aspects.
_PARTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "simple": (("{0}", "in the end {0}", "on the whole {0}", "as I said, {0}"), _DECIDES),
    "contrast": (
        (
            "{1}, but {0}",
            "{1}, yet {0}",
            "although {1}, {0}",
            "even though {1}, {0}",
            "{0}, although {1}",
            "{0}, even though {1}",
        ),
        _DECIDES,
        _CONCEDED,
    ),
    "correction": (
        (
            "{0} was {{q}}, not {{p}}",
            "{0} was not {{p}} but {{q}}",
            "far from being {{p}}, {0} was {{q}}",
            "{0} was anything but {{p}}; it was {{q}}",
            "instead of {{p}}, {0} was {{q}}",
            "{0} was {{q}} rather than {{p}}",
        ),
        _SUBJECTS,
    ),
    "scope": (("{1}, and {0}", "{0}, and {1}", "since {1}, {0}"), _DECIDES, _ASIDES),
}


def _frames(held_out: bool) -> dict[str, tuple[str, ...]]:
    """Returns the frames of each kind; the held-out quarter consists of parts that others have."""
    frames: dict[str, tuple[str, ...]] = {}
    for kind, parts in _PARTS.items():
        choices = product(*(range(len(options)) for options in parts))
        frames[kind] = tuple(
            parts[0][choice[0]].format(*(p[i] for p, i in zip(parts[1:], choice[1:], strict=True)))
            for choice in choices
            if is_held_out(*choice) == held_out
        )
    return frames


TRAIN_FRAMES = _frames(held_out=False)
HELD_OUT_FRAMES = _frames(held_out=True)

# How often each kind of frame is drawn. The simple ones are easy: words alone decide some of them.
# Without them a small model that is trained from scratch does not begin to learn.
KINDS = 2 * ("simple",) + 3 * ("contrast",) + 2 * ("correction",) + ("scope",)

# Neutral sentences around the frame, the same for both labels, so that lengths differ.
LEADS = (
    "last June, ",
    "as far as I can tell, ",
    "I write a review now and then. ",
    "this was the second {t} that we tried in the same month, and the first one on our own. ",
)
TAILS = (
    " I was there with my brother.",
    " That is all I have to say.",
    " It was the third {t} I tried this year.",
    " We took the bus home, which is only a short ride, and were in bed before ten.",
    " My parents, who live by the sea, asked me about this {t} on the phone later that week, "
    "so I told them what I have written here.",
)


class _Pair(NamedTuple):
    """Two texts with the same frame, aspects and neutral sentences, and with opposite labels."""

    positive: str
    negative: str


def _opposite(label: str) -> str:
    return "negative" if label == "positive" else "positive"


def _plain(rng: Random, label: str) -> str:
    """Returns an adjective of this polarity, perhaps with a degree: "good", "truly awful"."""
    if rng.random() < 0.6:
        return choose(rng, MILD_DEGREES).format(choose(rng, MILD[label]))
    return choose(rng, STRONG_DEGREES).format(choose(rng, STRONG[label]))


def _predicate(rng: Random, label: str, plain: float) -> str:
    """Returns a predicate of this polarity, such as "not bad at all".

    `plain` is the probability that it is not negated.
    """
    draw = rng.random()
    if draw < plain:
        return _plain(rng, label)
    if draw < 0.7 + 0.3 * plain:
        return choose(rng, NEGATIONS).format(choose(rng, MILD[_opposite(label)]))
    if draw < 0.85 + 0.15 * plain:
        return FAINT_DEGREES[label].format(choose(rng, FAINT))
    return f"nothing short of {choose(rng, STRONG[label])}"


def _pair(rng: Random, frames: dict[str, tuple[str, ...]]) -> _Pair:
    """Returns a sentence and its counterpart, of the same words unless the kind is "simple"."""
    kind = choose(rng, KINDS)
    frame = choose(rng, frames[kind])
    if kind == "scope":
        negator, label = choose(rng, NEGATORS), choose(rng, ("positive", "negative"))
        adjective = choose(rng, MILD[label])
        fills = {
            label: {"n": f"{negator} ", "q": adjective},
            _opposite(label): {"n": "", "q": f"{negator} {adjective}"},
        }
    else:
        plain = {"simple": 0.55, "contrast": 0.6, "correction": 1.0}[kind]
        praise = _predicate(rng, "positive", plain)
        blame = _predicate(rng, "negative", plain)
        fills = {
            "positive": {"p": blame, "q": praise},
            "negative": {"p": praise, "q": blame},
        }
    thing = choose(rng, tuple(ASPECTS))
    aspect = choose(rng, ASPECTS[thing])
    other_aspect = choose(rng, [name for name in ASPECTS[thing] if name != aspect])
    lead = choose(rng, LEADS) if rng.random() < 0.25 else ""
    tail = choose(rng, TAILS) if rng.random() < 0.4 else ""
    if lead.endswith(". "):
        frame = frame[0].upper() + frame[1:]
    text = f"{lead}{frame}.{tail}"
    text = text[0].upper() + text[1:]
    return _Pair(
        text.format(t=thing, a=aspect, b=other_aspect, **fills["positive"]),
        text.format(t=thing, a=aspect, b=other_aspect, **fills["negative"]),
    )


def _draw(rng: Random, held_out: bool) -> Rows:
    """Returns the two rows of a pair."""
    pair = _pair(rng, HELD_OUT_FRAMES if held_out else TRAIN_FRAMES)
    return [
        {"text": pair.positive, "label": "positive"},
        {"text": pair.negative, "label": "negative"},
    ]


def reviews(num_rows: int, seed: int) -> dict[str, Rows]:
    """Returns review sentences whose sentiment is decided by negation, contrast and degree.

    The splits are "train" (`num_rows` rows), "validation" and "test" (`max(200, num_rows // 8)`
    rows each); a row is {"text": ..., "label": "negative" or "positive"}. Labels are balanced, and
    no text occurs twice, within a split or across splits. A bag-of-words classifier scores about
    55 %: except for "simple" frames (a quarter of the rows), every text has a counterpart in its
    split that is made of the same words and has the opposite label (but for the last row of an odd
    number). The test split is written with `HELD_OUT_FRAMES`, the others with `TRAIN_FRAMES`; all
    its words occur in a train split of several thousand rows.

    Raises ValueError if `num_rows` is less than 1.
    """
    return draw_splits("reviews", num_rows, seed, _draw)
