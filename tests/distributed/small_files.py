"""The trainer with files of 20 kB in its checkpoints, so that a small model has many."""

from trainer import cli, shards

shards.SHARD_BYTES = 20_000
cli.main()
