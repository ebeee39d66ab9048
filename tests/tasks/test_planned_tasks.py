"""Tasks of other packages in plans."""

from support.command_line import invoke
from support.toy_task import LENGTH


def test_a_task_that_says_nothing_of_its_batches_is_not_planned(outside_package, write_recipe):
    ended = invoke("plan", write_recipe(LENGTH.recipe()), "--gpu", "t4")
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert "unread" in ended.stderr
    assert "Traceback" not in ended.stderr
