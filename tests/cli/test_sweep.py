"""A sweep: its grid, names and commands, and real runs that resume after a stop."""

import json
import shlex
import signal
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import pytest
from support.paths import program

from trainer.cli.grid import cell_names, grid
from trainer.cli.sweep import sweep
from trainer.errors import ConfigError, LaunchError
from trainer.process.run_directory import claim
from trainer.process.status import Status, read_status
from trainer.report.comparison.compare import compare, markdown
from trainer.tasks.recipe import load_recipe

LAUNCHER = f"{sys.executable} -m accelerate.commands.launch --num_processes 1"


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    """A recipe of two steps, of which nothing is to be learned."""
    numbers = {"hidden_size": 16, "num_attention_heads": 1, "intermediate_size": 16}
    reviews_recipe["model"]["architecture"] |= numbers
    reviews_recipe["data"]["source"]["num_rows"] = 64
    reviews_recipe["schedule"] = {"steps": 2}
    reviews_recipe["evaluation"]["every"] = 1
    reviews_recipe["checkpoint"] = {"verify_export": False}
    reviews_recipe["tracking"] = {"trackers": ["tensorboard"], "log_every_steps": 1}
    return write_recipe(reviews_recipe)


def run_sweep(
    recipe,
    directory: Path,
    *overrides: str,
    seeds: str | None = "1,2",
    vary: tuple[str, ...] = (),
    launcher: str | None = None,
    print_only: bool = False,
    smoke: bool = False,
) -> int:
    return sweep(
        str(recipe),
        overrides,
        seeds=seeds,
        vary=vary,
        directory=directory,
        launcher=launcher,
        print_only=print_only,
        smoke=smoke,
    )


def test_several_options_multiply_and_seeds_change_fastest():
    assert grid("1,2", ("model.initialization=pretrained, random",)) == [
        {"model.initialization": initialization, "seed": seed}
        for initialization in ("pretrained", "random")
        for seed in ("1", "2")
    ]
    assert len(grid("1,2,3", ("a=1,2", "b=1,2,3,4"))) == 24
    assert grid("7", ()) == [{"seed": "7"}]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[title,body],text", ["[title,body]", "text"]),
        ("{train: a, test: [b,c]},{train: d}", ["{train: a, test: [b,c]}", "{train: d}"]),
        ("5e-5,null", ["5e-5", "null"]),
        ("a=b,c", ["a=b", "c"]),
    ],
)
def test_a_comma_in_brackets_belongs_to_its_value(text, values):
    assert [cell["key"] for cell in grid(None, (f"key={text}",))] == values


@pytest.mark.parametrize(
    ("seeds", "vary", "key", "value"),
    [
        (None, (), "--vary", None),
        (None, ("seed",), "--vary", "seed"),
        (None, ("=1",), "--vary", "=1"),
        ("1,,2", (), "--seeds", "1,,2"),
        ("", (), "--seeds", ""),
        (None, ("a=",), "--vary", "a="),
        ("1,2,1", (), "--seeds", "1,2,1"),
        (None, ("a=1", "a=2"), "a", None),
        ("1", ("seed=2",), "seed", None),
    ],
)
def test_a_wrong_grid_is_one_sentence(seeds, vary, key, value):
    with pytest.raises(ConfigError) as caught:
        grid(seeds, vary)
    assert (caught.value.key, caught.value.value) == (key, value)
    assert "\n" not in str(caught.value)


def test_the_sentence_says_what_to_write():
    with pytest.raises(ConfigError) as caught:
        grid("1,,2", ())
    assert str(caught.value) == (
        "--seeds 1,,2: a value is empty; write one on each side of a comma"
    )


def test_names_are_of_the_last_parts_of_the_keys():
    cells = grid("1,2", ("model.initialization=random", "model.name_or_path=meta-llama/Llama-3.2"))
    assert cell_names(cells) == [
        f"initialization=random,name_or_path=meta-llama_Llama-3.2,seed={seed}" for seed in (1, 2)
    ]
    cells = grid("1", ("data.source.seed=2", "optimizer.learning_rate=5e-5"))
    assert cell_names(cells) == ["data.source.seed=2,learning_rate=5e-5,seed=1"]


