"""Rows from SQuAD's own JSON, versions 1.1 and 2.0: articles of paragraphs of questions.

Rajpurkar et al. 2016 (https://arxiv.org/abs/1606.05250) and 2018 (1806.03822). The rows are those
of squad and squad_v2 on the hub.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.answers import is_impossible
from trainer.data.formats.json_files import whole_value
from trainer.data.formats.reading import opened, shown
from trainer.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

HEAD = 64 * 1024
"""Bytes at the beginning of a file that are checked for SQuAD's format."""

# Only numbers and texts may precede the list of articles.
ARTICLES = re.compile(r'\s*\{[^\[{]*"data"\s*:\s*\[\s*\{.*?"(?:paragraphs|qas)"\s*:', re.DOTALL)

# Lists of articles or of paragraphs, as simpletransformers and annotation tools write them.
BARE = re.compile(
    r'\s*\[\s*\{\s*"(?:context|title|qas|paragraphs)"\s*:.*?(?<!\\)"(?:paragraphs|qas)"\s*:\s*\[',
    re.DOTALL,
)


def is_squad_json(file: Path) -> bool:
    """Returns whether a JSON file begins like SQuAD's; reads only its first HEAD bytes."""
    try:
        with opened(file) as stream:
            head = stream.read(HEAD).decode("utf-8-sig", errors="ignore")
    except (OSError, EOFError, zlib.error):
        return False
    return ARTICLES.match(head) is not None or BARE.match(head) is not None


def read_squad_json(files: Sequence[Path]) -> "Dataset":
    """Returns rows of id, title, context, question and answers (lists of text and answer_start).

    `answers` is null if a question does not mention them. A column is_impossible is added if it
    contradicts the answers of some question. Each file is read into memory whole. Raises DataError
    that names the file and the article, paragraph or question at fault.
    """
    import datasets
    import pyarrow as pa

    features = datasets.Features(
        {
            **dict.fromkeys(("id", "title", "context", "question"), datasets.Value("string")),
            "answers": {
                "text": datasets.List(datasets.Value("string")),
                "answer_start": datasets.List(datasets.Value("int32")),
            },
        }
    )
    with_mark = datasets.Features({**features, "is_impossible": datasets.Value("bool")})
    tables = [with_mark.arrow_schema.empty_table()]
    contradicted = False
    for file in files:
        for number, article in enumerate(_articles(file), 1):
            rows = list(_rows(article, f"{shown(file)}, article {number}"))
            contradicted = contradicted or any(map(_contradicts, rows))
            tables.append(pa.Table.from_pylist(rows, schema=with_mark.arrow_schema))
    table = pa.concat_tables(tables)
    if contradicted:  # the task reports which rows
        return datasets.Dataset(table, info=datasets.DatasetInfo(features=with_mark))
    table = table.drop_columns(["is_impossible"]).cast(features.arrow_schema)
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features))


def _contradicts(row: dict[str, Any]) -> bool:
    mark, answers = row["is_impossible"], row["answers"]
    return mark is not None and answers is not None and mark == bool(answers["text"])


def _articles(file: Path) -> list[Any]:
    content = whole_value(file)
    if isinstance(content, list):
        bare = bool(content) and isinstance(content[0], dict) and "paragraphs" not in content[0]
        return [{"paragraphs": content}] if bare else content
    return _part(content, "data", list, shown(file))


def _rows(article: Any, place: str) -> Iterator[dict[str, Any]]:
    for number, paragraph in enumerate(_part(article, "paragraphs", list, place), 1):
        paragraph_place = f"{place}, paragraph {number}"
        context = _part(paragraph, "context", str, paragraph_place)
        for index, question in enumerate(_part(paragraph, "qas", list, paragraph_place), 1):
            name = str(_part(question, "id", str | int, f"{paragraph_place}, question {index}"))
            question_place = f"{paragraph_place}, question {name}"
            try:
                impossible = is_impossible(question.get("is_impossible"))
            except DataError as error:
                raise error.after(f"{question_place}: ") from error
            has_answers = question.get("answers") is not None
            answers = _part(question, "answers", list, question_place) if has_answers else []
            texts = [_part(answer, "text", str, question_place) for answer in answers]
            starts = [_part(answer, "answer_start", int, question_place) for answer in answers]
            is_known = has_answers or impossible
            yield {
                "id": name,
                "title": str(article.get("title", "")),
                "context": context,
                "question": _part(question, "question", str, question_place),
                "answers": {"text": texts, "answer_start": starts} if is_known else None,
                "is_impossible": impossible,
            }


def _part(of: Any, key: str, kind: Any, place: str) -> Any:
    """Returns `of[key]`; raises DataError, naming the place, unless it is of type `kind`."""
    if not isinstance(of, dict) or not isinstance(of.get(key), kind) or isinstance(of[key], bool):
        wrong = "has no" if not isinstance(of, dict) or key not in of else "has a wrong"
        hint = "fix it there, as SQuAD's format has it"
        raise DataError(f"{place} {wrong} {key}", key=key, hint=hint)
    return of[key]
