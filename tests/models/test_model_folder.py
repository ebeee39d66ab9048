"""Folders that are not a model, or whose files would fetch, run or read more than they should."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from support import tiny_models
from support.command_line import invoke
from support.tiny_models import SIZES
from transformers import AutoTokenizer

from trainer.errors import ConfigError
from trainer.models.architecture import build_model_config, shape_config, stored_config
from trainer.models.pretrained.model_folder import check_origin
from trainer.models.tokenizers.tokenizer import load_tokenizer
from trainer.recipe.model import Model

TEXTS = ["a few words", "that a tokenizer can learn from"]
CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "somebodys"
class Model(LlamaForSequenceClassification):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama classifier with its tokenizer; tests damage only a copy."""
    root = tmp_path_factory.mktemp("models")
    settings = tiny_models.random_model("llama", SIZES, TEXTS, root / "tokenizer")
    loaded, tokenizer = tiny_models.load(settings, {"num_labels": 2})
    loaded.model.save_pretrained(root / "sound")
    tokenizer.save_pretrained(root / "sound")
    return root / "sound"


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "folder")
    return tmp_path / "folder"


def edit(file: Path, **values: Any) -> None:
    before = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    file.write_text(json.dumps(before | values), "utf-8")


def load(folder: Path, **settings: Any) -> Any:
    model = Model(name_or_path=str(folder), **settings)
    check_origin(model)
    return tiny_models.load(model, {"num_labels": 2})[0]


def refused(
    folder: Path, sentence: str | None = None, *, value: object = None, hint: str = ""
) -> None:
    """Asserts that a folder is refused; `value` is by default the folder itself."""
    with pytest.raises(ConfigError, match=sentence) as caught:
        load(folder)
    assert caught.value.key == "model.name_or_path"
    assert caught.value.value == (value or str(folder))
    assert hint in str(caught.value.hint)
    assert len(str(caught.value)) < 500


def test_a_sound_folder_loads(folder: Path) -> None:
    assert load(folder).fresh == ()


def test_adapters_given_as_a_model(folder: Path, tmp_path: Path) -> None:
    edit(folder / "adapter_config.json", peft_type="LORA", base_model_name_or_path="who/ever")
    refused(folder, "is a PEFT adapter", hint="merge_and_unload")
    (folder / "config.json").unlink()
    refused(folder, hint="merge_and_unload")
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "config.json").write_text("{}")
    folder.rename(run / "adapter")
    refused(run / "adapter", "only adapters", hint=f"give {run / 'model'}")


def test_a_run_directory_names_its_model(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "step-00000004"
    checkpoint.mkdir(parents=True)
    (run / "config.yaml").touch()
    refused(run, r"is a run directory, which has no model/ yet", hint="finish its training")
    folder.rename(run / "model")
    refused(run, "is a run directory", hint=f"give {run / 'model'}")
    refused(checkpoint, "part of the run", hint=f"give {run / 'model'}")
    refused(run / "checkpoints", hint=f"give {run / 'model'}")
    assert load(run / "model").fresh == ()


def test_other_formats_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.Q4_K_M.gguf")
    convert = "convert it with save_pretrained"
    refused(folder, r"no weights that can be loaded: model\.Q4_K_M\.gguf is GGUF", hint=convert)
    (folder / "config.json").unlink()
    refused(folder, r"no config\.json: model\.Q4_K_M\.gguf is GGUF", hint=convert)
    (tmp_path / "many" / "checkpoint-500").mkdir(parents=True)
    (tmp_path / "many" / "checkpoint-500" / "config.json").touch()
    refused(tmp_path / "many", hint="one of checkpoint-500")
    refused(folder / "model.Q4_K_M.gguf", "is a file", hint="give the folder")
    for name in ("", " "):
        with pytest.raises(ValidationError, match=r"model\.name_or_path: .* give a name"):
            Model(name_or_path=name)


def test_what_is_not_read_may_be_left_over(folder: Path) -> None:
    """Such as an index of .bin files that were not fetched, or a weight of earlier training."""
    edit(folder / "pytorch_model.bin.index.json", weight_map={"a": "pytorch_model-1.bin"})
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens._weight"] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder).fresh == ()


def test_an_index_reads_its_own_folder_only(folder: Path, tmp_path: Path) -> None:
    inside, outside = folder / "model-1.safetensors", tmp_path / "outside.safetensors"
    (folder / "model.safetensors").rename(inside)
    index = folder / "model.safetensors.index.json"
    edit(index, metadata={}, weight_map={"model.norm.weight": inside.name})
    assert load(folder).fresh == ()
    shutil.copy(inside, outside)
    (folder / "link.safetensors").symlink_to(outside)
    for name in ("../outside.safetensors", str(outside), "link.safetensors", "a/../../outside.s"):
        edit(index, weight_map={"model.norm.weight": name})
        refused(folder, "names files outside its folder", value=str(index))
    edit(index, weight_map={"a": inside.name, "b": "model-2.safetensors"})
    refused(folder, r"lacks model-2\.safetensors, 1 of its 2 files", hint="download it again")
    edit(index, weight_map={})
    refused(folder, "lists no files in model", hint="download it again")
    for wrong in ([], {"a": 3}, {"a": [1]}, None):
        edit(index, weight_map=wrong)
        refused(folder, "is not an index", value=str(index), hint="download it again")
    for text in ("[]", "null", "{", "[" * 99999, "\x00"):
        index.write_text(text)
        refused(folder, value=str(index), hint="download it again")
    index.write_text(json.dumps({"weight_map": {"a": inside.name}}))
    refused(folder, "no weights that can be loaded: 'metadata'")


def test_shards_in_the_store_of_a_hub_cache_are_its_own(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = folder / "model.safetensors.index.json"
    edit(index, metadata={}, weight_map={"model.norm.weight": "model-1.safetensors"})
    for file in folder.iterdir():
        file.rename(blobs / f"blob-{file.name}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"blob-{file.name}")
    assert load(snapshot).fresh == ()


class _Touch:
    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.file,))


def test_hostile_and_damaged_torch_files_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    file, ran = folder / "pytorch_model.bin", tmp_path / "ran"
    torch.save({"model.norm.weight": _Touch(ran)}, file)
    refused(folder, "the file is not a list of tensors, and nothing else in it is run")
    whole = io.BytesIO()
    torch.save({"model.norm.weight": torch.ones(32)}, whole)
    for content in (
        *(b"", b"rubbish", pickle.dumps(_Touch(ran)), whole.getvalue()[:400]),
        *(_saved([1, 2]), _saved({"model.norm.weight": 3}), _saved({3: torch.ones(2)})),
    ):
        file.write_bytes(content)
        refused(folder)
    assert not ran.exists()


def _saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "values",
    [
        {"attn_implementation": "someone/kernel"},
        {"_attn_implementation": "someone/kernel"},
        {"attn_implementation": {"": "someone/kernel"}},
        {"attn_implementation": 3},
        {"attn_implementation": "paged|someone/kernel"},
        {"attn_implementation": "flash_attention_2"},
        {"experts_implementation": "someone/kernel"},
        {"fusion_config": {"patch_embeddings": True}},
        {"transformers_weights": "../other.safetensors"},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"quantization_config": {"quant_method": "mxfp4"}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"quantization_config": "4bit"},
        {"model_type": "zzz"},
        {"model_type": None},
        {"num_hidden_layers": "two"},
        {"hidden_act": "someone/kernel"},
        {"dtype": "load"},
        {"id2label": ["a", "b"]},
        {"id2label": {"x": "a"}},
    ],
)
def test_values_that_would_fetch_or_fail_are_refused(values: dict[str, Any], folder: Path) -> None:
    edit(folder / "config.json", **values)
    # The tokenizer reads the configuration too.
    tokenizer = str(folder.parent / "tokenizer")
    AutoTokenizer.from_pretrained(_without_config(folder)).save_pretrained(tokenizer)
    with pytest.raises(ConfigError) as caught:
        load(folder, tokenizer=tokenizer)
    assert caught.value.key == "model.name_or_path"
    assert caught.value.value is not None
    assert len(str(caught.value)) < 500