def test_names_are_safe_and_differ():
    values = ["/a/b", "a b", "a_b", "A_B", "[a,b]", "x" * 300, "x" * 301, "..", "é", "-1", "1"]
    names = cell_names([{"key": value} for value in values])
    assert all(one.casefold() != two.casefold() for one, two in combinations(names, 2))
    assert all(len(name) <= 200 and "/" not in name and "key=" in name for name in names)
    assert names[-2:] == ["key=-1", "key=1"]


@pytest.mark.parametrize("launcher", [None, "accelerate launch --config_file 'a b.yaml'"])
def test_printed_commands_are_those_of_the_cells(launcher, recipe, tmp_path, capsys):
    parent = tmp_path / "a parent"
    vary = ("data.columns.text=[text,id],text",)
    code = run_sweep(
        recipe, parent, "batch.max_seq_length=16", vary=vary, launcher=launcher, print_only=True
    )
    assert code == 0
    assert not parent.exists()
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    start = [*shlex.split(launcher), "-m", "trainer"] if launcher else ["trainer"]
    cells = [(text, seed) for text in ("[text,id]", "text") for seed in ("1", "2")]
    for words, (text, seed) in zip(lines, cells, strict=True):
        assert words[: len(start) + 2] == [*start, "train", str(recipe)]
        given = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
        assert given == ["batch.max_seq_length=16", f"data.columns.text={text}", f"seed={seed}"]
        assert load_recipe(str(recipe), tuple(given)).seed == int(seed)
    directories = [words[words.index("--run-dir") + 1] for words in lines]
    assert [Path(one).name for one in directories[2:]] == ["text=text,seed=1", "text=text,seed=2"]
    assert all(Path(one).parent == parent for one in directories)


def test_smoke_is_passed_on(recipe, tmp_path, capsys):
    run_sweep(recipe, tmp_path / "parent", print_only=True, smoke=True)
    assert all(line.endswith(" --smoke") for line in capsys.readouterr().out.splitlines())


def test_all_problems_are_said_before_the_first_run(recipe, tmp_path):
    vary = ("optimizer.learning_rate=1e-3,fast", "schedule.name=linear,lineal")
    with pytest.raises(ConfigError) as caught:
        run_sweep(recipe, tmp_path / "parent", vary=vary)
    assert "'fast'" in str(caught.value)
    assert "did you mean linear" in str(caught.value)
    assert not (tmp_path / "parent").exists()


