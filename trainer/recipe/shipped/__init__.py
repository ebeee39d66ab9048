"""The recipes that come with the package."""

from pathlib import Path

FOLDER = Path(__file__).parent


def shipped_recipes() -> dict[str, str]:
    """Returns the first line of each shipped recipe's comment, by name."""
    return {
        file.stem: file.read_text("utf-8").partition("\n")[0].lstrip("# ")
        for file in sorted(FOLDER.glob("*.yaml"))
    }
