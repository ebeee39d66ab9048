"""How a command ends if memory, the disk, file permissions or its output fail."""

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch

from trainer.assembly.memory_advice import settings_that_help
from trainer.distributed.environment_variables import check_variables, value_error
from trainer.errors import (
    ConfigError,
    FileError,
    LaunchError,
    OutOfMemoryError,
    TrainerError,
)
from trainer.files.file_errors import file_error
from trainer.process.library_errors import as_user_error
from trainer.process.out_of_memory import is_out_of_memory, memory_reported, requested_bytes
from trainer.process.run_directory import claim
from trainer.process.status import Status, read_status
from trainer.tasks.recipe import load_recipe

GIB = 2**30


def raised(work) -> BaseException:
    with pytest.raises(BaseException) as caught:
        work()
    return caught.value


@pytest.mark.parametrize(
    ("error", "requested"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"), 2 * GIB),
        (raised(lambda: torch.empty(2**55)), 2**57),
        (raised(lambda: np.empty(2**57)), 2**60),
        (MemoryError(), None),
        (raised(lambda: pyarrow.allocate_buffer(2**62)), 2**62),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), None),
        (RuntimeError("NCCL error … Cuda failure 'out of memory'"), None),
        (RuntimeError("CUDA driver error: out of memory"), None),
        (RuntimeError("std::bad_alloc"), None),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), None),
        (RuntimeError("could not create a primitive"), None),
    ],
)
def test_memory_that_is_exhausted_is_code_2_however_a_library_reports_it(error, requested):
    assert is_out_of_memory(error)
    num_bytes = requested_bytes(error)
    assert (num_bytes is None) == (requested is None)
    assert requested is None or num_bytes == pytest.approx(requested, rel=0.01)
    user_error = as_user_error(error)
    assert isinstance(user_error, OutOfMemoryError)
    assert "batch.micro_batch_size" in (user_error.hint or "")


def test_a_reader_that_takes_it_for_a_damaged_file_is_seen_through():
    error = ConfigError("model.architecture: no model has such numbers")
    error.__cause__ = raised(lambda: torch.empty(2**55))
    with pytest.raises(OutOfMemoryError, match="loading"), memory_reported("loading", str, str):
        raise error
    with pytest.raises(ConfigError), memory_reported("loading", str, str):
        raise ConfigError("another")


@pytest.mark.parametrize(
    "error", [RuntimeError("size mismatch"), ValueError("out of memory"), KeyError("memory")]
)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


def test_the_settings_that_help_are_those_that_are_not_set_yet():
    demo = load_recipe("demo", ("batch.global_batch_size=32", "batch.max_seq_length=512"))
    assert settings_that_help(demo, "training", micro_batch_size=16, longest=300) == [
        "batch.micro_batch_size=8",
        "model.gradient_checkpointing=true",
        "batch.max_seq_length=256",
    ]
    lean = load_recipe("llama-3.2-1b-sst2-qlora", ("model.gradient_checkpointing=true",))
    advice = settings_that_help(lean, "training", micro_batch_size=1, longest=128, on_gpu=True)
    assert advice[0] == "batch.max_seq_length=64"
    assert not any("gradient_checkpointing" in text or "qlora" in text for text in advice)
    full = load_recipe("bert-base-sst2")
    heavy = settings_that_help(full, "training", micro_batch_size=8, state_is_most=True)
    assert heavy[0] == "tuning.mode=lora"
    assert settings_that_help(full, "loading")[0] == "tuning.mode=qlora"


def test_a_run_without_memory_says_where_and_what_helps(
    commands, reviews_recipe, write_recipe, tmp_path
):
    """A real limit: activations of 128 examples do not fit, and in the other run the weights."""
    reviews_recipe["model"]["architecture"] |= {"num_hidden_layers": 2, "intermediate_size": 200000}
    reviews_recipe["batch"] |= {"global_batch_size": 128, "micro_batch_size": 128}
    reviews_recipe["evaluation"]["baseline"] = False
    recipe, run = write_recipe(reviews_recipe), tmp_path / "run"
    train = ("train", str(recipe), "--run-dir", str(run))
    for override, parts in (
        ("seed=1", ("in step 1, at [128, ", "batch.micro_batch_size=64", "weights")),
        ("model.architecture.intermediate_size=40000000", ("loading the model", "GB more")),
    ):
        code, output, _, _ = commands.run(
            *train, "--set", override, limits={"RLIMIT_AS": 5 * GIB // 4}
        )
        assert code == 2, output
        assert "Traceback" not in output
        status = read_status(run)
        assert (status["state"], status["exit_code"]) == ("failed", 2)
        for part in ("out of memory", *parts):
            assert part in output
            assert part in status["message"]
        assert len(status["message"]) <= 500


def test_a_file_that_may_not_grow_is_not_told_to_free_space(
    commands, reviews_recipe, write_recipe, tmp_path
):
    run = tmp_path / "run"
    code, output, _, _ = commands.run(
        "train",
        str(write_recipe(reviews_recipe)),
        *("--run-dir", str(run)),
        limits={"RLIMIT_FSIZE": 40_000},
    )
    assert code == 2, output
    assert "Traceback" not in output
    assert "free space" not in output
    assert read_status(run)["exit_code"] == 2


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "the disk or its network failed"),
        (errno.EACCES, "permissions"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_each_error_of_a_file_has_its_own_remedy(number, remedy, tmp_path):
    error = file_error(OSError(number, os.strerror(number), str(tmp_path / "file")))
    assert isinstance(error, FileError)
    assert (error.key, error.value) == (str(tmp_path / "file"), number)
    assert remedy in str(error)
    assert ("free space" in str(error.hint)) == (number == errno.ENOSPC)


def test_a_library_that_wraps_a_full_disk_is_seen_through():
    inner = OSError(errno.ENOSPC, "No space left on device")
    outer = RuntimeError("generating the data set failed")
    outer.__cause__ = inner
    assert "cannot be written: No space left on device" in str(file_error(outer))
    assert file_error(RuntimeError("I/O error (os error 28)")) is not None
    assert file_error(ValueError("No space left")) is None


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own: mounts it with options, and returns where."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a file system cannot be mounted here")
        return place

    yield mount
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def fill(place: Path, *, inodes: bool) -> None:
    with suppress(OSError):
        for number in range(10_000):
            with (place / f"file-{number * inodes}").open("ab") as file:
                file.write(b"x" * (1 if inodes else 4096))


