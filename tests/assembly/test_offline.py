"""A prepared recipe trains without a network, and nothing is prepared twice."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.command_line import invoke
from support.local_hub import COMMIT, serve
from support.tiny_models import architectures, save_backbones

from trainer.files.cache import cache_folder
from trainer.models.architecture import build_model_config
from trainer.models.load import ModelSpec, fetch_model
from trainer.models.pretrained.not_loaded import not_loaded
from trainer.models.tokenizers.tokenizer import load_tokenizer
from trainer.recipe.model import Model
from trainer.recipe.shipped import shipped_recipes
from trainer.tasks.recipe import load_recipe

TEXTS = [f"number {index} is {word}" for index in range(60) for word in ("good", "bad")]
ROWS = "".join(json.dumps({"text": text, "label": text.split()[-1]}) + "\n" for text in TEXTS)
CARD = """---
configs:
- {config_name: short, data_files: short.jsonl}
- {config_name: long, data_files: long.jsonl}
---
"""
DEMOS = [name for name in shipped_recipes() if name.endswith("demo")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    numbers = {name: architectures()[name] for name in ("bert", "llama")}
    return save_backbones(tmp_path_factory.mktemp("models"), numbers, TEXTS)


@pytest.fixture(scope="module")
def root(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of a hub: a model in one file and in other formats, one in five files, rows."""
    root = tmp_path_factory.mktemp("hub")
    bert, llama, rows = (
        root / name for name in ("models/some/bert", "models/some/llama", "datasets/some/rows")
    )
    shutil.copytree(folders["bert"], bert)
    for name in ("README.md", "pytorch_model.bin", "tf_model.h5"):
        (bert / name).write_text("not to be fetched")
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_pretrained(folders["llama"])
    made.save_pretrained(llama, max_shard_size="30KB")
    load_tokenizer(Model(name_or_path=str(folders["llama"]))).save_pretrained(llama)
    (llama / "README.md").write_text("not to be fetched")
    rows.mkdir(parents=True)
    (rows / "README.md").write_text(CARD)
    (rows / "short.jsonl").write_text(ROWS)
    (rows / "long.jsonl").write_text("not to be fetched")
    return root


@pytest.fixture
def hub(root: Path) -> Generator[tuple[str, list[str]]]:
    with serve(root) as served:
        yield served


@pytest.fixture
def recipe(write_recipe: Any) -> Path:
    return write_recipe(
        {
            "model": {"name_or_path": "some/bert"},
            "tuning": {"mode": "lora", "r": 2},
            "task": {"name": "classification"},
            "data": {
                "source": {"hub": "some/rows", "config": "short"},
                "split": {"validation": {"ratio": 0.2, "seed": 1}},
            },
            "batch": {"global_batch_size": 8, "max_seq_length": 32},
            "schedule": {"steps": 2},
            "checkpoint": {"verify_export": False},
            "tracking": {"trackers": []},
        }
    )


