"""ONNX: a model as a graph that other runtimes read."""

import logging
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.errors import CheckpointError, ConfigError
from trainer.exports.extras import needs
from trainer.models.exported import load_exported
from trainer.wording import excerpt

ARGUMENTS = ("input_ids", "token_type_ids", "attention_mask")
"""Inputs of a graph; a model's tokenizer says which of them it takes."""
BOUND = 1e-4
"""Largest difference of the outputs from the model's, in their standard deviations."""


def write_onnx(folder: Path, file: Path) -> list[str]:
    """Writes the model in an exported folder to an ONNX file, and returns notes, a sentence each.

    Batch size and sequence length are free. The graph is in fp32; weights of more than 1.5 GB are
    in a second file beside it. onnxruntime runs it on batches of two shapes, and its outputs must
    be those of the model. Raises ConfigError if torch cannot export the model, and CheckpointError
    if the outputs differ; then there is no file.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needs(package, "--onnx", "onnx")
    model, tokenizer = load_exported(folder)
    graph = _Graph(model.float(), _output_names(model)).eval()
    names = [name for name in tokenizer.model_input_names if name in ARGUMENTS]
    batches = [_batch(names, model.config, *shape) for shape in ((2, 9), (3, 17))]
    try:
        _export(graph, batches[0], file)
        _compare(graph, batches, file)
    except BaseException:
        for written in (file, file.with_name(f"{file.name}.data")):
            written.unlink(missing_ok=True)
        raise
    if model.can_generate():
        return ["the ONNX graph has no key-value cache: it gives the logits of whole sequences"]
    return []


class _Graph(nn.Module):
    """A model with named inputs and a tuple of outputs, as the exporter needs it."""

    def __init__(self, model: Any, outputs: list[str]) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        return tuple(getattr(output, name) for name in self.outputs)


def _output_names(model: Any) -> list[str]:
    architecture = type(model).__name__
    if architecture.endswith("ForQuestionAnswering"):
        return ["start_logits", "end_logits"]
    if architecture.endswith("ForPreTraining"):
        return ["prediction_logits", "seq_relationship_logits"]
    return ["logits"]


def _batch(names: list[str], config: Any, size: int, length: int) -> dict[str, Tensor]:
    """Returns random tokens [size, length]; the first row is padded on the right."""
    random = torch.Generator().manual_seed(size)
    ids = torch.randint(0, config.get_text_config().vocab_size, (size, length), generator=random)
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    pad = config.get_text_config().pad_token_id
    if pad is not None:  # a classifier finds the last token by it
        ids[ids == pad] = (pad + 1) % 2
        ids[mask == 0] = pad
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: values[name] for name in names}


def _export(graph: _Graph, batch: Mapping[str, Tensor], file: Path) -> None:
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with torch.no_grad(), warnings.catch_warnings(), _quiet_exporter():
            warnings.simplefilter("ignore")  # of the exporter about torch's own parts
            torch.onnx.export(
                graph,
                (),
                str(file),
                kwargs=dict(batch),
                input_names=list(batch),
                output_names=graph.outputs,
                dynamic_shapes=dict.fromkeys(batch, free),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter has many kinds for what it cannot trace
        raise ConfigError(
            f"--onnx: torch cannot export a {type(graph.model).__name__} ({excerpt(error, 200)})",
            key="--onnx",
            hint="export it without --onnx, as safetensors",
        ) from error


@contextmanager
def _quiet_exporter() -> Generator[None]:
    """Context manager: torch's exporter logs only errors."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _compare(graph: _Graph, batches: list[dict[str, Tensor]], file: Path) -> None:
    """Raises CheckpointError unless onnxruntime computes the outputs of the model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for batch in batches:
        with torch.no_grad():
            expected = graph(**batch)
        found = session.run(graph.outputs, {name: value.numpy() for name, value in batch.items()})
        for name, ours, theirs in zip(graph.outputs, expected, found, strict=True):
            per_token = ours.shape[:2] == batch["input_ids"].shape
            real = batch["attention_mask"].bool() if per_token else slice(None)
            gap = (torch.from_numpy(theirs)[real] - ours[real]).abs().max() / ours[real].std()
            if not gap <= BOUND:
                raise CheckpointError(
                    f"{file} does not compute what the model does: {name} differs by "
                    f"{float(gap):.1e} of its standard deviation",
                    key="--onnx",
                    hint="export it without --onnx",
                )
