"""The tuning section: the keys of each mode, and adapter keys in modes without adapters."""

from typing import Any

import pytest

from trainer.errors import ConfigError
from trainer.process.run_directory import check_recipe
from trainer.recipe.keys import differences
from trainer.recipe.reading import dump_yaml
from trainer.recipe.tuning import FullTuning
from trainer.recipe.yaml12 import read_yaml
from trainer.tasks.recipe import Recipe, load_recipe, parse_recipe

ADAPTERS = {"r": 8, "alpha": 16, "dropout": 0.1, "target_modules": ["query"], "bias": "all"}
OF_ADAPTERS = {"mode", *ADAPTERS}


def tuned(reviews_recipe: dict[str, Any], **tuning: Any) -> Recipe:
    return parse_recipe({**reviews_recipe, "tuning": tuning}, "test")


@pytest.mark.parametrize("mode", ["full", "head_only"])
def test_modes_without_adapters_take_their_keys_and_drop_them(reviews_recipe, mode):
    recipe = tuned(reviews_recipe, mode=mode, **ADAPTERS)
    assert recipe == tuned(reviews_recipe, mode=mode)
    assert differences(recipe, tuned(reviews_recipe, mode=mode)) == {}
    assert read_yaml(dump_yaml(recipe), "test")["tuning"] == {"mode": mode}


@pytest.mark.parametrize("mode", ["lora", "qlora", "int8_lora"])
def test_adapter_modes_keep_every_key(reviews_recipe, mode):
    recipe = tuned(reviews_recipe, mode=mode, **ADAPTERS)
    written = read_yaml(dump_yaml(recipe), "test")["tuning"]
    assert written == {"mode": mode, **ADAPTERS}
    assert list(written) == ["mode", *ADAPTERS]
    assert set(read_yaml(dump_yaml(tuned(reviews_recipe, mode=mode)), "test")["tuning"]) == (
        OF_ADAPTERS
    )


def test_the_mode_is_full_by_default(reviews_recipe):
    reviews_recipe.pop("tuning", None)
    assert isinstance(parse_recipe(reviews_recipe, "test").tuning, FullTuning)
    assert isinstance(tuned(reviews_recipe, r=8).tuning, FullTuning)


@pytest.mark.parametrize("mode", ["full", "head_only", "int8_lora"])
def test_the_mode_of_a_recipe_with_adapters_can_be_overridden(mode):
    recipe = load_recipe("llama-3.2-1b-sst2-qlora", (f"tuning.mode={mode}",))
    assert recipe.tuning.mode == mode


@pytest.mark.parametrize(
    ("tuning", "sentence"),
    [
        ({"mode": "lora", "dropout": 1.0}, "tuning.dropout: 1.0: input should be less than 1"),
        ({"mode": "lora", "alpha": 1.5}, "tuning.alpha: 1.5: "),
        ({"mode": "qlora", "rank": 4}, "tuning.rank: unknown key"),
        ({"mode": "full", "rank": 4}, "tuning.rank: unknown key"),
        ({"mode": "head_only", "target_module": []}, "did you mean tuning.target_modules?"),
        (
            {"mode": "head-only"},
            "tuning.mode: 'head-only' is not one of full, head_only, lora, qlora, int8_lora; did "
            "you mean head_only?",
        ),
        ({"mode": ["lora"]}, "tuning.mode: ['lora'] is not one of full, "),
        ({"mode": None}, "tuning.mode: None is not one of full, "),
    ],
)
def test_problems_are_named_as_in_a_single_section(reviews_recipe, tuning, sentence):
    with pytest.raises(ConfigError) as caught:
        tuned(reviews_recipe, **tuning)
    assert sentence in str(caught.value)


def test_a_run_whose_recipe_has_keys_of_adapters_is_continued(reviews_recipe, tmp_path):
    recipe = tuned(reviews_recipe, mode="full")
    text = dump_yaml(recipe)
    assert "tuning:\n  mode: full\n" in text
    older = "tuning:\n  mode: full\n  r: 16\n  alpha: 32\n  target_modules: all-linear\n"
    (tmp_path / "config.yaml").write_text(text.replace("tuning:\n  mode: full\n", older))
    assert check_recipe(tmp_path, recipe) == []
