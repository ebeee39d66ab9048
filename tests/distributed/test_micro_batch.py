"""Ranks agree on the micro-batch that fits into the GPU with least memory left."""

import json

import pytest
from support.paths import PROGRAMS

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize(
    ("config", "memories", "size"),
    [("cpu-2", (10**10, 2**20), 1), ("cpu-2-zero2", (2 * 10**10, 10**10), 32)],
)
def test_the_rank_with_least_memory_decides(
    config, memories, size, launch, reviews_recipe, tmp_path
):
    reviews_recipe["batch"] = {"global_batch_size": 64, "max_seq_length": 32}
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(reviews_recipe))
    program = [str(PROGRAMS / "agreed_micro_batch.py")]
    arguments = [str(file), *map(str, memories)]
    output, _ = launch(*arguments, config=config, program=program).communicate(timeout=300)
    ranks = [json.loads(each.read_text()) for each in sorted(tmp_path.glob("*.rank-*.json"))]
    assert len(ranks) == 2, output
    assert ranks[0] == ranks[1]
    assert ranks[0]["size"] == ranks[0]["of_run"] == size
    assert ranks[0].get("of_engine", size) == size
    assert f"into t4 with {'10 GB' if size > 1 else '1.05 MB'} left" in ranks[0]["reason"]