@pytest.mark.parametrize("inodes", [True, False])
def test_the_last_status_is_written_on_a_full_disk(inodes, small_disk):
    place = small_disk("size=256k,nr_inodes=20")
    run = place / "run"
    run.mkdir()
    status = Status(run)
    with claim(run):
        status.begin()
        fill(place, inodes=inodes)
        with pytest.raises(FileError) as caught, status.reported():
            (run / "another").write_bytes(b"x" * 4096)
    status = read_status(run)
    assert (status["state"], status["exit_code"]) == ("failed", 2)
    assert status["message"] == str(caught.value)
    assert ("no inodes are left" in str(caught.value)) == inodes


@pytest.mark.parametrize("command", ["prepare", "evaluate"])
def test_other_commands_on_a_full_disk(
    command, commands, reviews_recipe, write_recipe, tmp_path, small_disk
):
    recipe, place = write_recipe(reviews_recipe), small_disk("size=1m,nr_inodes=20")
    arguments = [command, str(recipe)]
    if command == "evaluate":
        run = tmp_path / "run"
        assert commands.run("train", str(recipe), "--run-dir", str(run))[0] == 0
        arguments = [command, str(run)]
    fill(place, inodes=False)
    variables = {"TRAINER_CACHE": str(place / "cache")}
    code, output, _, _ = commands.run(*arguments, variables=variables)
    assert code == 2, output
    assert "Traceback" not in output
    assert "No space left on device" in output


@pytest.mark.parametrize("name", ["predictions", "tensorboard", "metrics.jsonl"])
def test_a_folder_that_cannot_be_written_is_a_sentence(
    name, commands, reviews_recipe, write_recipe, tmp_path
):
    reviews_recipe["tracking"] |= {"trackers": ["tensorboard"]}
    run = tmp_path / "run"
    run.mkdir()
    if name.endswith("jsonl"):
        (run / name).mkdir()
    else:
        (run / name).write_text("a file, where a folder should be")
    code, output, _, _ = commands.run(
        "train", str(write_recipe(reviews_recipe)), "--run-dir", str(run)
    )
    assert code == 2, output
    assert "Traceback" not in output
    assert name in read_status(run)["message"]


@pytest.mark.parametrize(
    ("redirection", "code"),
    [(">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0), ("| head -1", 0), (">/dev/full", 2)],
)
def test_output_that_goes_away(redirection, code):
    command = f"{sys.executable} -m trainer show demo {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    "value", ["", "two", "-1", "1.5", "9" * 30, "٣", "²", " 1", "1_0", "\n", "0x1"]
)
@pytest.mark.parametrize(
    "name",
    [
        *("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"),
        *("PARALLELISM_CONFIG_TP_SIZE", "OMPI_COMM_WORLD_SIZE", "TRAINER_MEETING_SECONDS"),
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    ],
)
def test_a_variable_that_holds_no_number(name, value, monkeypatch):
    if name == "TRAINER_MEETING_SECONDS" and value == "1.5":
        value = "1.5.1"
    monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError) as caught:
        check_variables()
    assert (caught.value.key, caught.value.value) == (name, value)
    assert len(str(caught.value)) < 300


def test_a_rank_that_cannot_be(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(LaunchError, match="RANK=2 must be less than 2"):
        check_variables()


def test_a_variable_that_a_library_does_not_understand(monkeypatch):
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "soon")
    error = value_error(raised(lambda: int(os.environ["HF_HUB_DOWNLOAD_TIMEOUT"])))
    assert isinstance(error, TrainerError)
    assert str(error).startswith("HF_HUB_DOWNLOAD_TIMEOUT=soon is not understood")
    assert (error.key, error.value) == ("HF_HUB_DOWNLOAD_TIMEOUT", "soon")
    assert value_error(ValueError("invalid literal for int(): 'later'")) is None
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a number that stands in many a message
    assert value_error(RuntimeError("tensor a must match at non-singleton dimension 1")) is None


def test_status_is_json_with_room_for_another(tmp_path):
    Status(tmp_path).write("done", 0, 5, "é" * 600)
    text = (tmp_path / "status.json").read_bytes()
    assert len(text) == 4096
    assert json.loads(text)["message"].endswith("(600 characters)")
