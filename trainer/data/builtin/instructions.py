"""Instructions with exactly one correct answer, most of them on the words of an input."""

from collections.abc import Callable
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

WORDS = words_of(
    "apple bread cloud door eagle field garden hammer island jacket kettle lamp mirror needle "
    "ocean paper queen river stone table umbrella village window yellow zebra anchor bridge "
    "candle desert engine forest guitar house iron jungle king letter moon night orange pencil "
    "rain silver tree uncle violin water year bird cat dog fish green happy quick round small tall "
    "warm winter summer old new red blue white black open closed soft hard sweet bitter early late"
)
NAMES = words_of("Ana Ben Carla David Elif Farid Greta Hugo Ines Jonas Kemal Lena Marco Nadia Omar")
ORDINALS = words_of("first second third fourth fifth sixth seventh eighth")
NUMBERS = words_of("two three four five six")
# Facts about a person: the statement, what is asked about it, and the possible values.
FACTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("{} lives in {}.", "where {} lives", words_of("Lyon Oslo Turin Quito Kyoto Porto Lima Riga")),
    ("{} plays the {}.", "what {} plays", words_of("violin guitar flute harp drum trumpet cello")),
    ("{} has {} cousins.", "how many cousins {} has", words_of("two three four five six seven")),
    ("{} works as a {}.", "what {} works as", words_of("baker judge nurse pilot tailor farmer")),
)
DEEDS = words_of("painted found bought sold opened closed carried cleaned washed lost")
OBJECTS = words_of("boat lamp door kettle letter guitar mirror table jacket window bridge hammer")


class Example(NamedTuple):
    """An example of a task: the slots of its phrases, the input and the answer."""

    slots: dict[str, str]
    input: str
    output: str


def _on_words(answer: Callable[[list[str]], str]) -> Callable[[Random], Example]:
    """Returns a function that draws three to eight words and answers with `answer(words)`."""

    def draw(rng: Random) -> Example:
        words = sample(rng, WORDS, 3 + int(rng.random() * 6))
        return Example({}, " ".join(words), answer(words))

    return draw


def _nth(rng: Random) -> Example:
    words = sample(rng, WORDS, 3 + int(rng.random() * 6))
    index = int(rng.random() * len(words))
    return Example({"nth": ORDINALS[index]}, " ".join(words), words[index])


def _look_up(rng: Random) -> Example:
    names = sample(rng, NAMES, 2 + int(rng.random() * 3))
    facts = [(name, *choose(rng, FACTS)) for name in names]
    values = [choose(rng, options) for _, _, _, options in facts]
    statements = [
        statement.format(name, value)
        for (name, statement, _, _), value in zip(facts, values, strict=True)
    ]
    index = int(rng.random() * len(facts))
    name, _, question, _ = facts[index]
    return Example({"fact": question.format(name)}, " ".join(statements), values[index])


def _passive(rng: Random) -> Example:
    name, deed, thing = choose(rng, NAMES), choose(rng, DEEDS), choose(rng, OBJECTS)
    quality = choose(rng, ("", "old ", "new ", "small ", "green ", "red "))
    return Example(
        {"thing": thing},
        f"{name} {deed} the {quality}{thing}.",
        f"The {quality}{thing} was {deed} by {name}.",
    )


def _many_times(rng: Random) -> Example:
    word, times = choose(rng, WORDS), int(rng.random() * len(NUMBERS))
    slots = {"word": word, "times": NUMBERS[times]}
    return Example(slots, "", " ".join([word] * (times + 2)))


def _count_up(rng: Random) -> Example:
    start = 1 + int(rng.random() * 90)
    numbers = [str(start + step) for step in range(3 + int(rng.random() * 5))]
    return Example({"start": numbers[0], "end": numbers[-1]}, "", " ".join(numbers))


# Name of a task to the phrases that ask for it and the function that draws an example.
TASKS: dict[str, tuple[tuple[str, ...], Callable[[Random], Example]]] = {
    "repeat": (
        (
            "repeat the input word for word",
            "copy the input as it is",
            "write the input again without any change",
            "give back the same words",
        ),
        _on_words(" ".join),
    ),
    "reverse": (
        (
            "reverse the order of the words",
            "write the words from last to first",
            "list the words backwards",
            "begin with the last word and end with the first",
        ),
        _on_words(lambda words: " ".join(reversed(words))),
    ),
    "uppercase": (
        (
            "write the input in capital letters",
            "turn all letters into capitals",
            "change the words to upper case",
            "make every letter a capital",
        ),
        _on_words(lambda words: " ".join(words).upper()),
    ),
    "count": (
        (
            "count the words",
            "say how many words there are in the input",
            "give the number of words",
            "find out how many words the input has",
        ),
        _on_words(lambda words: str(len(words))),
    ),
    "sort": (
        (
            "sort the words by the alphabet",
            "put the words into alphabetical order",
            "order the words from a to z",
            "list the words as a dictionary would",
        ),
        _on_words(lambda words: " ".join(sorted(words))),
    ),
    "nth": (
        (
            "give the {nth} word of the input",
            "write only the {nth} word",
            "find the {nth} of the words",
            "say which word is the {nth} one",
        ),
        _nth,
    ),
    "look up": (
        (
            "say {fact}",
            "read the input and say {fact}",
            "find out {fact}",
            "use the input to say {fact}",
        ),
        _look_up,
    ),
    "passive": (
        (
            "write the sentence in the passive",
            "begin the sentence with the {thing}",
            "rewrite the sentence so that it is about the {thing}",
            "change the sentence from active to passive",
        ),
        _passive,
    ),
    "many times": (
        (
            "write the word {word} {times} times",
            "repeat {word} {times} times",
            "say {word} {times} times in a row",
            "give the word {word} {times} times over",
        ),
        _many_times,
    ),
    "count up": (
        (
            "count from {start} to {end}",
            "write the numbers from {start} to {end}",
            "list all numbers from {start} up to {end}",
            "begin at {start} and count up to {end}",
        ),
        _count_up,
    ),
}
REQUESTS = ("{}.", "please {}.", "your task is to {}.", "could you {}?")


def phrasings(task: str, held_out: bool) -> list[str]:
    """Returns the instructions of a task, those of the test split if `held_out`."""
    return [
        capitalized(request.format(phrase))
        for i, request in enumerate(REQUESTS)
        for j, phrase in enumerate(TASKS[task][0])
        if is_held_out(i, j) == held_out
    ]


PHRASINGS = {flag: {task: phrasings(task, flag) for task in TASKS} for flag in (False, True)}


def _draw(rng: Random, held_out: bool) -> Rows:
    """Returns one instruction with its answer."""
    task = choose(rng, tuple(TASKS))
    example = TASKS[task][1](rng)
    instruction = choose(rng, PHRASINGS[held_out][task]).format(**example.slots)
    return [{"instruction": instruction, "input": example.input, "output": example.output}]


def instructions(num_rows: int, seed: int) -> dict[str, Rows]:
    """Returns instructions of ten simple tasks, each with its only correct answer.

    The splits are "train" (`num_rows` rows), "validation" and "test" (`max(200, num_rows // 8)`
    rows each); a row is {"instruction": ..., "input": ..., "output": ...}, and the input is empty
    if the instruction needs none. No pair of instruction and input occurs twice, within a split or
    across splits. The test split has phrasings that the others lack, made of parts that they have.

    Raises ValueError if `num_rows` is less than 1.
    """
    return draw_splits("instructions", num_rows, seed, _draw)
