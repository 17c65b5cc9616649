"""What a training method is given and what it gives back: layers that are fitted together.

A strategy (`fit`) cuts a frame into stacks; a method (`natural`, `paper`) fits one stack.  Layers that lie below a
stack are part of its objective, so neither has to know the other's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.baseline.quant import QuantTables
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.descent import Between, Descent, Model, Observer, Optimizer
from pgsvc_codec.train.grid import LayerGrid
from pgsvc_codec.train.motion import Motion
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.schedule import LevelWeights, full_level
from pgsvc_codec.train.tuning import DEFAULTS, Tuning


class Stack(NamedTuple):
    """Layers that are fitted together."""

    objective: Objective  # one level per layer of the stack
    first: int  # index of the lowest layer in the stream
    sizes: Sequence[int]  # splats of each layer
    level_weights: LevelWeights
    iterations: int
    rng: np.random.Generator
    ranked: bool = False  # layers are cut by contribution from one fit of all splats
    observe: Observer | None = None
    tuning: Tuning = DEFAULTS
    start: Sequence[Splats] | None = None  # the layers of an I-frame, fitted already; only the quantisers are wanted

    @property
    def size(self) -> tuple[int, int]:
        """Full width and height of the frame."""
        return self.objective.width, self.objective.height

    @property
    def ends(self) -> list[int]:
        """Cumulative layer sizes."""
        return [int(end) for end in np.cumsum(self.sizes)]

    @property
    def layers(self) -> range:
        """Indices of the layers in the stream."""
        return range(self.first, self.first + len(self.sizes))

    def descent(
        self,
        model: Model,
        optimizer: Optimizer,
        background: NDArray[np.float32],
        step_scale: Callable[[int], float],
        *,
        done: int = 0,
        between: Between | None = None,
    ) -> Descent:
        """Iterations of a model towards the objective; arguments as those of `Descent`."""
        return Descent(
            model,
            optimizer,
            self.objective,
            background,
            self.level_weights,
            step_scale,
            self.observe,
            done=done,
            between=between,
        )

    def as_one_layer(self) -> Stack:
        """All splats as one layer that shows the full level."""
        objective = self.objective
        nothing = np.zeros(objective.channels, np.float32)
        top = objective.alone(objective.num_levels - 1, Splats.empty(objective.channels), nothing)
        weights = full_level(1, 0)
        return self._replace(objective=top, sizes=[sum(self.sizes)], level_weights=weights, ranked=False)


class Reference(NamedTuple):
    """What the decoder has when a P-frame comes, for the layers of one stack."""

    layers: Sequence[Splats]  # of the frame before
    motion: Motion  # from the previous source frame to this one
    tables_intra: Sequence[QuantTables]  # quantisers of whole splats that this GOP has, for injected ones
    tables_inter: Sequence[QuantTables]  # of differences; none before the GOP's first P-frame

    def of(self, layers: range) -> Reference:
        """That of some of the layers."""
        chosen = slice(layers.start, layers.stop)
        return Reference(self.layers[chosen], self.motion, self.tables_intra[chosen], self.tables_inter[chosen])

    def grids(self, stack: Stack, survivors: Sequence[NDArray[np.bool_]]) -> list[LayerGrid]:
        """What the layers of a P-frame can be: the tables that there are, survivors' references."""
        tables_inter: list[QuantTables | None] = [*self.tables_inter] or [None] * len(self.layers)
        return [
            LayerGrid(layer, stack.size, splats[mask], whole, differences)
            for layer, splats, mask, whole, differences in zip(
                stack.layers, self.layers, survivors, self.tables_intra, tables_inter, strict=True
            )
        ]


class FrameFit(NamedTuple):
    """What the coder needs of a fitted frame, one entry per layer in each list."""

    background: NDArray[np.float32]  # [C]
    targets: list[Splats]  # of the survivors, in the order of the reference; none in an I-frame
    survivors: list[NDArray[np.bool_]]  # for each splat of the reference
    whole: list[Splats]  # splats of an I-frame, or injected into a P-frame
    tables_inter: list[QuantTables]  # none in an I-frame
    tables_intra: list[QuantTables]

    @property
    def layers(self) -> list[Splats]:
        """The splats of the frame as a decoder will have them."""
        return [Splats.concatenate(parts) for parts in zip(self.targets, self.whole, strict=True)]

    @classmethod
    def intra(
        cls, background: NDArray[np.float32], layers: Sequence[Splats], tables: Sequence[QuantTables]
    ) -> FrameFit:
        """An I-frame."""
        nothing = [Splats.empty(len(background))] * len(layers)
        return cls(background, nothing, [np.zeros(0, np.bool_)] * len(layers), list(layers), [], list(tables))


def as_inter(
    background: NDArray[np.float32],
    layers: Sequence[Splats],
    survivors: Sequence[NDArray[np.bool_]],
    grids: Sequence[LayerGrid],
) -> FrameFit:
    """A P-frame of layers that hold survivors first, as many as their grid has references, and new splats behind."""
    kept = [len(grid.reference) for grid in grids]
    return FrameFit(
        background=background,
        targets=[layer[:count] for layer, count in zip(layers, kept, strict=True)],
        survivors=list(survivors),
        whole=[layer[count:] for layer, count in zip(layers, kept, strict=True)],
        tables_inter=[grid.differences for grid in grids if grid.differences],
        tables_intra=[grid.whole for grid in grids if grid.whole],
    )


class FloatFit(NamedTuple):
    """A fit that nobody has quantised."""

    background: NDArray[np.float32]  # [C]
    layers: list[Splats]


class Method(Protocol):
    """A way to fit a stack."""

    def background(self, objective: Objective) -> NDArray[np.float32]:
        """[C] value under the splats of an I-frame."""
        ...

    def intra_float(self, stack: Stack, background: NDArray[np.float32]) -> FloatFit:
        """Fit an I-frame and leave it as it is."""
        ...

    def intra(self, stack: Stack, background: NDArray[np.float32]) -> FrameFit:
        """Fit an I-frame, quantised."""
        ...

    def inter(self, stack: Stack, background: NDArray[np.float32], reference: Reference) -> FrameFit:
        """Fit a P-frame from the decoded frame before, quantised."""
        ...
