"""The text of a plan says what its sums are made of."""

import trainer
from trainer.wording import format_bytes


def test_the_line_on_the_disk_names_every_part_of_its_sum(reviews_recipe, write_recipe):
    reviews_recipe["checkpoint"] |= {"every_epoch": True, "keep_last": 2}
    plan = trainer.plan(write_recipe(reviews_recipe), gpu="t4")
    disk = plan.as_dict()["disk"]
    whole, weights, model = disk["checkpoint"], disk["checkpoint_weights"], disk["model"]
    assert disk["run_directory"] == 3 * whole + 3 * weights + model
    (line,) = [line for line in str(plan).splitlines() if line.startswith("Disk: ")]
    assert line.startswith(
        f"Disk: {format_bytes(disk['run_directory'])} in the run directory: 3 checkpoints of "
        f"{format_bytes(whole)}, 3 of {format_bytes(weights)} with weights alone, and the model of "
        f"{format_bytes(model)};"
    )
