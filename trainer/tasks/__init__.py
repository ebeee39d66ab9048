"""The tasks by name."""

from trainer.tasks.base import Task
from trainer.tasks.causal_lm import CausalLM
from trainer.tasks.classification import Classification
from trainer.tasks.masked_lm import MaskedLM
from trainer.tasks.question_answering import QuestionAnswering

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "masked_lm": MaskedLM,
    "causal_lm": CausalLM,
    "question_answering": QuestionAnswering,
}
