"""The answers of a run to the inputs of a usage, and how those of the card's code differ."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.data.encoded import PreparedSplit
from trainer.exports.usage.inputs import NEW_TOKENS
from trainer.exports.usage.usage import Expected, Usage
from trainer.run import Run
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.classification.task import Classification
from trainer.tasks.generation.generator import plain_generation
from trainer.tasks.question_answering.task import QuestionAnswering
from trainer.wording import excerpt

LEAST_TOLERANCE = 1e-4
"""Of probabilities, and of scores in their own unit."""


def expected_of(run: Run, split: PreparedSplit, usage: Usage | None) -> list[Expected]:
    """Returns the answer of the model of a run to each input; the model must be whole, and in
    evaluation mode."""
    if usage is None:
        return []
    task = run.task
    if usage.kind == "labels":
        assert isinstance(task, Classification)
        return [_labels(run, task, split, index) for (index,) in usage.examples]
    if usage.kind == "spans":
        assert isinstance(task, QuestionAnswering)
        return [_span(run, task, split, windows) for windows in usage.examples]
    if usage.kind == "fills":
        return [_fill(run, ids) for ids in usage.token_ids]
    assert isinstance(task, CausalLM)
    return [_continuation(run, task, ids) for ids in usage.token_ids]


def differences(
    usage: Usage, expected: Sequence[Expected], answers: Sequence[Any], bound: float
) -> list[str]:
    """Returns a clause for each answer of the card's code that is not the run's.

    `bound` is the largest difference of logits in their standard deviations; where that decides
    between answers, either is right.
    """
    check = {"labels": _other_label, "fills": _other_fill, "spans": _other_span}.get(
        usage.kind, _other_continuation
    )
    if len(answers) != len(expected):
        return [f"the code of its card gives {len(answers)} answers to {len(expected)} inputs"]
    found = [check(one, given, bound) for one, given in zip(expected, answers, strict=True)]
    return [f"the code of its card answers otherwise: {clause}" for clause in found if clause]


def _labels(run: Run, task: Classification, split: PreparedSplit, index: int) -> Expected:
    output = _output(run, task.collate(split, np.array([index]), epoch=0).inputs)
    probabilities = output.logits[0].float().softmax(-1).tolist()
    return Expected(probabilities=dict(zip(task.labels, probabilities, strict=True)))


def _other_label(expected: Expected, given: Any, bound: float) -> str | None:
    assert expected.probabilities is not None
    found = {entry["label"]: entry["score"] for entry in given}
    if found.keys() != expected.probabilities.keys():
        return f"the labels {excerpt(sorted(found))}, not {excerpt(sorted(expected.probabilities))}"
    gaps = {label: abs(found[label] - own) for label, own in expected.probabilities.items()}
    label = max(gaps, key=lambda name: gaps[name])
    if gaps[label] <= max(LEAST_TOLERANCE, bound):
        return None
    own = expected.probabilities[label]
    return f"{excerpt(label)} has the probability {found[label]:.4f}, not {own:.4f}"


def _span(run: Run, task: QuestionAnswering, split: PreparedSplit, windows: list[int]) -> Expected:
    records: list[Any] = []
    for index in windows:
        ids = np.array([index])
        batch = task.collate(split, ids, epoch=0)
        output = _output(run, batch.inputs)
        logits = (output.start_logits.float(), output.end_logits.float())
        records += task.records(logits, batch.targets, split, ids)
    row = split.rows[int(split.array("row")[windows[0]])]
    context = row[task.names["context"]]
    spans = [span for record in records for span in record["spans"]]
    spans.sort(key=lambda item: -item[1])
    for (begin, end), score in spans:
        if context[begin:end].strip():
            return Expected(text=context[begin:end].strip(), score=score)
    return Expected()


def _other_span(expected: Expected, given: Any, bound: float) -> str | None:
    text, score = given
    near = abs(score - expected.score) <= max(LEAST_TOLERANCE, bound) * max(1.0, abs(score))
    if near or text == expected.text:
        return None
    return f"{excerpt(text)!r}, not {excerpt(expected.text)!r}"


def _fill(run: Run, ids: list[int]) -> Expected:
    tokens = torch.tensor([ids])
    output = _output(run, {"input_ids": tokens})
    name = next(name for name in ("logits", "prediction_logits") if name in output)
    place = ids.index(run.tokenizer.mask_token_id)
    return Expected(token_probabilities=output[name][0, place].float().softmax(-1).cpu())


def _other_fill(expected: Expected, given: Any, bound: float) -> str | None:
    assert expected.token_probabilities is not None
    for entry in given:
        own = float(expected.token_probabilities[entry["token"]])
        if abs(entry["score"] - own) > max(LEAST_TOLERANCE, bound):
            name = excerpt(repr(entry["token_str"]))
            return f"{name} has the probability {entry['score']:.4f}, not {own:.4f}"
    return None


def _continuation(run: Run, task: CausalLM, ids: list[int]) -> Expected:
    model: Any = run.model
    device = next(model.parameters()).device
    tokens = torch.tensor([ids], device=device)
    ends = task.generation_ends(model)
    with plain_generation(model):
        made = model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=True,
            eos_token_id=ends or None,
            pad_token_id=run.tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
    gap = float("inf")
    for step in made.logits:
        values = step[0].float()
        first, second = values.topk(2).values.tolist()
        gap = min(gap, (first - second) / max(float(values.std()), 1e-3))
    new = made.sequences[0, len(ids) :].tolist()
    return Expected(text=_decoded(run, new), gap=gap)


def _decoded(run: Run, ids: list[int]) -> str:
    return run.tokenizer.decode(ids, skip_special_tokens=True).strip()


def _other_continuation(expected: Expected, given: Any, bound: float) -> str | None:
    text = given[0]["generated_text"].strip()
    if text == expected.text or expected.gap <= 2 * max(LEAST_TOLERANCE, bound):
        return None
    return f"{excerpt(text)!r}, not {excerpt(expected.text)!r}"


def _output(run: Run, inputs: dict[str, Tensor]) -> Any:
    model: Any = run.model
    device = next(model.parameters()).device
    return model(**{name: tensor.to(device) for name, tensor in inputs.items()})
