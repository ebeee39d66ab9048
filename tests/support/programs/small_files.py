"""The command with checkpoint files of 20 kB, so that a small model has many."""

from trainer.checkpoints import shards
from trainer.cli import app

shards.SHARD_BYTES = 20_000
app.main()