@pytest.mark.parametrize(
    ("overrides", "vary", "launcher", "key"),
    [
        ((), ("optimizer.learning_rate=1e-3,0.001",), None, "--vary"),
        (("seed=3",), (), None, "seed"),
        ((), (), "accelerate 'launch", "--launcher"),
        ((), (), "  ", "--launcher"),
        ((), (), "no-such-launcher", "--launcher"),
    ],
)
def test_what_cannot_be_swept_is_refused(overrides, vary, launcher, key, recipe, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run_sweep(recipe, tmp_path / "parent", *overrides, vary=vary, launcher=launcher)
    assert caught.value.key == key


def test_directories_of_other_runs_are_refused(recipe, tmp_path):
    cell = tmp_path / "parent" / "seed=2"
    cell.mkdir(parents=True)
    file = cell / "config.yaml"
    file.write_text(recipe.read_text() + "deterministic: true\n")
    Status(cell).write("done", 0, 2, "done")
    with pytest.raises(ConfigError) as caught:
        run_sweep(recipe, tmp_path / "parent")
    (problem,) = caught.value.value
    assert "seed=2 belongs to a run of another recipe" in problem
    with pytest.raises(ConfigError) as caught:
        run_sweep(recipe, cell)
    assert caught.value.value[0].startswith(f"{cell} is a run of its own")


def test_ranks_do_not_sweep(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError) as caught:
        run_sweep(recipe, tmp_path / "parent")
    assert caught.value.key == "WORLD_SIZE"


def test_a_sweep_runs_is_resumed_and_compared(recipe, tmp_path, capfd):
    parent = tmp_path / "parent"
    assert run_sweep(recipe, parent) == 0
    output = capfd.readouterr().out
    assert output.index("sweep: seed=1, 1 of 2") < output.index("sweep: seed=2, 2 of 2")
    assert f"compare: trainer compare {parent}\n" in output
    assert f"tensorboard --logdir {parent}\n" in output
    cells = [parent / "seed=1", parent / "seed=2"]
    assert all(list((cell / "tensorboard").rglob("events.out.tfevents.*")) for cell in cells)

    comparison = compare((parent,))
    (group,) = comparison["groups"]
    assert (group["seeds"], group["runs"]) == ([1, 2], [str(cell) for cell in cells])
    results = [json.loads((cell / "results.json").read_text()) for cell in cells]
    losses = [one["best"]["metrics"]["test"]["loss"] for one in results]
    assert group["test"]["loss"]["values"] == losses
    assert group["test"]["loss"]["mean"] == pytest.approx(sum(losses) / 2)
    assert group["test"]["loss"]["std"] == pytest.approx(abs(losses[0] - losses[1]) / 2**0.5)
    assert losses[0] != losses[1]
    assert next(iter(group["validation"])) == comparison["metric"] == "accuracy"
    assert "all runs" in markdown(comparison)

    # As if the second had been killed after its last checkpoint: it alone resumes.
    before = [(cell / "environment.json").stat().st_mtime_ns for cell in cells]
    for name in ("status.json", "results.json"):
        (cells[1] / name).unlink()
    assert run_sweep(recipe, parent) == 0
    output = capfd.readouterr().out
    assert output.count("This run is finished") == 1
    assert "resuming from" in output
    after = [(cell / "environment.json").stat().st_mtime_ns for cell in cells]
    assert after[0] == before[0]
    assert after[1] > before[1]
    assert compare((parent,))["groups"][0]["test"] == group["test"]


@pytest.mark.parametrize("launcher", [None, LAUNCHER])
def test_a_run_that_fails_ends_the_sweep_with_its_code(launcher, recipe, tmp_path, capfd):
    parent = tmp_path / "parent"
    vary = (f"data.source={{files: {{train: {tmp_path}/a.tsv}}}},{{files: {{train: b.tsv}}}}",)
    assert run_sweep(recipe, parent, seeds=None, vary=vary, launcher=launcher) == 2
    (failed,) = parent.iterdir()
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith(f"sweep: {failed.name} ended with code 2 (")
    assert read_status(failed)["message"] in error
    assert "0 of 2 runs are done" in error


def test_the_code_of_an_earlier_command_is_not_taken_for_that_of_this_one(recipe, tmp_path):
    cell = tmp_path / "seed=1"
    cell.mkdir()
    Status(cell).write("stopped", 85, 1, "stopped")
    # `false` never starts the run, as a launcher that is set up wrongly.
    assert run_sweep(recipe, tmp_path, launcher="false") == 1


@pytest.mark.parametrize(
    ("launcher", "number", "code"),
    [(None, signal.SIGINT, 130), (None, signal.SIGTERM, 85), (LAUNCHER, signal.SIGTERM, 85)],
)
def test_a_stopped_sweep_waits_until_its_run_has_saved(launcher, number, code, recipe, tmp_path):
    cell, deadline = tmp_path / "parent" / "seed=1", time.monotonic() + 120
    command = program("sweep_of_two_seeds", recipe, *([launcher] if launcher else []))
    with subprocess.Popen(command, cwd=tmp_path) as process:
        try:
            while '"split": "train"' not in _text(cell / "metrics.jsonl"):
                assert process.poll() is None
                assert time.monotonic() < deadline, "no progress"
                time.sleep(0.05)
        finally:
            process.send_signal(number)
        assert process.wait(timeout=120) == code
    with claim(cell):  # nobody trains there any more
        status = read_status(cell)
    assert (status["state"], status["exit_code"]) == ("stopped", code)
    assert list((cell / "checkpoints").glob(f"step-{status['step']:08d}"))
    assert not (tmp_path / "parent" / "seed=2").exists()


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""
