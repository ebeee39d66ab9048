"""Documents of several paragraphs, each about one invented place and its people."""

from itertools import product
from random import Random

from trainer.data.builtin.draws import (
    Rows,
    capitalized,
    choose,
    draw_splits,
    is_held_out,
    sample,
)

# Subject of a document to the words that fill each slot of the sentences.
# Workers, goods, tools and troubles are plural, so that "the {goods} are ..." is correct.
SUBJECTS: dict[str, dict[str, tuple[str, ...]]] = {
    "orchard": {
        "workers": ("gardeners", "pickers", "pruners"),
        "goods": ("pears", "plums", "quinces"),
        "tools": ("ladders", "baskets", "shears"),
        "part": ("cold cellar", "south wall", "old pear tree"),
        "troubles": ("late frosts", "wasps", "hungry deer"),
    },
    "harbour": {
        "workers": ("sailors", "pilots", "dockers"),
        "goods": ("herrings", "ropes", "barrels"),
        "tools": ("nets", "cranes", "hooks"),
        "part": ("long pier", "lighthouse", "customs house"),
        "troubles": ("storms", "fogs", "high tides"),
    },
    "observatory": {
        "workers": ("astronomers", "students", "observers"),
        "goods": ("star maps", "lenses", "almanacs"),
        "tools": ("telescopes", "clocks", "mirrors"),
        "part": ("great dome", "night room", "brass telescope"),
        "troubles": ("clouds", "city lights", "bats"),
    },
    "mill": {
        "workers": ("millers", "carters", "masons"),
        "goods": ("loaves", "sacks of flour", "oat cakes"),
        "tools": ("millstones", "sieves", "scales"),
        "part": ("water wheel", "grain loft", "weir"),
        "troubles": ("floods", "mice", "dry summers"),
    },
    "library": {
        "workers": ("librarians", "binders", "readers"),
        "goods": ("manuscripts", "atlases", "letters"),
        "tools": ("catalogues", "lamps", "presses"),
        "part": ("reading room", "map cabinet", "iron staircase"),
        "troubles": ("moths", "leaks", "thieves"),
    },
    "quarry": {
        "workers": ("stonecutters", "smiths", "drivers"),
        "goods": ("slates", "marble blocks", "millstones"),
        "tools": ("chisels", "wedges", "sledges"),
        "part": ("deep pit", "cable track", "powder shed"),
        "troubles": ("rockfalls", "dust", "springs of water"),
    },
    "theatre": {
        "workers": ("actors", "painters", "musicians"),
        "goods": ("comedies", "operas", "puppet plays"),
        "tools": ("masks", "curtains", "costumes"),
        "part": ("trap door", "gallery", "orchestra pit"),
        "troubles": ("bad reviews", "debts", "empty seats"),
    },
    "vineyard": {
        "workers": ("vintners", "harvesters", "coopers"),
        "goods": ("grapes", "raisins", "bottles of wine"),
        "tools": ("casks", "knives", "trellises"),
        "part": ("stone press", "upper terrace", "tasting room"),
        "troubles": ("hailstorms", "mildew and rot", "starlings"),
    },
}
SEASONS = ("spring", "summer", "autumn", "winter")

# Openings of sentences; a quarter of the pairs of opening and sentence is held out for test.
OPENERS = (
    "",
    "according to a local history, ",
    "as the older people tell it, ",
    "so far as we know, ",
)
# Sentences by aspect: a document has a paragraph on some of the aspects, in this order, each made
# of some of its sentences. {place}, {town}, {founder}, {keeper} and {custom} are invented names.
ASPECTS: tuple[tuple[str, ...], ...] = (
    (
        "{place} is an old {subject} near {town}",
        "the {subject} of {place} lies an hour on foot from {town}",
        "travellers who come to {place} see the {part} first",
        "the name {place} is older than the {subject} itself",
        "few people who live in {town} have never been to {place}",
        "the {part} of {place} can be seen from the roofs of {town}",
    ),
    (
        "{founder} founded the {subject} in {year} with nothing but a few {tools}",
        "before {year} there was only grass where the {part} stands now",
        "{founder} came from {town} and had never owned {tools} before",
        "the first {workers} were paid by {founder} in {goods}",
        "the {part} was built by {founder} in the {season} after {year}",
        "a letter that {founder} wrote in {year} speaks of {troubles} and of hope",
    ),
    (
        "the {workers} of {place} begin before sunrise and put their {tools} away at dusk",
        "without good {tools} the {workers} would hardly get any {goods}",
        "every {season} the {goods} are carried past the {part} and down to {town}",
        "the {goods} from {place} are dearer than others, and {town} buys them all the same",
        "the younger {workers} learn to mend the {tools} from {keeper}",
        "each of the {workers} has a corner near the {part} where the {tools} are kept",
    ),
    (
        "the {workers} fear nothing as much as {troubles}",
        "in {later} came the worst {troubles} that {place} has seen",
        "when {troubles} come, the {workers} gather at the {part}",
        "half of the {goods} were lost to {troubles} in a single {season}",
        "against {troubles} the {workers} of {place} have only patience and their {tools}",
        "{keeper} keeps a list of all the {troubles} since the time of {founder}",
    ),
    (
        "the feast of {custom} is held at the {part} once a year",
        "at {custom} the {workers} hang their {tools} with ribbons",
        "nobody from {town} misses {custom}, whatever the {season} brings",
        "for {custom} the best {goods} are set aside",
        "{custom} began when {founder} wanted to thank the {workers}",
        "a song about {founder} and the {part} is sung at {custom}",
    ),
    (
        "today {keeper} looks after {place} and its {workers}",
        "{keeper} would like to show the {part} to more people from {town}",
        "there is talk in {town} of new {tools} for the {workers}",
        "the {subject} still sells its {goods} every {season}",
        "a portrait of {founder} hangs in the house of {keeper}",
        "whoever visits {place} should ask {keeper} about {custom}",
    ),
)