def _without_config(folder: Path) -> Path:
    other = folder.parent / "bare"
    shutil.copytree(folder, other)
    (other / "config.json").unlink()
    return other


@pytest.mark.parametrize("text", ["null", "[1]", "", "{", "[" * 99999, '"x"', "\udcff"])
def test_a_file_that_is_not_a_configuration_is_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text, "utf-8", errors="surrogateescape")
    for read in (stored_config, shape_config):
        with pytest.raises(ConfigError, match=r"has no configuration that can be loaded: ") as e:
            read(Model(name_or_path=str(folder)))
        assert (e.value.key, e.value.value) == ("model.name_or_path", str(folder))


def test_kernels_are_refused_in_an_architecture_too(sound: Path) -> None:
    numbers = {"model_type": "llama", **SIZES, "_attn_implementation": "someone/kernel"}
    settings = Model(
        architecture=numbers, initialization="random", tokenizer=str(sound.parent / "tokenizer")
    )
    with pytest.raises(ConfigError) as caught:
        build_model_config(settings, load_tokenizer(settings))
    assert (caught.value.key, caught.value.value) == ("model.architecture", "someone/kernel")
    assert caught.value.hint == "remove it"


def with_code(folder: Path, *, known: bool) -> Path:
    """Adds code to a folder whose model type transformers knows, or does not know."""
    (folder / "code.py").write_text(CODE)
    maps = {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"}
    kind = "llama" if known else "somebodys"
    edit(folder / "config.json", model_type=kind, auto_map=maps)
    edit(
        folder / "tokenizer_config.json",
        tokenizer_class="Tokenizer",
        auto_map={"AutoTokenizer": [None, "code.Tokenizer"]},
    )
    return folder / "ran"


def test_code_next_to_a_known_type_is_not_run_and_noted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 99))
    ran = with_code(folder, known=True)
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    loaded = load(folder)
    assert ["never run" in note for note in loaded.notes] == [True]
    loaded.model.save_pretrained(tmp_path / "out")
    load_tokenizer(Model(name_or_path=str(folder))).save_pretrained(tmp_path / "out")
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in (tmp_path / "out" / name).read_text()
    assert not ran.exists()


def test_commands_never_run_the_code_of_a_folder(
    sound: Path,
    folder: Path,
    tmp_path: Path,
    reviews_recipe: dict[str, Any],
    write_recipe: Any,
) -> None:
    ran = with_code(folder, known=False)
    (tmp_path / "tokenizer").mkdir()
    shutil.copy(sound / "tokenizer.json", tmp_path / "tokenizer")
    shutil.copy(sound / "tokenizer_config.json", tmp_path / "tokenizer")
    for name in (None, str(tmp_path / "tokenizer")):
        reviews_recipe["model"] = {"name_or_path": str(folder), "tokenizer": name}
        recipe = str(write_recipe(reviews_recipe))
        for command in (
            ("train", recipe, "--run-dir", str(tmp_path / "run")),
            ("train", recipe, "--smoke", "--run-dir", str(tmp_path / "smoke")),
            ("prepare", recipe),
            ("params", recipe),
        ):
            done = invoke(*command, answers="y\n" * 99)
            assert done.exit_code == 2, done.output
            assert "brings its own code" in done.output
    assert not list(tmp_path.rglob("ran"))
    assert not ran.exists()
