"""The Markdown pages: what they show can be run, and what they name exists."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import yaml
from support.paths import ROOT

from trainer.cli.app import main
from trainer.tasks.recipe import load_recipe

NOT_OURS = {"build", "dist", "runs", "venv"}
OWN_FOLDERS = ("trainer", "tests", "slurm", "accelerate_configs", "ds_configs", ".ci")
OF_RUNS = ("chat", "compare", "evaluate", "export", "predict", "push", "report", "watch")
"""Commands whose argument is a run directory."""
PLACEHOLDERS = {"RECIPE", "NAME", "mine.yaml"}
SMALL = {"data.source.num_rows": 64, "schedule.epochs": 1, "checkpoint.verify_export": False}
"""Overrides that make the demo a matter of seconds when a page trains it."""
RATIOS = "median_ratio_to_ours"


def pages() -> list[str]:
    """Returns all Markdown files of the repository, relative to its root."""
    files = (file.relative_to(ROOT) for file in ROOT.rglob("*.md"))
    return sorted(
        str(file)
        for file in files
        if not any(part.startswith(".") or part in NOT_OURS for part in file.parts)
    )


PAGES = pages()


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def prose(page: str) -> str:
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def code_spans(page: str) -> list[str]:
    """Returns what is in backticks outside of code blocks, with the escapes of tables undone."""
    spans = re.findall(r"`([^`]+)`", prose(page))
    return [" ".join(span.replace("\\|", "|").split()) for span in spans]


def shell_lines(page: str) -> list[list[str]]:
    """Returns the words of each command in the shell blocks, without comments."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    text = re.sub(r"\w+=\$\((.*)\)", r"\1", text)  # job=$(sbatch …)
    parts = [part for line in text.splitlines() for part in line.split(" && ")]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


def trainer_commands() -> Iterator[tuple[str, list[str]]]:
    """Yields each page with the arguments of each `trainer …` that it shows."""
    for page in PAGES:
        spans = [
            span.split() for span in code_spans(page) if re.match(r"(\S+=\S+ )?trainer ", span)
        ]
        for words in [*shell_lines(page), *spans]:
            if "trainer" in words:
                yield page, words[words.index("trainer") + 1 :]


