"""Backbone, head and output layer of every kind of model that transformers builds."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from trainer.errors import ConfigError
from trainer.models.load import unquantised_modules
from trainer.models.structure import head_modules, is_encoder_decoder, is_tied, output_layer

FEW: dict[str, Any] = {"num_hidden_layers": 2}
HEADS: dict[tuple[str, str], tuple[str, ...]] = {
    ("bert", "MaskedLM"): ("cls",),
    ("bert", "SequenceClassification"): ("classifier",),
    ("bert", "QuestionAnswering"): ("qa_outputs",),
    ("distilbert", "MaskedLM"): ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
    ("distilbert", "SequenceClassification"): ("pre_classifier", "classifier"),
    ("electra", "MaskedLM"): ("generator_predictions", "generator_lm_head"),
    ("modernbert", "MaskedLM"): ("head", "decoder"),
    ("gpt2", "CausalLM"): ("lm_head",),
    ("llama", "CausalLM"): ("lm_head",),
    ("llama", "SequenceClassification"): ("score",),
    ("llama4_text", "CausalLM"): ("lm_head",),  # its prefix names no module
    ("bloom", "CausalLM"): ("lm_head",),
    ("xlnet", "CausalLM"): ("lm_loss",),
    ("t5", "Seq2SeqLM"): ("lm_head",),  # holds the modules of its backbone one by one
    ("t5", "SequenceClassification"): ("classification_head",),
    ("bart", "Seq2SeqLM"): ("lm_head",),
    ("bart", "CausalLM"): ("lm_head",),
}
TIED = {"bert", "distilbert", "gpt2", "bloom", "t5", "bart"}


def build(kind: str, auto: str) -> Any:
    settings = transformers.CONFIG_MAPPING[kind](**({} if kind == "bart" else FEW))
    with torch.device("meta"):
        return getattr(transformers, f"AutoModelFor{auto}").from_config(settings)


@pytest.mark.parametrize(("kind", "auto"), HEADS)
def test_the_head_is_all_but_the_backbone(kind: str, auto: str) -> None:
    model = build(kind, auto)
    head = head_modules(model)
    assert head == HEADS[kind, auto]
    with_weights = [name for name, part in model.named_children() if list(part.parameters())]
    assert set(head) < set(with_weights)
    assert set(unquantised_modules(model)) >= set(head)
    assert is_encoder_decoder(model.config) == (kind in ("t5", "bart") and auto != "CausalLM")


@pytest.mark.parametrize(("kind", "auto"), HEADS)
def test_the_output_layer_scores_the_vocabulary(kind: str, auto: str) -> None:
    model = build(kind, auto)
    layer: Any = output_layer(model)
    if not auto.endswith("LM"):
        assert layer is None
        return
    assert isinstance(layer, nn.Linear)
    assert layer.weight.shape[0] == model.config.vocab_size
    if kind in TIED:
        assert is_tied(model)


def test_a_backbone_has_no_head() -> None:
    settings = transformers.BertConfig(num_hidden_layers=1)
    with torch.device("meta"):
        assert head_modules(transformers.AutoModel.from_config(settings)) == ()


class Unknown(transformers.BertPreTrainedModel):
    """A model whose backbone has neither the name nor the class that transformers expects."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.body = nn.Linear(4, 4)
        self.score = nn.Linear(4, 2)


def test_a_model_that_would_be_all_head_is_refused_and_not_left_unquantised() -> None:
    model = Unknown(transformers.BertConfig())
    for look in (head_modules, unquantised_modules):
        with pytest.raises(ConfigError, match=r"backbone of a Unknown cannot be told .*body") as e:
            look(model)
        assert (e.value.key, e.value.value) == ("model", "bert")
