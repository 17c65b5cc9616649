"""Adan, the paper's optimiser, on splats that come and go."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_RATE = 1e-3  # paper, section 4.1


class Adan:
    """`pytorch_optimizer.Adan` whose memory follows its splats: row n of its state is that of splat n.

    Args:
        parameters: changed in place by `step`, which reads their `grad`.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        from pytorch_optimizer import Adan as LibraryAdan  # most of a second to import, and only the paper needs it

        self._optimizer = LibraryAdan(list(parameters), lr=_RATE)

    def step(self, scale: float) -> None:
        """One step, with the learning rate times `scale`."""
        for group in self._optimizer.param_groups:
            group["lr"] = scale * _RATE
        self._optimizer.step()

    def add(self, parameters: Sequence[torch.Tensor]) -> None:
        """Move these parameters too; they have no memory yet."""
        self._optimizer.add_param_group({"params": list(parameters)})

    def keep(self, old: Sequence[torch.Tensor], new: Sequence[torch.Tensor], rows: NDArray[np.integer]) -> None:
        """Go on with `new` parameters that hold the given rows of the `old` ones, maybe on another device."""
        replaced = dict(zip(map(id, old), new, strict=True))
        for group in self._optimizer.param_groups:
            group["params"] = [replaced.get(id(parameter), parameter) for parameter in group["params"]]
        for before, after in zip(old, new, strict=True):
            kept = torch.from_numpy(rows).to(before.device)
            if state := self._optimizer.state.pop(before, None):
                self._optimizer.state[after] = {name: memory[kept].to(after.device) for name, memory in state.items()}

    def memory(self) -> dict[str, Any]:
        """A copy of all that it remembers."""
        return deepcopy(self._optimizer.state_dict())

    def remember(self, memory: dict[str, Any]) -> None:
        """Go on as it was when `memory` was made."""
        self._optimizer.load_state_dict(memory)
