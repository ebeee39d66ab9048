"""The trainer with files of 20 kB in its checkpoints, so that a small model has many."""

from trainer.checkpoints import shards
from trainer.cli import app

shards.SHARD_BYTES = 20_000
app.main()
