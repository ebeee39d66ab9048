"""A model that a run exported, loaded from its folder."""

from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError

from trainer.errors import CheckpointError
from trainer.models.quiet import quiet_transformers
from trainer.models.span_head import ensure_span_head
from trainer.wording import excerpt


def load_exported(folder: Path) -> tuple[Any, Any]:
    """Returns the model in a folder, in evaluation mode on the CPU, and its tokenizer.

    The model has the class that the task trained, with its head. Raises CheckpointError if it
    cannot be read.
    """
    import transformers

    try:
        with quiet_transformers():
            settings: Any = transformers.AutoConfig.from_pretrained(folder)
            kind = getattr(transformers, settings.architectures[0], None)
            if kind is None:  # a class that transformers does not have: a span head
                ensure_span_head(settings)
                kind = transformers.AutoModelForQuestionAnswering
            model = cast(Any, kind).from_pretrained(folder)
            return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} cannot be loaded ({excerpt(error, 200)})",
            key=str(folder),
            hint="restore the folder, or train the run again",
        ) from error
