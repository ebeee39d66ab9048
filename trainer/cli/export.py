"""`trainer export`: a checkpoint as a folder that other libraries read."""

from pathlib import Path

import click

from trainer.cli.options import DEBUG, RUN_DIR
from trainer.errors import DONE


@click.command("export")
@RUN_DIR
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--checkpoint", default="best", metavar="best|last|STEP", show_default=True)
@click.option("--merge", is_flag=True, help="Merge adapters into the base, as one whole model.")
@click.option("--dtype", metavar="bf16|fp16|fp32", help="Convert the weights.")
@click.option("--shard-size", default="2GB", show_default=True, help="Largest file of weights.")
@click.option("--gguf", is_flag=True, help="Add a GGUF file, which llama.cpp reads.")
@click.option("--onnx", is_flag=True, help="Add an ONNX file.")
@DEBUG
def command(
    run_dir: Path,
    dest: Path,
    checkpoint: str,
    merge: bool,
    dtype: str | None,
    shard_size: str,
    gguf: bool,
    onnx: bool,
) -> int:
    """Export a checkpoint of RUN_DIR to the new folder DEST.

    Adapters are exported alone, unless they are merged. A fresh process loads the result and
    compares its logits with those of the run.
    """
    from trainer.publishing.export import export_run
    from trainer.publishing.export_sentences import sentences

    folder = export_run(
        run_dir,
        dest,
        checkpoint=checkpoint,
        merge=merge,
        dtype=dtype,
        shard_size=shard_size,
        gguf=gguf,
        onnx=onnx,
    )
    for sentence in sentences(folder):
        print(sentence)
    return DONE
