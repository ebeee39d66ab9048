"""An optimizer that has the state of another, and computes nothing."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.optim import OPTIMIZERS, parameter_groups
from trainer.planning.trace.storages import Section, Storages
from trainer.recipe.training import Optimizer


class StateAlone(torch.optim.Optimizer):
    """Keeps from its first step on what the table of optimizers says.

    `layers` has the index of the layer of each parameter that is in one, by `id`. Kernels that
    update in place make nothing else; torch's SGD adds weight decay to copies of the gradients, on
    a GPU (`at_once`) to all of them at once; the single copy on a CPU is left out.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        settings: Optimizer,
        storages: Storages,
        layers: Mapping[int, int],
        *,
        at_once: bool,
    ) -> None:
        super().__init__(parameter_groups(parameters, settings.weight_decay), {})
        self._settings, self._storages, self._layers = settings, storages, layers
        self._at_once = at_once

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        kind = OPTIMIZERS[self._settings.name]
        for group in self.param_groups:
            copies: list[Tensor] = []
            copied = self._at_once and self._settings.name == "sgd" and group["weight_decay"]
            for parameter in group["params"]:
                index = self._layers.get(id(parameter))
                section = None if index is None else Section("optimizer", index)
                with self._storages.within(section):
                    if not self.state[parameter]:
                        entries = kind.state(tuple(parameter.shape), self._settings).items()
                        for name, (shape, dtype) in entries:
                            self.state[parameter][name] = torch.empty(shape, dtype=dtype)
                    if copied and parameter.grad is not None:
                        copies.append(parameter.grad.clone())
