"""Adan, the paper's optimiser, on splats that come and go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

RATE = 1e-3  # paper, section 4.1
BETAS = (0.98, 0.92, 0.99)  # decay of the means of gradients, of their differences and of the squares of both
EPSILON = 1e-8
_MEMORIES = ("exp_avg", "exp_avg_diff", "exp_avg_sq", "previous_grad")  # the library's names


class Adan:
    """`pytorch_optimizer.Adan` whose memory follows its splats: row n of its state is that of splat n.

    Args:
        parameters: changed in place by `step`, which reads their `grad`.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        from pytorch_optimizer import Adan as LibraryAdan  # most of a second to import, and only the paper needs it

        self._optimizer = LibraryAdan(list(parameters), lr=RATE, betas=BETAS, eps=EPSILON)

    def step(self, scale: float) -> None:
        """One step, with the learning rate times `scale`."""
        for group in self._optimizer.param_groups:
            group["lr"] = scale * RATE
        self._optimizer.step()

    def add(self, parameters: Sequence[torch.Tensor]) -> None:
        """Move these parameters too; they have no memory yet."""
        self._optimizer.add_param_group({"params": list(parameters)})

    def keep(self, old: Sequence[torch.Tensor], new: Sequence[torch.Tensor], rows: NDArray[np.integer]) -> None:
        """Go on with `new` parameters that hold the given rows of the `old` ones."""
        replaced = dict(zip(map(id, old), new, strict=True))
        for group in self._optimizer.param_groups:
            group["params"] = [replaced.get(id(parameter), parameter) for parameter in group["params"]]
        kept = torch.from_numpy(rows)
        for before, after in zip(old, new, strict=True):
            if state := self._optimizer.state.pop(before, None):
                self._optimizer.state[after] = {name: memory[kept] for name, memory in state.items()}

    @property
    def steps(self) -> list[int]:
        """So far, of the first parameters and of those of each `add`."""
        return [group.get("step", 0) for group in self._optimizer.param_groups]

    def memory(self, parameter: torch.Tensor) -> list[torch.Tensor]:
        """Means of its gradients, of their differences and of squares, and minus its last gradient, for who steps it.

        Zeros before the first step, in which the difference is none.
        """
        state = self._optimizer.state[parameter]
        if not state:
            state.update({name: torch.zeros_like(parameter) for name in _MEMORIES})
        return [state[name] for name in _MEMORIES]

    def skip(self, steps: int) -> None:
        """Go on as after so many steps, which somebody else has taken."""
        for group in self._optimizer.param_groups:
            group["step"] = group.get("step", 0) + steps
