"""Prints which libraries that are slow to import have been imported by an everyday use.

python heavy_imports.py package|commands|recipe|watch RUN_DIR
"""

import sys

HEAVY = {
    *("accelerate", "click", "datasets", "evaluate", "numpy", "pydantic", "torch", "tqdm"),
    *("transformers", "yaml"),
}


def package() -> None:
    """`import trainer`, and a look at its names."""
    import trainer

    assert set(trainer.__all__) <= set(dir(trainer))


def commands() -> None:
    """Commands that only print what they know."""
    from click.testing import CliRunner

    from trainer.cli.app import main

    for arguments in (["--help"], ["train", "--help"], ["recipes"], ["--version"]):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, (arguments, done.output)


def recipe() -> None:
    """A recipe is read and validated."""
    from trainer.tasks.recipe import load_recipe

    load_recipe("demo")


def watch() -> None:
    """A run that has ended is watched."""
    from click.testing import CliRunner

    from trainer.cli.app import main

    done = CliRunner().invoke(main, ["watch", sys.argv[2]])
    assert done.exit_code == 0, done.output


globals()[sys.argv[1]]()
print(*sorted(HEAVY & set(sys.modules)))
