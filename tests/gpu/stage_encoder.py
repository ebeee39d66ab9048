"""Stage 5: BERT-base at SST-2's lengths, next to Trainer grouped by length and a bare loop."""

import statistics
from typing import Any

from causal_runs import build, free_memory, peak_bytes
from rivals import TransformersTrainer, recipe_values
from shapes import bert_base, write_sentences
from speed import BareLoop, Ours, padding_share
from stage import Stage

from trainer.loop import seed_step

PRECISION = "bf16"


def main() -> None:
    stage = Stage.from_arguments()
    steps, rounds = (2, 1) if stage.tiny else (100, 2)  # Trainer groups 50 steps by length
    data = stage.work / "sst2"
    write_sentences(data / "train.tsv", 200 if stage.tiny else 20_000)
    write_sentences(data / "dev.tsv", 50)
    values = recipe_values(data, data, PRECISION, seed=1)
    values["model"]["architecture"] = bert_base(tiny=stage.tiny)
    values["model"]["tokenizer"] = {"train": "wordpiece", "vocab_size": 600}
    values["data"]["split"]["test"] = None
    run, accelerator = build(values, stage.work / "encoder")
    makers: dict[str, Any] = {
        "ours": lambda: Ours(run, accelerator),
        "trainer_grouped": lambda: TransformersTrainer(
            run, PRECISION, stage.work, use_cpu=not stage.on_gpu
        ),
        "bare": lambda: BareLoop(run, accelerator, PRECISION),
    }
    loops: dict[str, Any] = {}
    for name, make in makers.items():
        with stage.guarded(name):  # a first round warms up and measures memory
            free_memory(stage.device)
            loops[name] = make()
            loops[name].seconds(steps)
            stage.figure(f"peak_bytes of {name} and what was there", peak_bytes(stage.device))
            stage.check(name, True)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds):
        for name, loop in list(loops.items())[:: 1 if number % 2 else -1]:
            seed_step(1, number, 0)
            seconds[name].append(loop.seconds(steps))
            stage.figure("seconds", seconds)
    ratios = {
        name: [theirs / ours for theirs, ours in zip(taken, seconds["ours"], strict=True)]
        for name, taken in seconds.items()
    }
    mean = float(run.splits["train"].lengths.mean())
    medians = {name: statistics.median(ratio) for name, ratio in ratios.items()}
    stage.figure("steps_a_round", steps)
    stage.figure("tokens_of_an_example", mean)
    stage.figure(
        "padding_share_of_ours", padding_share(run.order, run.splits["train"].lengths, steps)
    )
    stage.figure(
        "headline",
        {
            "examples_per_second_of_ours": 32 * steps / statistics.median(seconds["ours"]),
            "times_faster_than": medians,
        },
    )


if __name__ == "__main__":
    main()
