"""Passages of several facts, with questions they answer and questions they only seem to answer."""

from random import Random
from typing import NamedTuple

from trainer.data.builtin.draws import (
    Rows,
    capitalized,
    choose,
    draw_splits,
    is_held_out,
    sample,
    words_of,
)

FIRST_NAMES = words_of(
    "Zoë Søren Łucja José Åsa Chloé Jürgen Amélie Martha Edwin Clara Henrik Iris"
)
LAST_NAMES = words_of(
    "Lindqvist Müller Çelik Nguyễn Kowalski Castañeda Ødegård Barlow Fenwick Hartley Ilves Moreau "
    "Novák Oakes Petrov Quist Ramsey Sato Tanner Varga"
)
TOWNS = words_of(
    "Ormvik Brønsted Calder Dunmore Elsworth Fairholt Gävlund Halden Inverley Jarrow Kesten "
    "Lomond Marwick Nørby Oldenau Pérouges Quarley Rosby Saltmere Thornby Ulverå Westerholm"
)
PEOPLE = tuple(f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES)
SHIPS = tuple(
    f"the {quality} {bird}"
    for quality in words_of("Bright Silent Northern Golden Swift Brave Restless")
    for bird in words_of("Heron Petrel Swan Falcon Gannet Plover Kestrel")
)
YEARS = tuple(str(year) for year in range(1790, 1990))
VALUES = {
    "person": PEOPLE,
    "town": TOWNS,
    "year": YEARS,
    "crowd": tuple(f"{number:,}" for number in range(1150, 98000, 350)),
    "trade": words_of("botanist surveyor printer glassblower cartographer violinist clockmaker"),
    "prize": tuple(
        f"{metal} {thing}"
        for metal in words_of("Copper Silver Amber Crystal")
        for thing in words_of("Quill Lantern Compass Anchor")
    ),
    "river": words_of("Aller Brint Ceiriog Dove Eskå Firth Lune Severn Tamar Yarrow Ätran"),
    "goods": words_of("wool cheese tiles honey rope lace cider copper timber barley soap candles"),
}

# Attributes of an entity {e}: the kind of the value {v}, two statements and, on the next line, two
# questions.
PERSON = """
town    {e} was born in the town of {v} | {v} is the place where {e} was born
        where was {e} born | in which town was {e} born
year    the birth of {e} was in {v} | {e} was born in the year {v}
        when was {e} born | in which year was {e} born
trade   {e} worked as a {v} for many years | people knew {e} as a {v}
        what did {e} work as | what was the trade of {e}
person  {e} learned everything from {v} | {v} was the teacher of {e}
        who taught {e} | who was the teacher of {e}
prize   {e} was given the {v} prize | the {v} prize went to {e}
        which prize went to {e} | which prize was given to {e}
town    {e} later moved to {v} | {e} spent the last years in {v}
        where did {e} move later | where did {e} spend the last years
"""
TOWN = """
river   {e} lies on the river {v} | the river {v} runs through {e}
        on which river does {e} lie | which river runs through {e}
year    {e} was founded in {v} | settlers founded {e} in the year {v}
        when was {e} founded | in which year was {e} founded
crowd   {e} has {v} inhabitants | about {v} people live in {e}
        how many inhabitants does {e} have | how many people live in {e}
person  the mayor of {e} is {v} | {v} was elected mayor of {e}
        who is the mayor of {e} | who was elected mayor of {e}
goods   {e} is known for its {v} | most families in {e} live by selling {v}
        what is {e} known for | what do most families in {e} sell
"""
SHIP = """
year    {e} was launched in {v} | the launch of {e} was in the year {v}
        when was {e} launched | in which year was the launch of {e}
town    {e} was built in {v} | the yard at {v} built {e}
        where was {e} built | in which town was {e} built
person  the captain of {e} was {v} | {v} commanded {e}
        who was the captain of {e} | who commanded {e}
goods   {e} carried {v} | the hold of {e} was full of {v}
        what did {e} carry | what was the hold of {e} full of
town    {e} sank off the coast near {v} | a storm near {v} was the end of {e}
        where did {e} sink | near which town did {e} sink
"""


class Attribute(NamedTuple):
    """An attribute of an entity: its possible values, statements of it and questions about it."""

    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]


def _attributes(table: str) -> list[Attribute]:
    lines = [line.strip() for line in table.strip().splitlines()]
    attributes: list[Attribute] = []
    for stating, asking in zip(lines[::2], lines[1::2], strict=True):
        kind, statements = stating.split(maxsplit=1)
        templates = (tuple(text.split(" | ")) for text in (statements, asking))
        attributes.append(Attribute(VALUES[kind], *templates))
    return attributes


DOMAINS = ((PEOPLE, _attributes(PERSON)), (TOWNS, _attributes(TOWN)), (SHIPS, _attributes(SHIP)))

# Openings of statements and frames of questions; a quarter of the combinations is held out.
OPENERS = ("", "as the records show, ", "by all accounts, ", "without any doubt, ")
LEADS = (
    "{}?",
    "according to the passage, {}?",
    "{}, if the text is right?",
    "from what is written here, {}?",
)
# Sentences that answer no question.
ASIDES = (
    "The archive in which this was found is open on weekdays, and visitors need no ticket.",
    "A fire destroyed many papers of that time, but a few drawings survived it.",
    "Nobody who has written about it since agrees on all of the details.",
    "Several books have been published on the subject, most of them out of print by now.",
    "The winters were long in those days, and news took weeks to travel from one coast to the "
    "other.",
    "Some of these stories are still told to children on winter evenings.",
    "In {year} the road to {town} was paved, which had little to do with any of this.",
    "A visitor from {town} wrote about it at length in {year}, and with more zeal than care.",
)


