"""`trainer chat`: a conversation on the terminal, or with lines of standard input."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from trainer.cli.options import DEBUG
from trainer.errors import DONE, TrainerError
from trainer.process import signals
from trainer.wording import visible

if TYPE_CHECKING:
    from trainer.prediction.dialogue import Dialogue

PROMPT = "> "


@click.command("chat")
@click.argument("model", metavar="RUN_DIR|MODEL")
@click.option("--compare", is_flag=True, help="Also answer with the base that the run tuned.")
@click.option("--system", metavar="TEXT", help="System prompt, put before the conversation.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1, 1_000_000),
    default=512,
    show_default=True,
    help="Maximum length of an answer in tokens.",
)
@DEBUG
def command(model: str, compare: bool, system: str | None, max_new_tokens: int) -> int:
    """Converse with a causal language model; /reset forgets, Ctrl-C stops an answer,
    /quit or Ctrl-D ends.

    With a chat template the conversation is remembered. Without one each line is a prompt of its
    own. Lines can also come from a pipe.
    """
    from trainer.distributed.environment_variables import check_variables
    from trainer.process.environment import quieted_libraries

    check_variables()
    interactive = sys.stdin.isatty()
    with quieted_libraries():
        from trainer.prediction.dialogue import open_dialogues

        dialogues = open_dialogues(
            model, compare=compare, system=system, max_new_tokens=max_new_tokens
        )
        if interactive:
            signals.raise_interrupts()
            click.echo(_greeting(next(iter(dialogues.values()))), err=True)
        for line in _lines(interactive):
            if line == "/quit":
                break
            if line == "/reset":
                for dialogue in dialogues.values():
                    dialogue.reset()
            elif interactive:
                _answer_or_say_why(dialogues, line)
            else:
                _answer(dialogues, line)
    return DONE


def _greeting(dialogue: "Dialogue") -> str:
    if dialogue.remembers:
        return "The conversation is remembered until /reset; /quit or Ctrl-D ends."
    return "There is no chat template: each line is a prompt of its own. /quit or Ctrl-D ends."


def _lines(interactive: bool) -> Iterator[str]:
    """Yields what is typed, or the lines of standard input; no empty ones."""
    piped = (line.decode("utf-8", "replace") for line in sys.stdin.buffer)
    yield from filter(None, map(str.strip, _typed() if interactive else piped))


def _typed() -> Iterator[str]:
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            print()
            return


def _answer_or_say_why(dialogues: "dict[str, Dialogue]", text: str) -> None:
    """Prints the answers or, if one fails or is stopped by Ctrl-C, why."""
    try:
        _answer(dialogues, text)
    except TrainerError as error:
        click.echo(f"trainer: {visible(str(error))}", err=True)
    except KeyboardInterrupt:
        click.echo("\ntrainer: stopped, and not remembered", err=True)


def _answer(dialogues: "dict[str, Dialogue]", text: str) -> None:
    """Prints the answer of each model while it comes, after its name if there are several.

    If one of them fails or is stopped, none of them remembers the text.
    """

    def show(piece: str) -> None:
        sys.stdout.write(visible(piece))
        sys.stdout.flush()

    before = [(dialogue, dialogue.messages) for dialogue in dialogues.values()]
    try:
        for name, dialogue in dialogues.items():
            if len(dialogues) > 1:
                show(f"{name}: ")
            dialogue.ask(text, show)
            print(flush=True)
    except BaseException:
        for dialogue, messages in before:
            dialogue.messages = messages
        raise
