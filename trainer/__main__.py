"""What `trainer`, `python -m trainer` and `accelerate launch -m trainer` run."""

import os
import signal

for _number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
    # Until `signals` is imported. Under nohup a closed terminal stays ignored.
    if _number != signal.SIGHUP or signal.getsignal(_number) is not signal.SIG_IGN:
        signal.signal(_number, lambda number, _: os._exit(130 if number == signal.SIGINT else 85))

import sys  # noqa: E402

from trainer.process import outlets, signals  # noqa: E402


def main() -> None:
    """Runs the command line; the process listens for signals from here to its end."""
    outlets.open_outlets()  # first: the listener would get a closed descriptor's number
    signals.start()
    from trainer.cli.app import main as command_line

    try:
        command_line()
    finally:
        signals.ignore_for_good()
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    main()