def templates(
    openings: tuple[str, ...], bodies: tuple[str, ...], attribute_index: int, held_out: bool
) -> list[str]:
    """Returns the openings combined with the statements or questions of an attribute.

    `held_out` selects the combinations of the test split, otherwise those of the other splits.
    """
    return [
        opening.format(body) if "{}" in opening else opening + body
        for i, opening in enumerate(openings)
        for j, body in enumerate(bodies)
        if is_held_out(i, j, attribute_index) == held_out
    ]


class _Fact(NamedTuple):
    entity: str
    attribute: Attribute
    attribute_index: int


class _Passage(NamedTuple):
    context: str
    answers: dict[_Fact, tuple[str, int]]
    """Value of each stated fact, and the index of its first character in the context."""


def _fresh(rng: Random, options: tuple[str, ...], used: set[str]) -> str:
    """Returns an option none of whose words is in `used`, and adds its words there."""
    while True:
        option = choose(rng, options)
        words = set(option.split()) - {"the"}
        if used.isdisjoint(words):
            used |= words
            return option


def _choose_facts(rng: Random, facts: list[_Fact]) -> tuple[list[_Fact], list[_Fact]]:
    """Returns facts to state, and unstated facts like those that are stated of another entity."""
    while True:
        stated = sample(rng, facts, 4 + int(rng.random() * 5))
        entities = {fact.entity for fact in stated}
        attributes = {fact.attribute_index for fact in stated}
        unstated = [
            fact
            for fact in facts
            if fact not in stated and fact.entity in entities and fact.attribute_index in attributes
        ]
        if unstated:
            return stated, unstated


def _write(rng: Random, stated: list[_Fact], used: set[str], held_out: bool) -> _Passage:
    """Returns a passage that states the facts, with unrelated sentences among them."""
    asides = sample(rng, ASIDES, len(ASIDES))
    sentences: list[_Fact | str] = list(stated)
    for _ in range(int(rng.random() * 3)):
        sentences.insert(int(rng.random() * (len(sentences) + 1)), asides.pop())
    context, answers, named = "", dict[_Fact, tuple[str, int]](), set[str]()
    while sentences or len(context.split()) < 30:
        context += " " if context else ""
        item = sentences.pop(0) if sentences else asides.pop()
        if isinstance(item, str):
            context += item.format(year=_fresh(rng, YEARS, used), town=_fresh(rng, TOWNS, used))
            continue
        name = item.entity
        if name in PEOPLE and name in named and rng.random() < 0.6:
            name = name.split()[-1]
        named.add(item.entity)
        statements = templates(OPENERS, item.attribute.statements, item.attribute_index, held_out)
        before, after = choose(rng, statements).replace("{e}", name).split("{v}")
        value = _fresh(rng, item.attribute.values, used)
        answers[item] = value, len(context) + len(before)
        context += capitalized(f"{before}{value}{after}.")
    return _Passage(context, answers)


def _draw(rng: Random, held_out: bool) -> Rows:
    """Returns the rows of one passage: two questions that it answers and one that it does not."""
    names, attributes = choose(rng, DOMAINS)
    used: set[str] = set()
    entities = [_fresh(rng, names, used) for _ in range(2 + int(rng.random() * 2))]
    facts = [_Fact(name, attributes[i], i) for name in entities for i in range(len(attributes))]
    stated, unstated = _choose_facts(rng, facts)
    if rng.random() < 0.5:  # one entity after the other, or mixed
        stated.sort(key=lambda fact: entities.index(fact.entity))
    passage = _write(rng, stated, used, held_out)
    rows: Rows = []
    for fact in (*sample(rng, stated, 2), choose(rng, unstated)):
        questions = templates(LEADS, fact.attribute.questions, fact.attribute_index, held_out)
        answers = [passage.answers[fact]] if fact in passage.answers else []
        rows.append(
            {
                "title": capitalized(stated[0].entity),
                "context": passage.context,
                "question": capitalized(choose(rng, questions).replace("{e}", fact.entity)),
                "answers": {
                    "text": [text for text, _ in answers],
                    "answer_start": [start for _, start in answers],
                },
            }
        )
    return rows


def passages(num_rows: int, seed: int) -> dict[str, Rows]:
    """Returns passages with questions, a third of which the passage does not answer.

    The splits are "train" (`num_rows` rows), "validation" and "test" (`max(200, num_rows // 8)`
    rows each); a row has the columns of SQuAD 2.0: {"id", "title", "context", "question",
    "answers": {"text": [...], "answer_start": [...]}}, where starts count characters and both
    lists are empty if there is no answer. A passage states four to eight facts about two or three
    people, towns or ships. It has three questions (the last of a split may have fewer), all in one
    split. A question without an answer asks about an entity of the passage for an attribute that
    the passage states only of another. The test split combines the parts of sentences and questions
    in ways that the others do not.

    Raises ValueError if `num_rows` is less than 1.
    """
    return {
        split: [{"id": f"{split}-{number}", **row} for number, row in enumerate(rows)]
        for split, rows in draw_splits("passages", num_rows, seed, _draw).items()
    }
