"""What `trainer`, `python -m trainer` and `accelerate launch -m trainer` run."""

import os
import signal

for _number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
    # For the moment until `signals` is imported. A closed terminal is ignored under nohup.
    if _number != signal.SIGHUP or signal.getsignal(_number) is not signal.SIG_IGN:
        signal.signal(_number, lambda number, _: os._exit(130 if number == signal.SIGINT else 85))

import sys  # noqa: E402

from trainer.process import outlets, signals  # noqa: E402


def main() -> None:
    """Runs the command line in a process of its own, which hears signals from here to its end."""
    outlets.open_outlets()  # first: a descriptor that is closed would be the listener's
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
