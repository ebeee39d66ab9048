"""The command under FSDP2 on CPU ranks, which Accelerate by itself supports on GPUs only."""

from accelerate import PartialState
from accelerate.utils import DistributedType

from trainer.__main__ import main

PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
main()
