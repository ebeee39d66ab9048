"""The plan of a recipe, held against what a machine has."""

from pathlib import Path

from support.findings import by_code, levels

from trainer.doctor.planned import about_plan, of_disk, of_gpu, of_memory
from trainer.tasks.recipe import parse_recipe


def test_a_recipe_is_planned_in_one_line(reviews_recipe):
    (finding,) = about_plan(parse_recipe(reviews_recipe, "the recipe"))
    assert (finding.code, finding.level) == ("plan", "fine")
    assert "micro-batches of 8 x" in finding.message
    assert "\n" not in finding.message


def test_a_recipe_that_cannot_be_planned_is_a_warning(reviews_recipe):
    values = {**reviews_recipe, "model": {"name_or_path": "some/unknown"}}
    (finding,) = about_plan(parse_recipe(values, "the recipe"))
    assert (finding.code, finding.level) == ("not-planned", "warning")
    assert "some/unknown" in finding.message
    assert "trainer prepare" in finding.advice


def test_a_gpu_that_is_too_small_is_a_failure_with_settings():
    assert of_gpu("it fits", fits=True, settings=["a=1"]).level == "fine"
    finding = of_gpu("it does not", fits=False, settings=["batch.micro_batch_size=4", "b=1"])
    assert (finding.code, finding.level) == ("does-not-fit", "failure")
    assert finding.advice == "set batch.micro_batch_size=4 or b=1"
    assert of_gpu("it does not", fits=False, settings=[]).advice.startswith("use a larger GPU")


def test_too_little_memory_and_disk():
    assert not list(of_memory(10, None))
    assert not list(of_memory(10, 11))
    assert levels(of_memory(12, 11)) == {"little-memory": "warning"}
    assert not list(of_disk(1, Path("/tmp/runs")))
    findings = by_code(of_disk(10**18, Path("/tmp/runs")))
    assert findings["little-space-for-the-run"].level == "failure"
    assert "1,000,000 TB" in findings["little-space-for-the-run"].message