def trainer(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own, without a network but for `environment`."""
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        capture_output=True, text=True, timeout=300,
        env={
            **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", **environment,
        },
    )  # fmt: skip


def prepared_from(address: str, *arguments: object, **environment: str) -> str:
    online = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", **environment}
    done = trainer("prepare", *arguments, **online)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kept() -> dict[Path, int]:
    """Returns all files of the cache of tokenizers and tokenised rows, and when each was made."""
    files = [path for path in cache_folder().rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files if not path.name.endswith(".lock")}


def test_a_prepared_recipe_trains_offline_in_another_process(
    root: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = {
        "HF_HOME": str(tmp_path / "home"),
        "HF_DATASETS_CACHE": str(tmp_path / "home" / "datasets"),
        "TRAINER_CACHE": str(tmp_path / "cache"),
    }
    monkeypatch.setenv("TRAINER_CACHE", caches["TRAINER_CACHE"])
    train = ("train", recipe, "--run-dir", tmp_path / "run")
    refused = trainer(*train, **caches)
    assert refused.returncode == 2
    assert refused.stderr.startswith("trainer: data.source.hub: some/rows/short cannot be loaded")
    assert "or run `trainer prepare RECIPE` " in refused.stderr

    with serve(root) as (address, sent):
        said = prepared_from(address, recipe, "--set", "seed=3", **caches)
    files = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    assert {name for name in sent if not name.startswith("datasets")} == {
        f"some/bert/{name}" for name in files
    }
    assert "datasets/some/rows/long.jsonl" not in sent
    assert len(sent) == len(set(sent)), "each is fetched once"
    size = sum((root / "models/some/bert" / name).stat().st_size for name in files)
    for part in (
        f"model       some/bert, {size:,} bytes in 4 files\n",
        "tokenizer   some/bert, ",
        "train       96 rows, 96 examples of ",
        "validation  24 rows, 24 examples of ",
        str(tmp_path / "home" / "hub"),
        str(tmp_path / "cache"),
        f"HF_HUB_OFFLINE=1 trainer train {recipe} --set seed=3\n",
    ):
        assert part in said

    before = kept()
    done = trainer(*train, "--set", "seed=3", HF_ENDPOINT=address, **caches)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"
    assert kept() == before, "nothing was made again"


def test_shards_and_the_language_model_of_a_zero_shot_run(
    hub: tuple[str, list[str]], recipe: Path, tmp_path: Path
) -> None:
    address, sent = hub
    task = {"name": "classification", "labels": ["good", "bad"]}
    task["zero_shot"] = {"prompt": "{text}", "answers": [" good", " bad"]}
    pinned = ("--set", "model.name_or_path=some/llama", "--set", f"model.revision={COMMIT}")
    settings = (*pinned, "--set", f"task={json.dumps(task)}")
    said = prepared_from(address, recipe, *settings)
    fetched = {name.removeprefix("some/llama/") for name in sent}
    assert sum(name.startswith("model-0000") for name in fetched) == 5
    assert {"model.safetensors.index.json", "generation_config.json"} <= fetched
    assert "README.md" not in fetched
    assert "model       some/llama, " in said
    before = kept()
    done = invoke("train", recipe, "--run-dir", tmp_path / "run", *settings)
    assert done.exit_code == 0, done.output
    assert "zero_shot_validation" in done.output
    assert kept() == before


def test_random_weights_are_not_fetched_and_then_missing_for_a_pretrained_run(
    hub: tuple[str, list[str]], recipe: Path, tmp_path: Path
) -> None:
    address, sent = hub
    said = prepared_from(address, recipe, "--set", "model.initialization=random")
    assert "without weights, which are random" in said
    assert "some/bert/config.json" in sent
    assert not [name for name in sent if name.endswith(("safetensors", "bin", "h5"))]
    random = ("--set", "model.initialization=random", "--set", "tuning.mode=full")
    done = invoke("train", recipe, "--run-dir", tmp_path / "random", *random)
    assert done.exit_code == 0, done.output
    refused = invoke("train", recipe, "--run-dir", tmp_path / "pretrained")
    assert refused.exit_code == 2
    assert "model.name_or_path: no weights of some/bert" in refused.output
    assert "run `trainer prepare RECIPE` on a machine that can reach the hub" in refused.output


def test_local_files_are_tokenised_once(
    folders: dict[str, Path], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text(ROWS)
    source = json.dumps({"files": {"train": str(tmp_path / "rows.jsonl")}})
    model = json.dumps(
        {
            "architecture": {"model_type": "bert", **architectures()["bert"]},
            "initialization": "random",
            "tokenizer": {"train": "wordpiece", "vocab_size": 200},
        }
    )
    full = ("--set", f"data.source={source}", "--set", "tuning.mode=full")
    for name, settings in {
        "trained": ("--set", f"model={model}"),
        "folder": ("--set", f"model.name_or_path={folders['bert']}"),
    }.items():
        said = invoke("prepare", recipe, *full, *settings)
        assert said.exit_code == 0, said.output
        assert "nothing to fetch" in said.stdout
        before = kept()
        again = invoke("prepare", recipe, *full, *settings)
        assert again.stdout == said.stdout
        done = invoke("train", recipe, "--run-dir", tmp_path / name, *full, *settings)
        assert done.exit_code == 0, done.output
        assert kept() == before
    assert len(list((tmp_path / "cache" / "prepared").glob("[!.]*"))) == 4
    assert len(list((tmp_path / "cache" / "tokenizers").glob("[!.]*"))) == 1


@pytest.mark.parametrize("name", DEMOS)
def test_demos_are_prepared_without_a_network(name: str) -> None:
    done = invoke("prepare", name, "--set", "data.source.num_rows=200")
    assert done.exit_code == 0, done.output
    lines = [line.split()[0] for line in done.stdout.splitlines()]
    assert [line for line in lines if line != "note"] == [
        *("tokenizer", "train", "validation", "test", "model", "cache", "cache", "cache"),
        "offline",
    ]
    assert done.stdout.splitlines()[-1].endswith(
        f"HF_HUB_OFFLINE=1 trainer train {name} --set data.source.num_rows=200"
    )


def test_only_demos_need_no_hub() -> None:
    local = {name for name in shipped_recipes() if load_recipe(name).data.source.builtin}
    assert set(DEMOS) == local


def test_a_name_that_is_not_on_the_hub_is_one_sentence_and_code_2(
    recipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text(ROWS)
    source = json.dumps({"files": {"train": str(tmp_path / "rows.jsonl")}})
    local = ("--set", f"data.source={source}")
    for settings, part in (
        (("--set", "data.source.hub=some/others"), "data.source.hub: some/others/short cannot be"),
        ((*local, "--set", "model.name_or_path=some/gpt"), "model.name_or_path: no tokenizer of"),
        (
            (*local, "--set", "model.tokenizer=some/gpt"),
            "model.tokenizer: no tokenizer of some/gpt",
        ),
    ):
        done = invoke("prepare", recipe, *settings)
        assert done.exit_code == 2
        assert done.stderr.startswith(f"trainer: {part}")
        assert "or run `trainer prepare RECIPE` " in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_full_disk_is_not_blamed_on_the_hub() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    sentence = str(not_loaded("model.name_or_path", "some/bert", "weights", full))
    assert "No space left on device; fix that, or set HF_HOME" in sentence


@pytest.mark.parametrize("initialization", ["pretrained", "random"])
def test_no_weight_is_in_memory(folders: dict[str, Path], initialization: Any) -> None:
    """Also if the padding token of a tokenizer adds a row to the embedding."""
    settings = Model(name_or_path=str(folders["llama"]), initialization=initialization)
    tokenizer = load_tokenizer(settings)
    made = build_model_config(settings, tokenizer)
    made.pad_token_id = rows = made.vocab_size
    loaded = fetch_model(
        ModelSpec(
            settings,
            made,
            auto_model="AutoModelForCausalLM",
            tokenizer_size=rows + 1,
            mode="full",
            frozen_dtype=torch.float32,
            seed=1,
        )
    )
    weights = list(loaded.model.parameters())
    assert {weight.device.type for weight in weights} == {"meta"}
    assert loaded.model.get_input_embeddings().weight.shape[0] == rows + 1
