"""Stage 4: full bf16 fine-tuning of the Llama-3.2-1B shape on packed sequences."""

from causal_runs import build, free_memory, recipe_values
from causal_speed import check_losses, measure_ours
from stage import Stage


def main() -> None:
    stage = Stage.from_arguments()
    with stage.guarded("full fine-tuning in bf16"):
        free_memory(stage.device)
        run, accelerator = build(recipe_values(stage, "full"), stage.work / "full")
        found = measure_ours(stage, run, accelerator)
        stage.figure("ours", found)
        keys = ("tokens_per_second", "peak_bytes", "mfu")
        stage.figure("headline", {key: found[key] for key in keys})
        check_losses(stage, "full fine-tuning in bf16", found)


if __name__ == "__main__":
    main()
