"""Articles: which questions of a split are about the same text."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from datasets import Dataset

TITLE = "title"
"""The column that names an article, in SQuAD and in data sets like it."""


def first_of_article(rows: "Dataset", indices: Iterable[int], context: str) -> list[int]:
    """Returns, for each of the row `indices`, the first of them that is about the same article.

    Rows of one article share their title or, if they have none, the column `context`.
    """
    numbers = [int(index) for index in indices]
    named = TITLE in rows.column_names
    columns = list(dict.fromkeys([context, *[TITLE] * named]))
    firsts = dict[tuple[str, Any], int]()
    articles: list[int] = []
    for chunk in rows.select(numbers).select_columns(columns).iter(batch_size=1000):
        values = cast(dict[str, list[Any]], chunk)
        titles: list[Any] = values[TITLE] if named else [None] * len(values[context])
        for title, text in zip(titles, values[context], strict=True):
            is_title = isinstance(title, str) and title.strip()
            key = (TITLE, title) if is_title else (context, text)
            articles.append(firsts.setdefault(key, numbers[len(articles)]))
    return articles
