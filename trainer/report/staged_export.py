"""The folders that a run exports: hidden until they are verified."""

from pathlib import Path

from trainer.exports.gate import Verdict
from trainer.files.modes import follow_umask
from trainer.files.plain import remove
from trainer.models.export import export_adapter, export_model
from trainer.report.card.adapter_card import adapter_card
from trainer.run import Run


def stage(run: Run) -> dict[str, Path]:
    """Exports the model, and its adapters if it has any, into hidden folders; returns these by the
    name of the folder that they become."""
    staged = {"model": _staging(run.directory, "model")}
    export_model(
        run.model,
        run.tokenizer,
        staged["model"],
        ends=run.task.generation_ends(run.model),
        num_positions=run.num_positions,
    )
    if hasattr(run.model, "peft_config"):
        staged["adapter"] = _staging(run.directory, "adapter")
        export_adapter(run.model, staged["adapter"])
        name = run.directory.name
        text = adapter_card(name, run.recipe, run.model, run.task.auto_model, run.base)
        (staged["adapter"] / "README.md").write_text(text, "utf-8")
    return staged


def give_names(run: Run, staged: dict[str, Path], verdict: Verdict) -> None:
    """Gives the folders their names, or hidden ones if something is wrong with them."""
    for name, staging in staged.items():
        failed = failed_folder(run, name)
        target = failed if verdict.failed else run.directory / name
        follow_umask(staging)
        remove(failed)
        remove(target)
        staging.rename(target)


def failed_folder(run: Run, name: str) -> Path:
    """Returns where an export is kept that is not the measured model."""
    return run.directory / f".{name}.failed"


def _staging(directory: Path, name: str) -> Path:
    staging = directory / f".{name}.staging"
    remove(staging)
    staging.mkdir()
    return staging
