"""Span heads: which models have one, with which weights; they are trained and exported."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_models import MODES, SIZES, architectures, save_backbones, tuning_of
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForQuestionAnswering, T5Config
from transformers.models.llama import LlamaForQuestionAnswering

from trainer.errors import ConfigError
from trainer.models.architecture import build_model_config
from trainer.models.decoder import is_decoder
from trainer.models.export import export_model
from trainer.models.load import LoadedModel, ModelSpec, load_model
from trainer.models.parameters import trainable_parameters
from trainer.models.span_head import ensure_span_head, how_to_load
from trainer.models.tokenizers.tokenizer import load_tokenizer
from trainer.models.tuning import apply_tuning
from trainer.optim import build_optimizer
from trainer.recipe.data import Columns
from trainer.recipe.model import Model
from trainer.recipe.training import Optimizer
from trainer.tasks.base import Objective
from trainer.tasks.question_answering.settings import QuestionAnsweringSettings
from trainer.tasks.question_answering.task import QuestionAnswering

ARCHITECTURES = architectures(initializer_range=0.2)
ARCHITECTURES["modernbert"] = {**SIZES, "initializer_range": 0.2}
HEADS = {**dict.fromkeys(ARCHITECTURES, "qa_outputs"), "modernbert": "classifier"}
LEARNING_RATES = {"full": 2e-3, "head_only": 3e-2, "lora": 5e-3, "qlora": 5e-3, "int8_lora": 5e-3}
# An int8 layer also rounds its inputs, to 1/127 of the largest of a token; the export does not.
TOLERANCES = {**dict.fromkeys(MODES, 1e-4), "int8_lora": 0.1}
NAMES = "Ana Ben Carla David Elif Farid".split()
PAIRS = [(f"who is {word}", name) for word in ("tall", "old") for name in NAMES]
TEXTS = [f"{question} one of us {name} is so" for question, name in PAIRS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A backbone and its tokenizer for each architecture, as a hub would give them."""
    return save_backbones(tmp_path_factory.mktemp("bases"), ARCHITECTURES, TEXTS)


def load(
    folder: Path, mode: str = "full", auto_model: str = "AutoModelForQuestionAnswering"
) -> tuple[LoadedModel, Any]:
    settings = Model(name_or_path=str(folder))
    tokenizer = load_tokenizer(settings)
    config = build_model_config(settings, tokenizer)
    ensure_span_head(config)
    loaded = load_model(
        ModelSpec(
            settings,
            config,
            auto_model=auto_model,
            tokenizer_size=len(tokenizer),
            mode=mode,
            frozen_dtype=torch.float32,
            seed=1,
        )
    )
    return loaded, tokenizer


def toy_batch(tokenizer: Any, model_config: Any) -> tuple[Any, dict[str, Tensor], Any]:
    """Returns the task and a window per name, whose question asks for the name that it contains."""
    task = QuestionAnswering(
        QuestionAnsweringSettings(name="question_answering"),
        columns=Columns(),
        tokenizer=tokenizer,
        max_seq_length=64,
        is_decoder=is_decoder(model_config),
    )
    questions = [question for question, _ in PAIRS]
    contexts = [f"one of us {name} is so" for _, name in PAIRS]
    inputs = dict(tokenizer(questions, contexts, padding=True, return_tensors="pt"))
    spans: dict[str, list[int]] = {"start": [], "end": []}
    for number, (_, name) in enumerate(PAIRS):
        encoded = tokenizer(questions[number], contexts[number])
        at = contexts[number].index(name)
        spans["start"].append(encoded.char_to_token(at, sequence_index=1))
        spans["end"].append(encoded.char_to_token(at + len(name) - 1, sequence_index=1))
    return task, inputs, {name: torch.tensor(values) for name, values in spans.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_mode_learns_and_the_export_answers_the_same(folders, tmp_path, name, mode):
    loaded, tokenizer = load(folders[name], mode)
    assert HEADS[name] in loaded.fresh
    assert HEADS[name] in loaded.head
    tuning = tuning_of(mode, r=4, alpha=8, dropout=0.0)
    model = apply_tuning(loaded, tuning, trains_head=True, gradient_checkpointing=False)
    learned = trainable_parameters(model)
    assert any(HEADS[name] in parameter for parameter in learned)
    assert mode == "full" or len(learned) < len(list(model.parameters()))

    task, inputs, targets = toy_batch(tokenizer, loaded.model.config)
    objective, losses = Objective(model.eval(), task), list[float]()  # dropout would only disturb
    optimizer = build_optimizer(learned, Optimizer(learning_rate=LEARNING_RATES[mode]))
    for _ in range(60 if mode == "head_only" else 15):
        sums, _ = objective(inputs, targets)
        (sums.sum() / len(PAIRS)).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(sums.sum().item())
    assert losses[-1] < 0.6 * losses[0]

    export_model(model, tokenizer, tmp_path)
    exported, info = AutoModelForQuestionAnswering.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values())  # no missing, unexpected or mismatched keys
    with torch.no_grad():
        expected, found = model(**inputs), exported.eval()(**inputs)
    mask = inputs["attention_mask"] == 1
    for which in ("start_logits", "end_logits"):
        torch.testing.assert_close(
            found[which][mask], expected[which][mask], rtol=0, atol=TOLERANCES[mode]
        )


