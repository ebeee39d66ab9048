"""Outputs in parts: what a killed command left is continued, on any number of processes."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.command_line import invoke, run
from support.launches import (
    launch_command,
    launch_environment,
    rank_pids,
    run_to_its_end,
    wait_until,
)
from support.paths import ROOT

from trainer.errors import ConfigError, LaunchError
from trainer.prediction.parts import Parts, parts_of


@pytest.fixture(scope="session")
def many_rows(tmp_path_factory) -> Path:
    """A file of six blocks."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = ({"text": f"film {n} is {'good ' * (n % 5)}bad"} for n in range(24_000))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="session")
def whole(many_rows, reviews_run) -> bytes:
    """What a command writes that nothing interrupts."""
    output = many_rows.with_name("whole.jsonl")
    assert run("predict", reviews_run, many_rows, "--output", output).startswith("24,000 rows")
    return output.read_bytes()


def part_names(output: Path) -> list[str]:
    return sorted(part.name for part in output.with_name(f"{output.name}.parts").glob("part-*"))


@pytest.mark.distributed
def test_a_command_that_was_killed_continues(warm, whole, many_rows, reviews_run, tmp_path):
    output = tmp_path / "answers.jsonl"
    arguments = ("predict", str(reviews_run), str(many_rows), "--output", str(output))
    process = warm.start("-m", "trainer", *arguments)
    wait_until(lambda: len(part_names(output)) > 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    before = len(part_names(output))
    assert 1 < before < 6
    assert not output.exists()
    done = invoke(*arguments)
    assert f"{before} blocks are answered already" in done.stderr
    assert output.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_answers_of_other_settings_are_not_continued(reviews_run, tmp_path):
    rows, output = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    rows.write_text('{"text": "good"}\n{"text": "bad"}\n')
    parts = tmp_path / "answers.jsonl.parts"
    parts.mkdir()
    (parts / "identity.json").write_text('{"input": "another"}')
    (parts / "part-00000000.jsonl").write_text('{"text": "of another input"}\n')
    done = invoke("predict", reviews_run, rows, "--output", output)
    assert done.exit_code == 0
    assert "other values of input, model, settings" in done.stderr
    assert "starting again" in done.stderr
    assert "another" not in output.read_text()


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    folder = tmp_path / "a.parts"
    folder.mkdir()
    (folder / "notes.txt").write_text("kept")
    with (
        pytest.raises(ConfigError, match=r"holds notes\.txt; move them"),
        parts_of(tmp_path / "a", dict, pytest.fail),
    ):
        pass
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]


def test_two_commands_do_not_write_one_output(tmp_path):
    say = pytest.fail
    with parts_of(tmp_path / "a", lambda: {"input": "1"}, say) as parts:
        parts.write(0, [{"text": "é"}])
        with (
            pytest.raises(ConfigError, match="another command"),
            parts_of(tmp_path / "a", lambda: {"input": "1"}, say),
        ):
            pass
    with parts_of(tmp_path / "a", lambda: {"input": "1"}, say) as again:
        assert again.present == {0}
        assert again.file(0).read_text("utf-8") == '{"text": "é"}\n'


def test_blocks_are_divided_and_absent_processes_named(tmp_path):
    processes = [Parts(tmp_path, rank, 3, frozenset({4})) for rank in range(3)]
    for block in range(9):
        writers = [parts.rank for parts in processes if parts.lacks(block)]
        assert writers == ([] if block == 4 else [block % 3])
    processes[0].write(0, [])
    with pytest.raises(LaunchError, match="processes 1, 2 have not answered 2 of 3 blocks"):
        processes[0].wait_for(3, limit=0)


@pytest.mark.distributed
def test_two_processes_write_what_one_does_and_one_continues(
    whole, many_rows, reviews_run, tmp_path
):
    output = tmp_path / "answers.jsonl"
    arguments = ("predict", str(reviews_run), str(many_rows), "--output", str(output))
    command = launch_command(*arguments)
    done = run_to_its_end(command, tmp_path)
    assert done.code == 0, done.output
    assert output.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [output.name]

    refused = run_to_its_end(command, tmp_path)
    assert refused.code != 0
    assert "--overwrite" in refused.output

    output.unlink()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=launch_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    wait_until(lambda: part_names(output), process)
    for pid in rank_pids(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert part_names(output)
    assert not output.exists()
    assert invoke(*arguments).exit_code == 0
    assert output.read_bytes() == whole