ONSETS = tuple("b br d dr f g gr h k l m n p r s st t tr v z".split())
RHYMES = tuple("a e i o u al an ar el en er il in ol on or um us".split())
NAMES = tuple(
    capitalized(onset + vowel + middle + rhyme)
    for onset, vowel, middle, rhyme in product(ONSETS, "aeiou", "bdgklmnrstvz", RHYMES)
)
ENDINGS = ("beth", "dell", "mar", "ston", "vik", "wick")


def frames(aspect: int, held_out: bool) -> list[list[str]]:
    """Returns, for each sentence of an aspect, its templates: one for each possible opening.

    `held_out` selects the openings of the test split, otherwise those of the other splits.
    """
    return [
        [opener + body for j, opener in enumerate(OPENERS) if is_held_out(i, j) == held_out]
        for i, body in enumerate(ASPECTS[aspect])
    ]


FRAMES = {flag: [frames(i, flag) for i in range(len(ASPECTS))] for flag in (False, True)}


def _draw(rng: Random, held_out: bool) -> Rows:
    """Returns one document: a paragraph on each of two to six aspects of its subject."""
    subject = choose(rng, tuple(SUBJECTS))
    # Two words a slot, so that documents on the same subject differ.
    words = {slot: sample(rng, options, 2) for slot, options in SUBJECTS[subject].items()}
    custom, place, town, *people = sample(rng, NAMES, 7)
    year = 1700 + int(rng.random() * 200)
    names = {
        "subject": subject,
        "place": place + choose(rng, ENDINGS),
        "town": town + choose(rng, ENDINGS),
        "founder": f"{people[0]} {people[1]}",
        "keeper": f"{people[2]} {people[3]}",
        "custom": custom,
        "year": str(year),
        "later": str(year + 1 + int(rng.random() * 100)),
    }
    paragraphs: list[str] = []
    for aspect in sorted(sample(rng, range(len(ASPECTS)), 2 + int(rng.random() * 5))):
        sentences: list[str] = []
        for templates in sample(rng, FRAMES[held_out][aspect], 3 + int(rng.random() * 3)):
            template = templates[0] if rng.random() < 0.5 else choose(rng, templates)
            fillers = {slot: choose(rng, options) for slot, options in words.items()}
            sentence = template.format(**names, **fillers, season=choose(rng, SEASONS))
            sentences.append(f"{capitalized(sentence)}.")
        paragraphs.append(" ".join(sentences))
    return [{"text": "\n\n".join(paragraphs)}]


def documents(num_rows: int, seed: int) -> dict[str, Rows]:
    """Returns documents, each about one invented place with names and words of its own.

    The splits are "train" (`num_rows` rows), "validation" and "test" (`max(200, num_rows // 8)`
    rows each); a row is {"text": ...}, two to six paragraphs of three to five sentences, separated
    by blank lines. The names of a place, its town, its people and its feast recur throughout a
    document and rarely occur in another; each document has two words of its own for its workers,
    goods, tools and troubles. No sentence template occurs twice in a document. The test split
    combines openings and sentences in ways that the other splits do not.

    Raises ValueError if `num_rows` is less than 1.
    """
    return draw_splits("documents", num_rows, seed, _draw)
