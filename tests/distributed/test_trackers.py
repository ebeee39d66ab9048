"""Of several ranks, the main process alone feeds the trackers."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.distributed


def test_two_ranks_have_one_tracker(reviews_recipe, write_recipe, train_on_two_ranks, tmp_path):
    reviews_recipe["data"]["source"]["num_rows"] = 80
    reviews_recipe["tracking"] = {"trackers": ["tensorboard"], "log_every_steps": 1}
    done = train_on_two_ranks(write_recipe(reviews_recipe), tmp_path / "run")
    assert done.code == 0, done.output
    assert len(list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "run"))
    events.Reload()
    shown = [(point.step, point.value) for point in events.Scalars("train/loss")]
    assert shown == [(line["step"], pytest.approx(line["loss"])) for line in done.lines()]
    assert "images" in events.Tags()
    assert len(events.Tags()["images"]) > 0
