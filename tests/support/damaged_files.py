"""Draws data files of each kind, with damage of each kind, from a seed."""

import gzip
import json
import random
from collections.abc import Callable

WORDS = [
    "good",
    "bad",
    "so, so",
    'say "hi"',
    "naïve",
    "日本",
    "",
    "01",
    "null",
    "NA",
    "2020-01-01",
    "a\u2028b",
    "x;y",
    "1e5",
    "true",
    "tab\tin",
    "#",
    "'q'",
    "\\",
    "-1",
]
NAMES = ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt"]


def damaged_file(seed: int) -> tuple[str, bytes]:
    """Returns the name and the content of a file with up to three kinds of damage."""
    chance = random.Random(seed)
    name = chance.choice(NAMES)
    text = _sound(name, chance)
    for _ in range(chance.choice([0, 1, 1, 1, 1, 2, 3])):
        kinds = COMMON + (JSON if "json" in name else TABLE if name[-2:] == "sv" else [])
        text = chance.choice(kinds)(text, chance)
    content = chance.choice(ENCODINGS)(text)
    for _ in range(chance.choice([0, 0, 0, 1])):
        content = chance.choice(BYTES)(content, chance)
    if chance.random() < 0.15:
        name += ".gz"
        content = chance.choice([gzip.compress, _cut_zip, bytes])(content)
    return name, content


def _sound(name: str, chance: random.Random) -> str:
    rows = [
        {"text": chance.choice(WORDS) + f" {number}", "label": chance.choice(["0", "1", "01"])}
        for number in range(chance.choice([1, 3, 12]))
    ]
    if name == "a.csv":
        lines = [
            "text,label",
            *(f'"{r["text"].replace(chr(34), chr(34) * 2)}",{r["label"]}' for r in rows),
        ]
    elif name == "a.tsv":
        lines = ["text\tlabel", *(f"{r['text'].replace(chr(9), ' ')}\t{r['label']}" for r in rows)]
    elif name == "a.txt":
        lines = [r["text"] for r in rows]
    else:
        values = [
            {
                **r,
                "score": chance.choice([0, 1.5, None, 10**10]),
                "tags": ["a"] * chance.randrange(3),
            }
            for r in rows
        ]
        if name == "a.json" and chance.random() < 0.7:
            whole = chance.choice([values, values, {"version": "1", "data": values}])
            return json.dumps(whole, indent=chance.choice([None, 1]), ensure_ascii=False)
        lines = [json.dumps(value, ensure_ascii=chance.random() < 0.5) for value in values]
    return "\n".join([*lines, ""])


Damage = Callable[[str, random.Random], str]


def _insert(*pieces: str) -> Damage:
    def insert(text: str, chance: random.Random) -> str:
        place = chance.randrange(len(text) + 1)
        return text[:place] + chance.choice(pieces) + text[place:]

    return insert


def _replace(old: str, *new: str) -> Damage:
    def replace(text: str, chance: random.Random) -> str:
        places = [place for place in range(len(text)) if text.startswith(old, place)]
        if not places:
            return text
        if chance.random() < 0.3:
            return text.replace(old, chance.choice(new))
        place = chance.choice(places)
        return text[:place] + chance.choice(new) + text[place + len(old) :]

    return replace


def _lines(text: str, chance: random.Random) -> str:
    """Repeats, drops, swaps or glues lines."""
    lines = text.split("\n")
    place = chance.randrange(len(lines))
    change = chance.randrange(4)
    if change == 0:
        lines.insert(chance.randrange(len(lines) + 1), lines[place])
    elif change == 1:
        del lines[place]
    elif change == 2:
        lines.append(lines.pop(place))
    else:
        lines[place : place + 2] = ["".join(lines[place : place + 2])]
    return "\n".join(lines)


def _cut(text: str, chance: random.Random) -> str:
    start = chance.randrange(len(text) + 1)
    return text[:start] + text[start + chance.choice([1, 2, 5, 10**6]) :]


COMMON: list[Damage] = [
    _lines,
    _cut,
    _insert("\0", "\ufeff", "\u2028", "\x85", "\x0b", "\x0c", "\x1a", "\x1c", "é", "\U0001f600"),
    _insert("\r", "\n", "\r\n", "\n\n", "  \n", "\t\n"),
    _replace("\n", "\r\n", "\r", "\n\n", "\n \n", "\u2028"),
    _insert("x" * 200_000),
    lambda text, _: "\ufeff" + text,
    lambda text, _: text.rstrip("\n"),
    lambda _, chance: chance.choice(["", "\n", " ", "null", '"', "[]", "{}", "0", "text\n"]),
]
TABLE: list[Damage] = [
    _insert('"', '"', '""', "'", "\\", '","', "#"),
    _insert(",", "\t", ";", "|"),
    _replace(",", ";", "\t", "|", ",,", ", ", ""),
    _replace("\t", ",", " ", "\t\t", ""),
    _replace('"', "'", "", '""', '" '),
    _replace("label", "text", "", '"label"', "label,more", " label"),
    lambda text, _: text.partition("\n")[2],
    lambda text, _: text.partition("\n")[0] + "\n",
    lambda text, _: text + text,
    lambda text, _: "\n".join("," + line for line in text.split("\n")),
    lambda text, _: "\n".join(line + "," for line in text.split("\n")),
]
LARGE = (12345678901234567890, 2**64)
JSON: list[Damage] = [
    _replace('"0"', "0", "false", "NaN", "-Infinity", "1e400", "[0]", '{"a": 0}', "null", "0x1"),
    _replace('"1"', "1", "1.0", "true", str(2**63), str(2**63 - 1), "1" * 5000, '"\\ud800"', "{}"),
    _replace(
        '"01"', "01", '"\\u0000"', '"\\ud83d\\ude00"', '{"b": 1}', '[1, "a"]', "0.1234567890123"
    ),
    _replace('"label"', '"text"', '"extra"', '""', '"row of the source"', "label"),
    _replace('"score": ', '"score": ' + "[" * 40, '"score": ' + '{"a":' * 3000, '"label": '),
    _replace(
        "10000000000",
        "1e10",
        *map(str, LARGE),
        "18446744073709551616",
        "9007199254740993",
        "1e-12",
        "[[[1]]]",
    ),
    _replace("{", "[", "{,", "{{", '{"text": "z", '),
    _replace("}", "", "},", "}}", "}\n{", "} {", "]"),
    lambda text, _: "[" * 100_000 + text,
    lambda text, _: '"' + text,
    lambda text, _: f"[{text}]",
    lambda text, _: text + text,
    lambda text, _: '{"data": ' + text + "}",
    lambda *_: '{"type": "a", "message": {"a": 1}}\n{"type": "b", "message": {"b": 1}}\n',
]
ENCODINGS: list[Callable[[str], bytes]] = [
    *[str.encode] * 12,
    lambda text: text.encode("latin-1", "replace"),
    lambda text: text.encode("utf-16"),
    lambda text: text.encode("utf-16-le"),
    lambda text: text.encode("cp1252", "replace"),
]


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content or b"x")
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


BYTES: list[Callable[[bytes, random.Random], bytes]] = [
    _flip,
    lambda content, chance: content[: chance.randrange(len(content) + 1)],
    lambda content, chance: content + bytes([chance.randrange(256)]),
]


def _cut_zip(content: bytes) -> bytes:
    zipped = gzip.compress(content)
    return zipped[: len(zipped) * 2 // 3]