def anchors(page: str) -> set[str]:
    """Returns the anchors that code hosts generate for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        at = os.path.relpath(file, ROOT)
        if not file.exists() or (anchor and anchor not in anchors(at)):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page):
    named = {
        span.rstrip("/")
        for span in code_spans(page)
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span) and span.split("/")[0] in OWN_FOLDERS
    }
    paths = [name for name in named if "/" in name and "NAME" not in name]
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_every_shown_command_exists_with_its_options():
    wrong = []
    for page, arguments in trainer_commands():
        command: click.Command = main
        rest = [word for word in re.sub(r"[\[\]…]", " ", " ".join(arguments)).split() if word]
        while isinstance(command, click.Group) and rest and rest[0][0] != "-":
            choices = rest.pop(0).split("|")
            known = command.commands
            if not set(choices) <= set(known):
                wrong.append(f"{page}: trainer {' '.join(arguments)}")
                break
            command = known[choices[0]]
        options = {option for param in command.params for option in param.opts} | {"--help"}
        wrong += [
            f"{page}: {command.name} has no {word}"
            for word in (word.split("=")[0] for word in rest)
            if word.startswith("--") and word not in options
        ]
    assert not wrong


def test_shown_recipes_and_overrides_are_valid():
    seen = set()
    for page in PAGES:
        for words in shell_lines(page):
            at = next((i for i, word in enumerate(words) if word.endswith(".sbatch")), None)
            if at is None and "trainer" in words:
                at = words.index("trainer") + 1
            if at is None or len(words) < at + 2 or words[at] in OF_RUNS:
                continue
            named = [word for word in words[at + 1 :] if not word.startswith("-")][:1]
            if not named or named[0] in PLACEHOLDERS or words[at] == "checkpoints":
                continue
            settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            load_recipe(named[0], tuple(settings))
            seen.add(named[0])
    assert {"demo", "bert-base-sst2"} <= seen


def test_every_command_is_listed():
    listed = {words[0] for page, words in trainer_commands() if page == "trainer/cli/README.md"}
    assert set(main.commands) <= listed


@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks(page, "yaml")])
def test_recipes_are_valid(block, tmp_path):
    (tmp_path / "mine.yaml").write_text(block)
    assert load_recipe(str(tmp_path / "mine.yaml")).model.name_or_path


PYTHON = [block for page in PAGES for block in blocks(page, "python") if "trainer.train(" in block]


assert len(PYTHON) >= 2


@pytest.mark.parametrize("block", PYTHON)
def test_python_runs(block, tmp_path, monkeypatch):
    import trainer

    train, load = trainer.train, trainer.load_recipe

    def small(values):
        return {**SMALL, **(values or {})}

    def train_small(recipe, overrides=None, **settings):
        whole = isinstance(recipe, str)
        return train(recipe, small(overrides) if whole else overrides, **settings)

    monkeypatch.setattr(trainer, "train", train_small)
    monkeypatch.setattr(trainer, "load_recipe", lambda name, values=None: load(name, small(values)))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README", "exec"), {})
    assert list(tmp_path.glob("runs/*/results.json"))


@pytest.fixture
def shell(tmp_path):
    """Runs a command in a folder with the launch files and no runs, without a GPU."""
    for folder in ("accelerate_configs", "ds_configs", "slurm"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip

    def run(words: list[str]) -> None:
        if words[0] == "trainer":
            words = [sys.executable, "-m", *words]
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}"

    return run


def in_miniature(words: list[str]) -> list[str]:
    """Returns a command with --smoke if it trains, on at most two ranks and with one seed."""
    words = [*words]
    for option, value in (("--num_processes", "2"), ("--seeds", "1")):
        if option in words:
            words[words.index(option) + 1] = value
    at = words.index("trainer") + 1
    if words[at] not in ("train", "sweep"):
        return words
    folder = f"runs/{words[at + 1]}{'-sweep' if words[at] == 'sweep' else ''}"
    if "--num_processes" in words:
        folder += "-ranks"
    settings = [] if "--smoke" in words else ["--smoke"]
    if folder != "runs/demo":  # which is pushed
        settings += ["--set", "checkpoint.verify_export=false"]  # it takes seconds each
    return [*words, *settings, "--run-dir", folder]


def train_assistant(shell, folder: Path) -> None:
    """Trains runs/assistant from the model of another run, which is then its base."""
    quick = ["--set", "checkpoint.verify_export=false"]
    shell(["trainer", "train", "instructions-demo", "--smoke", "--run-dir", "runs/base", *quick])
    recipe = yaml.safe_load((folder / "runs" / "base" / "config.yaml").read_text())
    recipe["model"] = {"name_or_path": str(folder / "runs" / "base" / "model")}
    (folder / "assistant.yaml").write_text(yaml.safe_dump(recipe))
    shell(["trainer", "train", "assistant.yaml"])


@pytest.mark.distributed
def test_the_commands_of_the_first_page_run_one_after_the_other(shell, tmp_path):
    train_assistant(shell, tmp_path)
    (tmp_path / "new.csv").write_text("text\nA dull film.\nA fine one.\n")
    commands = [
        in_miniature(words)
        for words in shell_lines("README.md")
        if words[0] in ("trainer", "accelerate")
    ]
    named = {word for words in commands for word in words}
    assert {"train", "evaluate", "sweep", "compare", "predict", "chat", "export", "push"} <= named
    for words in commands:
        shell(words)
    assert (tmp_path / "answers.csv").read_text().count("tive") > 1


def test_the_first_page_has_the_command_that_ci_runs():
    command = re.search(r"^pip install.*pytest.*$", text_of("README.md"), re.MULTILINE)
    assert command
    assert command[0].endswith("python -m pytest")


def test_launch_files_exist():
    named = {
        words[words.index("--config_file") + 1]
        for page in PAGES
        for words in shell_lines(page)
        if "--config_file" in words
    }
    assert "accelerate_configs/ddp.yaml" in named
    for file in named:
        assert yaml.safe_load((ROOT / file).read_text())["num_processes"] >= 1
    templates = {
        word for page in PAGES for words in shell_lines(page) for word in words if "sbatch" in word
    }
    assert all((ROOT / name).is_file() for name in templates if name.startswith("slurm/"))


def test_every_configuration_opens_with_its_command_and_is_listed():
    listed = set(code_spans("accelerate_configs/README.md"))
    for file in (ROOT / "accelerate_configs").glob("*.yaml"):
        assert f"--config_file accelerate_configs/{file.name}" in file.read_text()
        assert file.stem in listed
    templates = set(code_spans("slurm/README.md"))
    assert {f"slurm/{file.name}" for file in (ROOT / "slurm").glob("*.sbatch")} <= templates
    settings = set(code_spans("ds_configs/README.md"))
    assert {f"ds_configs/{file.name}" for file in (ROOT / "ds_configs").glob("*.json")} <= settings


def test_every_room_and_shipped_recipe_is_listed():
    spans = re.findall(r"`(\w+)/`|\[(\w+)/\]\(", text_of("trainer/README.md"))
    packages = {file.parent.name for file in (ROOT / "trainer").glob("*/__init__.py")}
    assert packages <= {name for pair in spans for name in pair}
    recipes = {file.stem for file in (ROOT / "trainer/recipe/shipped").glob("*.yaml")}
    assert recipes <= set(code_spans("trainer/tasks/README.md"))


def test_the_table_of_environment_variables_is_complete():
    page = text_of("trainer/cli/README.md")
    section = page.split("\n## Environment variables\n")[1].split("\n## ")[0]
    names = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", section))
    families = tuple(re.findall(r"`([A-Z][A-Z0-9_]+_)…`", section))
    package = "\n".join(file.read_text("utf-8") for file in (ROOT / "trainer").rglob("*.py"))
    around = [
        *(ROOT / "slurm").glob("*.s*"),
        *(ROOT / "accelerate_configs").glob("*.yaml"),
        *(file for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__)),
    ]
    others = "\n".join(file.read_text("utf-8") for file in around)
    assert not [name for name in names if not re.search(rf"\b{name}\b", package + others)]

    read = set(re.findall(r"""environ(?:\.\w+)?[\[(]\s*["']([A-Z][A-Z0-9_]+)["']""", package))
    read |= set(re.findall(r"""["']([A-Z][A-Z0-9_]+)["'] (?:not )?in os\.environ""", package))
    read |= set(re.findall(r"\bTRAINER_[A-Z_]+[A-Z]\b", package + others))
    assert not [name for name in read - names if not name.startswith(families)]


def test_the_messages_in_troubleshooting_exist():
    page = text_of("trainer/cli/README.md").split("\n## Troubleshooting\n")[1]
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 25
    sources = "\n".join(file.read_text("utf-8") for file in (ROOT / "trainer").rglob("*.py"))
    joined = re.sub(r"""["']\s*\n\s*f?["']""", "", sources)  # of neighbouring literals
    parts = [part.strip() for message in messages for part in message.split("…")]
    assert not [part for part in parts if part and part not in joined]


def test_the_figures_of_speed_are_those_of_the_raw_results():
    results, page = ROOT / "tests/benchmarks/results", text_of("tests/benchmarks/README.md")

    def ratio(name: str, loop: str) -> str:
        return f"{json.loads((results / f'{name}.json').read_text())[RATIOS][loop]:.2f}"

    for loop, row in (("plain", "plain Accelerate loop"), ("grouped", "Transformers' Trainer, gr")):
        cells = [
            f"{ratio(f'speed-{precision}-quiet', loop)} ({ratio(f'speed-{precision}', loop)})"
            for precision in ("fp32", "bf16")
        ]
        assert re.search(
            rf"^\| {row}[^|]*\| {re.escape(' | '.join(cells))} \|$", page, re.MULTILINE
        )
        assert f"{ratio('speed-fp32-quiet', loop)} times" in text_of("README.md")
    for name in ("instruction-fp32", "instruction-bf16", "masked-lm"):
        measured = json.loads((results / f"{name}.json").read_text())["tokens_per_second"]
        assert all(f"| {number:,}, " in page for number in measured.values())


def test_the_first_page_is_short_and_complete():
    assert len(text_of("README.md").encode()) < 10_000
    assert not [page for page in PAGES if re.search(r"@[A-Z]+@|\bTODO\b", text_of(page))]
