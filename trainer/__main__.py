"""What `python -m trainer` and `accelerate launch -m trainer` run."""

from trainer.cli import main

if __name__ == "__main__":
    main()
