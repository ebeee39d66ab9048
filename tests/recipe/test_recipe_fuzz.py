"""Damaged recipes and overrides end in a run or in one short sentence, and nothing else."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support import recipe_fuzzer
from support.recipe_fuzzer import (
    damaged_override,
    damaged_recipe,
    known_keys,
    outcome,
    recipes,
    use,
)

FINE = ("right", "refused")


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Does the heavy imports once for all cases, and adds things that are not regular files."""
    folder = tmp_path_factory.mktemp("special")
    recipe_fuzzer.WEIRD.extend(recipe_fuzzer.special_files(folder))
    for position, values in enumerate(recipes()):
        file = folder / f"{position}.yaml"
        file.write_text(yaml.safe_dump(values), "utf-8")
        assert outcome(lambda file=file: use(file), 300) == ("right", "")


def check(cases: range, seed: int, attempt: Callable[[random.Random], tuple[str, str]]) -> None:
    wrong: list[str] = []
    for case in cases:
        kind, message = attempt(random.Random(f"{seed}-{case}"))
        if kind not in FINE:
            wrong.append(f"case {case}: {kind}: {message}")
    assert not wrong, f"{len(wrong)} of {len(cases)}\n" + "\n".join(wrong[:5])


@pytest.mark.parametrize(
    "num_cases",
    [
        50,
        pytest.param(400, marks=pytest.mark.distributed),
        pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(5_400)]),
    ],
)
def test_damaged_recipes(num_cases: int, tmp_path: Path) -> None:
    keys, file = known_keys(), tmp_path / "recipe.yaml"

    def attempt(draw: random.Random) -> tuple[str, str]:
        file.write_text(damaged_recipe(draw, keys), "utf-8", errors="surrogatepass")
        return outcome(lambda: use(file))

    check(range(num_cases), 1, attempt)


@pytest.mark.parametrize(
    "num_cases",
    [
        25,
        pytest.param(150, marks=pytest.mark.distributed),
        pytest.param(1_000, marks=[pytest.mark.slow, pytest.mark.timeout(5_400)]),
    ],
)
def test_damaged_overrides(num_cases: int, tmp_path: Path) -> None:
    keys, file = known_keys(), tmp_path / "recipe.yaml"

    def attempt(draw: random.Random) -> tuple[str, str]:
        file.write_text(yaml.safe_dump(draw.choice(recipes())), "utf-8")
        override = damaged_override(draw, keys)
        return outcome(lambda: use(file, (override,)))

    check(range(num_cases), 2, attempt)


@pytest.mark.slow
@pytest.mark.timeout(5_400)
def test_damaged_recipes_that_are_valid_also_train(tmp_path: Path) -> None:
    keys, file = known_keys(), tmp_path / "recipe.yaml"

    def attempt(draw: random.Random) -> tuple[str, str]:
        file.write_text(damaged_recipe(draw, keys), "utf-8", errors="surrogatepass")
        run = tmp_path / f"run-{draw.randrange(2**60)}"
        return outcome(lambda: use(file, train=run), 60)

    check(range(1_500), 3, attempt)