@pytest.fixture(scope="module")
def language_model(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with its language-model head, as they are published."""
    folder = tmp_path_factory.mktemp("causal-lm")
    loaded, tokenizer = load(folders["llama"], auto_model="AutoModelForCausalLM")
    loaded.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def same(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("mode", MODES)
def test_a_llama_keeps_its_weights_though_its_span_head_names_them_otherwise(language_model, mode):
    loaded, _ = load(language_model, mode)
    assert isinstance(loaded.model, LlamaForQuestionAnswering)
    assert loaded.fresh == ("qa_outputs",)
    if mode == "full":
        published = AutoModelForCausalLM.from_pretrained(language_model)
        assert same(loaded.model.transformer, published.model)


def test_what_a_llama_with_a_span_head_saves_is_found_by_transformers_alone(
    language_model, tmp_path
):
    loaded, tokenizer = load(language_model)
    export_model(loaded.model, tokenizer, tmp_path)
    alone, info = LlamaForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert same(alone, loaded.model)
    again, _ = load(tmp_path)
    assert again.fresh == ()
    assert same(again.model, loaded.model)


@pytest.mark.parametrize("auto", ["AutoModelForCausalLM", "AutoModelForSequenceClassification"])
def test_another_task_can_start_from_a_llama_with_a_span_head(language_model, tmp_path, auto):
    loaded, tokenizer = load(language_model)
    export_model(loaded.model, tokenizer, tmp_path)
    other, _ = load(tmp_path, auto_model=auto)
    assert other.fresh in (("lm_head",), ("score",))
    assert same(other.model.model, loaded.model.transformer)
    other.model.save_pretrained(tmp_path / "other")
    alone, info = type(other.model).from_pretrained(tmp_path / "other", output_loading_info=True)
    assert not any(info.values())
    assert same(alone, other.model)


def test_a_padded_batch_is_what_single_windows_give(folders):
    for name in ("llama", "phi"):
        loaded, tokenizer = load(folders[name])
        _, inputs, _ = toy_batch(tokenizer, loaded.model.config)
        assert not inputs["attention_mask"].all()
        model = loaded.model.eval()
        with torch.no_grad():
            together = model(**inputs).start_logits
            for row, mask in enumerate(inputs["attention_mask"]):
                length = int(mask.sum())
                alone = model(input_ids=inputs["input_ids"][row : row + 1, :length]).start_logits
                torch.testing.assert_close(together[row, :length], alone[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_model_card_of_a_class_of_ours_says_how_to_load_it_elsewhere(folders, mode, tmp_path):
    for name in ("phi", "llama"):
        loaded, tokenizer = load(folders[name], mode)
        tuning = tuning_of(mode)
        model = apply_tuning(loaded, tuning, trains_head=True, gradient_checkpointing=False)
        code = how_to_load(model).partition("```python\n")[2].partition("```")[0]
        assert bool(code) == (name == "phi")
        if code:
            export_model(model, tokenizer, tmp_path)
            check = "print(type(model).__name__)"
            program = f"folder = {str(tmp_path)!r}\n{code}\n{check}"
            done = subprocess.run(
                [sys.executable, "-c", program], check=True, capture_output=True, text=True
            )
            assert done.stdout.strip() == "PhiForQuestionAnswering"


def test_what_writes_its_answers_is_refused():
    with pytest.raises(ConfigError, match="a t5gemma cannot have a span head") as caught:
        ensure_span_head(type("Settings", (T5Config,), {"model_type": "t5gemma"})())
    assert (caught.value.key, caught.value.value) == ("model", "t5gemma")
