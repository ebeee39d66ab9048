"""The tasks by name."""

from trainer.tasks.classification import Classification

TASKS = {"classification": Classification}
