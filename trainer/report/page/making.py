"""How a run was made: launch, recipe, machine, versions, time, as the page shows them."""

from typing import Any

from trainer.errors import ConfigError
from trainer.recipe.keys import flatten
from trainer.report.card.citations import bibtex
from trainer.report.export_sentence import model_sentence
from trainer.report.markup import plain_lines
from trainer.report.plan_sentence import plan_sentence
from trainer.report.report import Report
from trainer.report.tables.table import Table, columns
from trainer.report.tables.training import value_text


def making(report: Report) -> dict[str, Any]:
    """Returns what is known of how the run was made; unknown parts are empty."""
    results = report.results
    environment = results.get("environment") or report.run.environment
    recipe = results["recipe"]
    shipped = shipped_name(environment)
    before = None if shipped is None else _shipped_values(shipped)
    return {
        "command": _words(environment.get("command")),
        "shipped": None if before is None else shipped,
        "changed": None if before is None else _changed(before, flatten(recipe), shipped),
        "seeds": {key: value for key, value in flatten(recipe).items() if _is_seed(key, value)},
        "launch": _launch(results),
        "model": model_sentence(results),
        "machine": _machine(environment),
        "versions": _versions(environment),
        "sessions": [
            {"started": one.get("started", ""), "step": one.get("step", 0)}
            for one in environment.get("sessions", [])
        ],
        "time": _time(results),
        "energy": _energy(environment),
        "recipe": _yaml(recipe),
        "bibtex": plain_lines(bibtex(results)),
    }


def shipped_name(environment: dict[str, Any]) -> str | None:
    """Returns the name of the shipped recipe that the command trained; None if it is another."""
    from trainer.recipe.reading import shipped_recipes

    command = environment.get("command")
    words = [str(word) for word in command] if isinstance(command, list) else []
    if "train" not in words:
        return None
    names, rest = shipped_recipes(), words[words.index("train") + 1 :]
    pairs = zip(["", *rest], rest, strict=False)
    return next((w for before, w in pairs if w in names and not before.startswith("-")), None)


def _shipped_values(name: str) -> dict[str, Any] | None:
    """Returns a shipped recipe by dotted key; None if it cannot be loaded here."""
    from trainer.tasks.recipe import load_recipe

    try:
        return flatten(load_recipe(name).model_dump(mode="json"))
    except ConfigError:  # it needs what this machine lacks
        return None


def _changed(before: dict[str, Any], after: dict[str, Any], shipped: str | None) -> Table | None:
    """Returns the keys in which a recipe differs from a shipped one; None if in none."""
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    if not keys:
        return None
    return Table(
        name="recipe-changes",
        caption=f"What differs from the shipped recipe {shipped}",
        columns=columns(["key", "shipped", "this run"]),
        rows=[[key, *(_value(values, key) for values in (before, after))] for key in keys],
    )


def _value(values: dict[str, Any], key: str) -> str:
    return value_text(values[key]) if key in values else ""


def _is_seed(key: str, value: Any) -> bool:
    return key.rpartition(".")[2] == "seed" and value is not None


def _words(command: Any) -> str:
    import shlex

    words = [str(word) for word in command] if isinstance(command, list) else []
    if words and words[0].endswith(("/trainer/__main__.py", "/bin/trainer")):
        words[0] = "trainer"
    return shlex.join(words)


def _launch(results: dict[str, Any]) -> list[str]:
    processes, recipe = results["processes"], results["recipe"]
    batch = recipe.get("batch", {}).get("global_batch_size")
    parts = [f"{processes} process{'' if processes == 1 else 'es'}", results["precision"]]
    parts += [f"global batch of {batch}"] if batch else []
    if results["skipped_steps"]:
        parts.append(f"{results['skipped_steps']:,} steps skipped by loss scaling")
    return parts


def _machine(environment: dict[str, Any]) -> list[str]:
    gpus: list[str] = environment.get("gpus", [])
    counted = [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    cpus = environment.get("num_cpus")
    parts = [environment.get("platform"), f"{cpus} CPUs" if cpus else None, *counted]
    return [str(part) for part in parts if part]


def _versions(environment: dict[str, Any]) -> list[str]:
    versions = {"Python": environment.get("python"), **environment.get("packages", {})}
    return [f"{name} {version}" for name, version in versions.items() if version]


def _time(results: dict[str, Any]) -> list[str]:
    seconds = results["seconds"]
    parts = [f"{seconds['total']:,.1f} s in total"]
    if seconds.get("per_epoch"):
        listed = ", ".join(f"{one:,.1f}" for one in seconds["per_epoch"][:20])
        more = ", …" if len(seconds["per_epoch"]) > 20 else ""
        parts.append(f"training by epoch {listed}{more} s")
    if "evaluation" in seconds:
        parts.append(f"evaluation {seconds['evaluation']:,.1f} s")
    parts.append(f"peak memory {results['peak_memory_bytes'] / 2**20:,.0f} MiB a process")
    planned = plan_sentence(results)
    return parts if planned is None else [*parts, planned]


def _energy(environment: dict[str, Any]) -> str:
    """Returns the energy of the sessions that it was counted in."""
    sessions = environment.get("sessions", [])
    counted = [one["energy_joules"] for one in sessions if "energy_joules" in one]
    if not counted:
        return ""
    of = "" if len(counted) == len(sessions) else f" in {len(counted)} of {len(sessions)} sessions"
    return f"{sum(counted) / 3600:,.1f} Wh of the GPUs{of}"


def _yaml(recipe: dict[str, Any]) -> str:
    import yaml

    return plain_lines(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
