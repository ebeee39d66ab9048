"""What a plan reads from Accelerate's configurations."""

import json
from pathlib import Path

import pytest
from support.paths import ROOT

from trainer.errors import ConfigError
from trainer.planning.launches import LIVE, PlannedLaunch, planned_launch

CONFIGS = ROOT / "accelerate_configs"


@pytest.fixture
def write_config(tmp_path):
    def write(zero, *, kind: str = "DEEPSPEED", **values) -> Path:
        (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": zero}))
        values |= {"distributed_type": kind, "num_processes": 4, "num_machines": 1}
        values["deepspeed_config"] = {"deepspeed_config_file": "ds.json"}
        file = tmp_path / "configs" / "launch.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(values))  # JSON is YAML
        return file

    return write


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpu-1", PlannedLaunch()),
        ("ddp", PlannedLaunch(engine="ddp", processes=2)),
        ("cpu-2", PlannedLaunch(engine="ddp", processes=2)),
        ("ddp-multinode", PlannedLaunch(engine="ddp", processes=2, nodes=2)),
        ("fsdp2", PlannedLaunch(engine="fsdp2", processes=2)),
        ("fsdp2-hybrid", PlannedLaunch(engine="fsdp2", processes=4, nodes=2, replicas=2)),
    ],
)
def test_configurations_without_deepspeed(name, expected):
    assert planned_launch(CONFIGS / f"{name}.yaml") == expected


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*zero*.yaml")), ids=lambda file: file.stem)
def test_every_deepspeed_configuration_is_read(file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # ds_configs/ is found beside the folder of the YAML
    launch = planned_launch(file, processes=16, nodes=2)
    assert launch.engine == "zero" + file.stem.partition("zero")[2][0]
    assert (launch.processes, launch.node_size, launch.shards) == (16, 8, 16)
    offload = "nvme" if "nvme" in file.stem else "cpu" if "offload" in file.stem else "none"
    assert launch.offload_optimizer == offload
    assert launch.offload_parameters == (offload if launch.engine == "zero3" else "none")
    assert launch.overlapping == (file.stem in ("zero2", "cpu-2-zero2"))
    assert (launch.bucket is None) == (launch.engine == "zero3")
    assert launch.live == LIVE


def test_without_a_configuration():
    assert planned_launch(None) == PlannedLaunch()
    assert planned_launch(None, 8, 2) == PlannedLaunch(engine="ddp", processes=8, nodes=2)
    assert planned_launch(CONFIGS / "ddp.yaml", processes=1).engine == "none"


def test_sizes_of_a_deepspeed_configuration_count(write_config):
    sizes = {"stage3_max_live_parameters": 5e7, "stage3_max_reuse_distance": "4e7"}
    sizes |= {"reduce_bucket_size": 1000, "sub_group_size": 2000, "zero_hpz_partition_size": 2}
    launch = planned_launch(write_config({"stage": 3, **sizes}))
    assert launch == PlannedLaunch(
        engine="hpz",
        processes=4,
        bucket=1000,
        live=40_000_000,
        sub_group=2000,
        persistence=100_000,
        second_copy=2,
    )


def test_zero3_may_keep_nothing_whole(write_config):
    nothing = {"stage3_param_persistence_threshold": 0, "stage3_max_live_parameters": 0}
    launch = planned_launch(write_config({"stage": 3, **nothing}))
    assert (launch.persistence, launch.live) == (0, 0)


@pytest.mark.parametrize(
    ("zero", "key"),
    [
        ({"stage": 0}, "zero_optimization.stage"),
        ({"stage": "3"}, "zero_optimization.stage"),
        ({"stage": True}, "zero_optimization.stage"),
        ({"stage": 2.0}, "zero_optimization.stage"),
        ({"stage": 2, "reduce_bucket_size": "many"}, "reduce_bucket_size"),
        ({"stage": 2, "reduce_bucket_size": True}, "reduce_bucket_size"),
        ({"stage": 2, "reduce_bucket_size": "1e999"}, "reduce_bucket_size"),
        ({"stage": 2, "reduce_bucket_size": 0}, "reduce_bucket_size"),
        ({"stage": 2, "reduce_bucket_size": 1.5}, "reduce_bucket_size"),
        ({"stage": 3, "sub_group_size": 1e300}, "sub_group_size"),
        ({"stage": 3, "zero_hpz_partition_size": 3}, "zero_hpz_partition_size"),
        ({"stage": 2, "offload_optimizer": {"device": "tape"}}, "offload_optimizer.device"),
        ([], "--config"),
    ],
)
def test_a_deepspeed_configuration_that_makes_no_sense_is_one_error(zero, key, write_config):
    with pytest.raises(ConfigError) as raised:
        planned_launch(write_config(zero))
    assert raised.value.key == key


@pytest.mark.parametrize(
    "text",
    ["", "[]", "a: [", "distributed_type: TPU", "distributed_type: DEEPSPEED", "\0", "num: 1"],
)
def test_a_file_that_is_no_launch_configuration_is_one_error(text, tmp_path):
    file = tmp_path / "launch.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="accelerate_configs/"):
        planned_launch(file)


def test_files_that_do_not_exist_are_one_error(write_config, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read") as raised:
        planned_launch(tmp_path / "none.yaml")
    assert raised.value.key == "--config"
    file = write_config({"stage": 1})
    (tmp_path / "ds.json").unlink()
    with pytest.raises(ConfigError, match=r"ds.json cannot be read"):
        planned_launch(file)


def test_processes_that_do_not_fill_nodes_or_replicas_are_an_error():
    for processes, nodes in ((2, 4), (4, 3)):  # Accelerate would start 0 and 3
        with pytest.raises(ConfigError, match=f"spread evenly over {nodes} nodes"):
            planned_launch(CONFIGS / "ddp.yaml", processes=processes, nodes=nodes)
    with pytest.raises(ConfigError, match="2 replicas do not divide 7"):
        planned_launch(CONFIGS / "fsdp2-hybrid.yaml", processes=7, nodes=1)


def test_fsdp_keeps_layers_if_it_is_told_to_and_must_be_the_second_version(tmp_path):
    file = tmp_path / "launch.yaml"
    text = "distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {fsdp_version: %s%s}\n"
    file.write_text(text % (2, ", fsdp_reshard_after_forward: false"))
    assert planned_launch(file) == PlannedLaunch(engine="fsdp2", processes=2, resharding=False)
    file.write_text(text % (1, ""))
    with pytest.raises(ConfigError, match="set fsdp_version: 2"):
        planned_launch(file)


@pytest.mark.parametrize("key", ["fsdp_offload_params", "fsdp_activation_checkpointing"])
def test_what_a_run_refuses_under_fsdp_is_not_planned(key, tmp_path):
    file = tmp_path / "launch.yaml"
    text = "distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {fsdp_version: 2, %s: %s}\n"
    file.write_text(text % (key, "false"))
    assert planned_launch(file).engine == "fsdp2"
    file.write_text(text % (key, "true"))
    with pytest.raises(ConfigError, match=key):
        planned_launch(file)
