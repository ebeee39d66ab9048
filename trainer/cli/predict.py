"""`trainer predict`: answers rows without targets by the model of a run, or any other."""

import json
import sys
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from trainer.cli.options import DEBUG, SET
from trainer.errors import DONE, ConfigError
from trainer.wording import excerpt, visible

if TYPE_CHECKING:
    from trainer.prediction.loading import LoadedModel
    from trainer.prediction.source import Source


@click.command("predict")
@click.argument("model", metavar="RUN_DIR|MODEL")
@click.argument("file", metavar="[INPUT|-]", required=False)
@click.option("--text", help="Answer this text in place of an input.")
@click.option("--text-pair", help="The second text of a pair.")
@click.option("--question", help="Answer this question in place of an input.")
@click.option("--context", help="The text that may hold the answer.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Default: JSON Lines on standard output. .csv, .tsv and .parquet are written as such.",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option(
    "--batch-size",
    default="auto",
    show_default=True,
    metavar="auto|N",
    help="Examples that the model reads at a time; halved if memory runs out.",
)
@SET
@click.option("--json", "as_json", is_flag=True, help="Print the one answer as a JSON object.")
@DEBUG
def command(
    model: str,
    file: str | None,
    text: str | None,
    text_pair: str | None,
    question: str | None,
    context: str | None,
    output: Path | None,
    overwrite: bool,
    batch_size: str,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Answer the rows of INPUT: labels, answers to questions, filled masks, continuations.

    INPUT is .jsonl, .json, .csv, .tsv, .parquet, .arrow or .txt (a text a line), plain or with .gz;
    - is standard input, JSON Lines or a text a line. Its columns are kept. With --output, a command
    that was killed continues when it is repeated, and several processes of a launch share the work.
    """
    named = {"text": text, "text_pair": text_pair, "question": question, "context": context}
    given = {name: value for name, value in named.items() if value is not None}
    if (file is None) == (not given):
        raise ConfigError(
            "there is nothing to answer" if file is None else "there are two inputs",
            key="INPUT",
            value=file,
            hint="give one of INPUT and --text (with --text-pair), or --question with --context",
        )
    if output is not None and (given or file == "-"):
        raise ConfigError(
            "--output: a command that reads no file cannot continue",
            key="--output",
            value=str(output),
            hint="redirect standard output in place of it",
        )
    from trainer.distributed.environment_variables import check_variables, is_main, num_ranks

    check_variables()
    if num_ranks() > 1 and output is None:
        raise ConfigError(
            "several processes cannot share standard output",
            key="--output",
            hint="name an --output, or start one process",
        )
    size = _number(batch_size)
    if output is not None:
        from trainer.prediction.output_file import check_output

        check_output(output, Path(str(file)), overwrite=overwrite)
    from trainer.process.environment import quieted_libraries

    with quieted_libraries():
        source = _source(model, file, overrides)
        from trainer.prediction.loading import load_source

        loaded = load_source(source, size)
        if given:
            _show(loaded, given, as_json=as_json)
        elif output is None:
            _print(loaded, str(file))
        else:
            from trainer.prediction.predict import predict_file

            progress = _show_progress if is_main() and sys.stderr.isatty() else None
            num_rows = predict_file(
                source, loaded, Path(str(file)), output, say=_say, progress=progress
            )
            if is_main():
                print(f"{num_rows:,} rows with answers: {visible(str(output))}")
    return DONE


def _number(batch_size: str) -> int | None:
    if batch_size == "auto":
        return None
    if not (batch_size.isascii() and batch_size.isdecimal() and 0 < int(batch_size[:8]) < 10**6):
        raise ConfigError(
            f"--batch-size {excerpt(batch_size)} is not a number",
            key="--batch-size",
            value=batch_size,
            hint="use auto, or a whole number above 0",
        )
    return int(batch_size)


def _source(model: str, file: str | None, overrides: tuple[str, ...]) -> "Source":
    """Returns where the model is, after a look at the input, which is cheaper."""
    if file not in (None, "-"):
        from trainer.data.streamed_rows import check_streamable

        check_streamable(Path(file))
    from trainer.prediction.source import find_source

    return find_source(model, overrides)


def _print(loaded: "LoadedModel", file: str) -> None:
    """Prints each row of an input with its answer as a line of JSON."""
    from trainer.data.streamed_rows import holds_lines, rows_of_input, streamed_rows
    from trainer.prediction.predict import answered_rows
    from trainer.process import outlets

    rows: Iterable[dict[str, Any]]
    if file == "-":
        rows, lines = rows_of_input(sys.stdin.buffer)
    else:
        csv = loaded.recipe.data.source.csv
        rows, lines = streamed_rows(Path(file), csv), holds_lines(Path(file))
    for row in answered_rows(loaded, rows, by_role=lines):
        print(_json(row))
        if outlets.reader_left():
            return


def _show(loaded: "LoadedModel", given: dict[str, str], *, as_json: bool) -> None:
    """Prints one answer: a line for each of its parts, or a JSON object."""
    from trainer.prediction.predict import answers_to

    roles = list(loaded.predictor.columns)
    as_texts = "text" in given and len(given) == len(roles)
    if not as_texts and set(given) != set(roles):
        asked = {"text", "text_pair", "question", "context"}.issuperset(roles)
        options = " ".join(f"--{role.replace('_', '-')}" for role in roles)
        raise ConfigError(
            f"this model reads {' and '.join(roles)}, not {' and '.join(given)}",
            key=f"--{next(iter(given))}",
            hint=f"give {options}" if asked else "give an INPUT with its columns",
        )
    (answer,) = answers_to(loaded, [tuple(given.values()) if as_texts else given])
    if as_json:
        print(_json(answer))
        return
    for name, value in answer.items():
        print(visible(f"{name:<22} {_shown(value)}"))


def _shown(value: Any) -> str:
    """Returns a part of an answer: the largest of several probabilities first, and a
    line for each mask."""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dict):
        shares = sorted(cast(dict[str, float], value).items(), key=itemgetter(1), reverse=True)
        return ", ".join(f"{name} {share:.4f}" for name, share in shares)
    if isinstance(value, list):
        masks = (
            ", ".join(f"{token['token']} {token['probability']:.4f}" for token in candidates)
            for candidates in value
        )
        return f"\n{'':<23}".join(masks)
    return "" if value is None else str(value)


def _json(value: dict[str, Any]) -> str:
    """Returns JSON on one line, in which no character does anything to a terminal."""
    from trainer.data.streamed_rows import as_json

    text = as_json(value)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _say(sentence: str) -> None:
    click.echo(f"trainer: {visible(sentence)}", err=True)


def _show_progress(num_rows: int) -> None:
    """Shows how far a command is, on a line that the next message replaces."""
    click.echo(f"{num_rows:,} rows\r", nl=False, err=True)
