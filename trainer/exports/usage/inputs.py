"""The code of a model card by task, and the rows of a run on which it is tried.

Rows that spell special tokens are left out: a run may read them as text, and pipelines never do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from trainer.data.encoded import PreparedSplit
from trainer.exports.usage.prompts import plain_ids, prompts_of
from trainer.exports.usage.usage import Usage
from trainer.models.span_head import how_to_load
from trainer.models.structure import plain_model
from trainer.run import Run
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.classification.task import Classification
from trainer.tasks.masked_lm.task import MaskedLM
from trainer.tasks.question_answering.task import QuestionAnswering

NEW_TOKENS = 16
"""Tokens that the code of a card generates."""
MOST_ROWS = 64
"""Rows among which inputs are chosen."""
LONGEST_PROMPT = 4096
"""Tokens of a prompt and its continuation, for a model without a limit of positions."""
RESETS = {"repetition_penalty": 1.0, "num_beams": 1, "no_repeat_ngram_size": 0}
"""Generation settings of published models that would change greedy answers, and their defaults."""
_PARSED = (
    "Text that spells a special token of the tokenizer becomes that token; in training and "
    "evaluation it was read as text."
)
_PIPELINE = "from transformers import pipeline"
_SPANS = '''\
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForQuestionAnswering.from_pretrained(folder)


def answer(question, context):
    """Returns the best text over all windows of the context, and its score."""
    windows = tokenizer(
        question, context, truncation="only_second", max_length={length}, stride={stride},
        return_overflowing_tokens=True, return_offsets_mapping=True,
        padding=True, return_tensors="pt",
    )
    places = windows.pop("offset_mapping").tolist()
    windows.pop("overflow_to_sample_mapping")
    with torch.no_grad():
        output = model(**windows)
    best = ("", float("-inf"))
    for window, (starts, ends) in enumerate(zip(output.start_logits, output.end_logits)):
        inside = torch.tensor([part == 1 for part in windows.sequence_ids(window)])
        allowed = (inside[:, None] & inside[None, :]).triu().tril({longest} - 1)
        scores = (starts[:, None] + ends[None, :]).masked_fill(~allowed, float("-inf"))
        first, last = divmod(int(scores.argmax()), len(starts))
        text = context[places[window][first][0] : places[window][last][1]].strip()
        if text and float(scores.max()) > best[1]:
            best = (text, float(scores.max()))
    return best


answers = [answer(question, context) for question, context in questions]'''


def usage_of(run: Run, split: PreparedSplit) -> Usage | None:
    """Returns how the model of a run is used, with inputs of a split: the shortest, the longest and
    one between.

    None if transformers alone does not read inputs as the run does, or if no row is left.
    """
    if split.rows is None or how_to_load(run.model):
        return None
    task = run.task
    match task:
        case Classification():
            usage = _labels(task, split)
        case QuestionAnswering():
            usage = _spans(task, split)
        case MaskedLM():
            usage = _fills(run, task, split)
        case CausalLM():
            usage = _continuations(run, task, split)
        case _:
            return None
    if usage is None or not task.text_tokenizer.literal:
        return usage
    return replace(usage, remark=f"{usage.remark} {_PARSED}")


def _labels(task: Classification, split: PreparedSplit) -> Usage | None:
    length = task.max_seq_length
    tried: list[Any] = []
    ids: list[int] = []
    for index in _spread(split):
        row = split.rows[int(split.array("row")[index])]
        texts = [row[name] for name in task.text_columns]
        if task.text_tokenizer.special_in(texts) is None:
            tried.append(texts[0] if len(texts) == 1 else {"text": texts[0], "text_pair": texts[1]})
            ids.append(index)
    if not tried:
        return None
    example = (
        '["A text."]'
        if task.text_pair is None
        else '[{"text": "A text.", "text_pair": "A second text."}]'
    )
    return Usage(
        kind="labels",
        imports=_PIPELINE,
        example=f"texts = {example}",
        code=f'classifier = pipeline("text-classification", model=folder)\n'
        f"answers = classifier(texts, truncation=True, max_length={length}, top_k=None)",
        remark=f"Each answer holds every label with its probability. Texts are cut off after "
        f"{length} tokens, as in training.",
        inputs={"texts": tried},
        examples=[[index] for index in ids],
    )


def _spans(task: QuestionAnswering, split: PreparedSplit) -> Usage | None:
    length, rows = task.max_seq_length, split.array("row")
    asked: list[list[str]] = []
    examples: list[list[int]] = []
    for row_index in dict.fromkeys(int(rows[index]) for index in _spread(split)):
        row = split.rows[row_index]
        pair = [row[task.names["question"]], row[task.names["context"]]]
        windows = np.flatnonzero(rows == row_index).tolist()
        if task.text_tokenizer.special_in(pair) is not None:
            continue
        made = task.tokenizer(
            *pair,
            truncation="only_second",
            max_length=length,
            stride=task.stride,
            return_overflowing_tokens=True,
            verbose=False,
        )["input_ids"]
        if made != [split.ragged("input_ids")[index].tolist() for index in windows]:
            return None  # such as of a decoder, whose windows end with a token of their own
        asked.append(pair)
        examples.append(windows)
    if not asked:
        return None
    return Usage(
        kind="spans",
        imports="import torch\n"
        "from transformers import AutoModelForQuestionAnswering, AutoTokenizer",
        example='questions = [("Who wrote it?", "It was written by Ada.")]',
        code=_SPANS.format(
            length=length, stride=task.stride, longest=task.settings.max_answer_length
        ),
        remark=f"Contexts are read in windows of {length} tokens, as in training. The code always "
        f"gives a text, even if the context holds no answer.",
        inputs={"questions": asked},
        examples=examples,
    )


def _fills(run: Run, task: MaskedLM, split: PreparedSplit) -> Usage | None:
    tokenizer, length = task.tokenizer, task.max_seq_length
    tried: list[str] = []
    token_ids: list[list[int]] = []
    texts = list(islice(task.texts(run.recipe, split.rows), MOST_ROWS))
    for text in _some(sorted((text for text in texts if len(text.split()) > 2), key=len)):
        words = text.split(" ")
        words[len(words) // 2 if len(words) < length // 4 else 1] = tokenizer.mask_token
        masked = " ".join(words)
        ids = tokenizer(masked, truncation=True, max_length=length)["input_ids"]
        clean = task.text_tokenizer.special_in(text) is None
        if clean and ids.count(tokenizer.mask_token_id) == 1:
            tried.append(masked)
            token_ids.append(list(ids))
    if not tried:
        return None
    return Usage(
        kind="fills",
        imports=_PIPELINE,
        example=f"texts = [{f'A text with a {tokenizer.mask_token} word.'!r}]",
        code=f'filler = pipeline("fill-mask", model=folder)\n'
        f'cut = {{"truncation": True, "max_length": {length}}}\n'
        f"answers = [filler(text, top_k=5, tokenizer_kwargs=cut) for text in texts]",
        remark=f"Texts are cut off after {length} tokens, as in training.",
        inputs={"texts": tried},
        token_ids=token_ids,
    )


def _continuations(run: Run, task: CausalLM, split: PreparedSplit) -> Usage | None:
    """Returns the code that continues a prompt, if a pipeline gives a prompt the run's tokens."""
    most = (run.num_positions or LONGEST_PROMPT) - NEW_TOKENS
    prompts: list[tuple[Any, list[int]]] = []
    for prompt, ids in islice(prompts_of(task, split), MOST_ROWS):
        if 0 < len(ids) <= most:
            prompts.append((prompt, ids))
    chosen = _some(sorted(prompts, key=lambda item: len(item[1])))
    for settings in ({}, {"add_special_tokens": False}):
        if chosen and all(plain_ids(task, prompt, settings) == ids for prompt, ids in chosen):
            break
    else:
        return None
    arguments = ["do_sample=False", f"max_new_tokens={NEW_TOKENS}", "return_full_text=False"]
    arguments += [f"{name}={value}" for name, value in settings.items()]
    published: Any = getattr(plain_model(run.model), "generation_config", None)
    for name, default in RESETS.items():
        if getattr(published, name, None) not in (None, default):
            arguments.append(f"{name}={default}")
    example = '["A prompt"]'
    if task.settings.chat:
        example = '[[{"role": "user", "content": "A question"}]]'
    return Usage(
        kind="continuations",
        imports=_PIPELINE,
        example=f"texts = {example}",
        code=f'generator = pipeline("text-generation", model=folder)\n'
        f"answers = generator(texts, {', '.join(arguments)})",
        remark="The likeliest token is taken at each step. The prompt is not cut off: prompt and "
        "continuation must fit into the positions of the model.",
        inputs={"texts": [prompt for prompt, _ in chosen]},
        token_ids=[ids for _, ids in chosen],
    )


def _some(ordered: Sequence[Any]) -> list[Any]:
    """Returns the first, the middle and the last of a sequence."""
    places = dict.fromkeys([0, len(ordered) // 2, len(ordered) - 1]) if ordered else ()
    return [ordered[place] for place in places]


def _spread(split: PreparedSplit) -> Iterable[int]:
    """Returns the ids of the shortest, of a middle and of the longest example, and of some beside
    them."""
    order = np.argsort(split.lengths, kind="stable")
    half = len(order) // 2
    chosen = [*order[:2], *order[half : half + 1], *order[-3:]]
    return dict.fromkeys(int(index) for index in chosen)
