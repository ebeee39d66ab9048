"""The shipped recipes, and their names with a line each."""

from pathlib import Path

FOLDER = Path(__file__).parent


def shipped_recipes() -> dict[str, str]:
    """Returns the name of each shipped recipe with the first line of its comment."""
    return {
        file.stem: file.read_text("utf-8").partition("\n")[0].lstrip("# ")
        for file in sorted(FOLDER.glob("*.yaml"))
    }
