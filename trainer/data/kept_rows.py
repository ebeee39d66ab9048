"""Rows of files, read once and cached under a hash of the files' content."""

import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from trainer.data.formats.reading import Tables, faults_named, is_zipped, opened, shown
from trainer.errors import DataError
from trainer.files.cache import cache_folder, content_key
from trainer.files.kept_folder import write_once
from trainer.wording import excerpt

if TYPE_CHECKING:
    from datasets import Dataset, Features

FORMAT = 1
"""Incremented when the rows read from the same files change, so that older ones are not reused."""

Read = Callable[[Path, list[str]], "tuple[Features, Tables]"]
"""Reads files: gets a scratch folder and a list to append notes to; returns features and rows."""


def kept_rows(
    files: Sequence[Path], settings: dict[str, Any], read: Read
) -> "tuple[Dataset, list[str]]":
    """Returns the rows of files and notes on them, calling `read` unless both are cached."""
    import datasets

    key = _key(files, settings)

    def write(folder: Path) -> None:
        notes: list[str] = []
        scratch = folder / "scratch"
        features, tables = read(scratch, notes)
        _write(folder / "rows.arrow", features, tables)
        (folder / "notes.json").write_text(json.dumps(notes))
        shutil.rmtree(scratch, ignore_errors=True)

    folder = write_once(cache_folder() / "rows" / key, write)
    try:
        rows = datasets.Dataset.from_file(str(_linked(folder / "rows.arrow")))
        notes = json.loads((folder / "notes.json").read_text())
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise DataError(
            f"{folder} cannot be read ({excerpt(error)})", key=str(folder), hint="delete it"
        ) from error
    return rows, notes


def checked_once(
    files: Sequence[Path], settings: dict[str, Any], check: Callable[[], object]
) -> None:
    """Calls `check` unless it has already passed for files with the same content."""
    key = _key(files, {"check": settings})

    def write(folder: Path) -> None:
        check()
        (folder / "passed").touch()

    write_once(cache_folder() / "rows" / key, write)


def rows_of_library(kind: str, files: Sequence[Path], scratch: Path, **options: Any) -> "Dataset":
    """Returns the rows as the `datasets` library reads files of a kind.

    The library interprets file names as patterns and URLs, so it reads links with plain names.
    """
    import datasets

    with TemporaryDirectory(prefix="trainer-") as folder, quiet():
        names = [str(Path(folder) / f"{place}.{kind}") for place in range(len(files))]
        for name, file in zip(names, files, strict=True):
            plain = _unzipped(file, scratch) if is_zipped(file) else file.absolute()
            Path(name).symlink_to(plain)
        rows = datasets.load_dataset(
            kind, data_files=names, split="train", cache_dir=str(scratch), **options
        )
    return cast("Dataset", rows)


def _unzipped(file: Path, scratch: Path) -> Path:
    scratch.mkdir(exist_ok=True)
    with (
        faults_named(file),
        opened(file) as content,
        NamedTemporaryFile(dir=scratch, delete=False) as plain,
    ):
        shutil.copyfileobj(content, plain)
    return Path(plain.name).absolute()


def tables_of(rows: "Dataset") -> Tables:
    return cast(Any, rows).with_format("arrow").iter(batch_size=1000)


def _linked(file: Path) -> Path:
    """Returns a link, in the library's cache, to cached rows.

    The library writes what it derives from rows next to their file: there, and not in our cache.
    """
    from datasets.config import HF_DATASETS_CACHE

    link = Path(HF_DATASETS_CACHE) / "trainer-rows" / file.parent.name / file.name
    try:
        if not link.exists() or not link.samefile(file):
            link.parent.mkdir(parents=True, exist_ok=True)
            new = link.with_name(f"{link.name}-{uuid4().hex[:8]}")
            new.symlink_to(file.absolute())
            new.replace(link)
    except OSError as error:
        raise DataError(
            f"{link.parent} cannot be written ({error.strerror})",
            key=str(link.parent),
            hint="HF_HOME moves it",
        ) from error
    return link


def _write(file: Path, features: "Features", tables: Tables) -> None:
    import pyarrow as pa

    schema = features.arrow_schema
    with file.open("wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
        for table in tables:
            writer.write_table(table.cast(schema))


def _key(files: Sequence[Path], settings: dict[str, Any]) -> str:
    import datasets

    return content_key(
        rows_format=FORMAT,
        files=[(shown(file), _digest(file)) for file in files],
        settings=settings,
        library=datasets.__version__,
    )


def _digest(file: Path) -> str:
    with faults_named(file), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def quiet() -> Generator[None]:
    """Context manager: keeps the library from printing errors that it also raises."""
    import datasets

    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)
