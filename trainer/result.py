"""Result: the outcome of a run, read from its directory, for notebooks and programs."""

import html
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import CheckpointError, RunDirectoryError, TrainerError
from trainer.files.plain import is_changed, read_json, reason
from trainer.metrics.averages import with_macro_averages
from trainer.process.run_directory import read_recipe
from trainer.process.status import read_status
from trainer.tasks.recipe import Recipe
from trainer.tracking.metric_lines import metrics_at, read_lines
from trainer.wording import excerpt

if TYPE_CHECKING:
    from trainer.prediction.loading import LoadedModel

Metrics = dict[str, dict[str, Any]]
"""Split name to metric name to value."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A run that has ended, or one that was stopped and can be resumed.

    Metrics are nested by split and name, such as `result.metrics["test"]["accuracy"]`, in the units
    that `results.json` lists under `scales`.
    """

    run_dir: Path
    state: str
    """"done", "stopped" (train again to resume), "failed" or "running", as in status.json."""
    message: str
    """Why the run ended, in a sentence."""
    step: int
    """Optimizer steps taken."""
    best_step: int | None
    """The step with the best validation metric so far; None before the first evaluation."""
    metrics: Metrics
    """At the best step, as `best` in results.json; at the last step if no best step is kept."""
    final: Metrics
    """At the last step that was evaluated."""
    baseline: Metrics
    """Before the first step."""
    warnings: tuple[str, ...]
    """What a reader of the metrics should know, a sentence each; empty until the run is done."""
    model_dir: Path | None
    """The exported model, which `from_pretrained` reads; None until the run is done."""

    def load(self) -> tuple[Any, Any]:
        """Returns the exported model, in evaluation mode on the CPU, and its tokenizer.

        The model has the class that the task trained, with its head; adapters are merged into it.
        Raises CheckpointError if the run is not done, or if its model cannot be read.
        """
        if self.model_dir is None:
            raise CheckpointError(
                f"{self.run_dir} has no model yet: the run is {self.state}",
                key=str(self.run_dir),
                value=self.state,
                hint="train it to its end",
            )
        from trainer.models.exported import load_exported

        return load_exported(self.model_dir)

    def export(
        self,
        dest: str | Path,
        *,
        checkpoint: str | int = "best",
        merge: bool = False,
        dtype: str | None = None,
        shard_size: str = "2GB",
        gguf: bool = False,
        onnx: bool = False,
    ) -> Path:
        """Exports a checkpoint to a new folder, and returns the folder; see `trainer export`.

        Of a run with adapters these are exported alone, or with `merge` the whole model. Raises
        TrainerError, and ExportError if the export differs from the model of the run.
        """
        from trainer.publishing.export import export_run

        return export_run(
            self.run_dir,
            Path(dest),
            checkpoint=str(checkpoint),
            merge=merge,
            dtype=dtype,
            shard_size=shard_size,
            gguf=gguf,
            onnx=onnx,
        )

    def predict(
        self, inputs: Iterable[str | tuple[str, ...] | Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Returns the answer of the exported model to each input, as `trainer predict` gives it.

        An input is a text; a tuple of texts, such as a pair, or a question and its context; or a
        dict with the columns of the recipe, or with their roles (text, text_pair, question,
        context, messages). The model is loaded once, and stays on the device. Raises
        CheckpointError if the run is not done, and DataError for an input that has no answer.
        """
        from trainer.prediction.predict import answers_to
        from trainer.process.environment import quieted_libraries

        with quieted_libraries():
            return answers_to(self._loaded, inputs)

    @cached_property
    def _loaded(self) -> "LoadedModel":
        """The exported model and what reads rows for it; not a part of the record's value."""
        from trainer.prediction.loading import load_source
        from trainer.prediction.source import find_source

        return load_source(find_source(self.run_dir))

    def _repr_html_(self) -> str:
        """Returns the summary, the findings and the metrics for a notebook; text from data and
        names is escaped."""
        if self.state == "done":
            from trainer.report.page.render import notebook_fragment
            from trainer.report.recorded import read_run
            from trainer.report.report import report_of

            with suppress(TrainerError):  # the directory has been moved or changed since
                return notebook_fragment(report_of(read_run(self.run_dir)), self.model_dir)
        title = f"{self.run_dir.name}: {self.state}, step {self.step}"
        parts = [f"<p><b>{html.escape(title)}</b></p>", f"<p>{html.escape(self.message)}</p>"]
        return "\n".join([*parts, *(_table(self, split) for split in self.final or self.baseline)])


def read_result(directory: Path) -> Result:
    """Returns the result of the run in a directory, finished or not.

    Raises RunDirectoryError if the directory holds no run, or if its files cannot be read.
    """
    directory = directory.absolute()
    recipe, status = read_recipe(directory, Recipe), read_status(directory)
    file = directory / "results.json"
    state = status.get("state") or ("done" if file.is_file() else "stopped")
    lines = with_macro_averages(read_lines(directory / "metrics.jsonl"))
    message = str(status.get("message", ""))
    if state == "done":
        return _finished(directory, _read(file), message)
    evaluated = [line for line in lines if line["split"] == "validation" and line["step"] > 0]
    best = _best_step(evaluated, recipe)
    last = max((line["step"] for line in evaluated), default=0)
    return Result(
        run_dir=directory,
        state=str(state),
        message=message,
        step=max([status.get("step") or 0, *(line["step"] for line in lines)]),
        best_step=best,
        metrics=metrics_at(lines, best) if best else {},
        final=metrics_at(lines, last) if last else {},
        baseline=_of_splits(metrics_at(lines, 0)),
        warnings=(),
        model_dir=None,
    )


def _finished(directory: Path, results: dict[str, Any], message: str) -> Result:
    model = directory / "model"
    return Result(
        run_dir=directory,
        state="done",
        message=message,
        step=results["final"]["step"],
        best_step=results["best"]["step"] if results["model"] == "best" else None,
        metrics=results["best"]["metrics"],
        final=results["final"]["metrics"],
        baseline=results["baseline"],
        warnings=tuple(results["warnings"]),
        model_dir=model if model.is_dir() else None,
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        results = read_json(file)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"{file} cannot be read ({excerpt(reason(error))})",
            key=str(file),
            hint="restore it, or train the run again in another directory",
        ) from error
    needed = ("baseline", "best", "final", "model", "warnings")
    if not isinstance(results, dict) or is_changed(results) or not results.keys() >= {*needed}:
        raise RunDirectoryError(
            f"{file} is not as the run wrote it",
            key=str(file),
            hint="restore it, or train the run again in another directory",
        )
    return with_macro_averages(results)


def _best_step(evaluated: list[dict[str, Any]], recipe: Recipe) -> int | None:
    metric, mode = recipe.evaluation.metric, recipe.evaluation.mode
    measured = [line for line in evaluated if isinstance(line.get(metric), int | float)]
    if not measured:
        return None
    choose = max if mode == "max" else min
    return choose(measured, key=lambda line: line[metric])["step"]


def _of_splits(metrics: Metrics) -> Metrics:
    """Returns the metrics without those of zero-shot answers."""
    return {name: split for name, split in metrics.items() if not name.startswith("zero_shot_")}


def _table(result: Result, split: str) -> str:
    columns = {"baseline": result.baseline, "best": result.metrics, "final": result.final}
    columns = {title: metrics[split] for title, metrics in columns.items() if split in metrics}
    names = dict.fromkeys(
        name
        for metrics in columns.values()
        for name, value in metrics.items()
        if isinstance(value, float) and name != "seconds"
    )
    head = "".join(f"<th>{title}</th>" for title in columns)
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{_number(metrics.get(name))}</td>" for metrics in columns.values())
        + "</tr>"
        for name in names
    )
    return f"<table><tr><th>{html.escape(split)}</th>{head}</tr>{rows}</table>"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""
