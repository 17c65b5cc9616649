"""The paper's fit: Algorithm 1 with Adan in plain parameters, pruning by learned weight, random augmentation, LSQ+.

The paper starts from "random splats" and says no more of them.  Here their sizes go with the distance between the
splats of their layer, so that a layer covers the picture from the start.  GSVC's 0.5 to 1.5 pixels come to the same
at its density; at 5000 splats for 768x512 they cost ten thousand iterations, since a length moves by 0.001 at most.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adan import Adan
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.grid import LayerGrid, snap, split
from pgsvc_codec.train.lsq import QuantizedModel, coded_parts
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.place import device_of
from pgsvc_codec.train.plain import PlainModel
from pgsvc_codec.train.schedule import full_level, half_cosine, halving
from pgsvc_codec.train.stack import FloatFit, FrameFit, Reference, Stack, as_inter

_SURPLUS = (0.2, 0.4)  # N_aug = N_prune as a share of the base layer, of an enhancement layer
_PRUNING_INTRA = 4000  # iterations, K_GSP of an I-frame
_PRUNING_INTER = 1000  # of a P-frame
_PRUNING_INTERVAL = 100  # iterations, Z_GSP
_MOST_PRUNING = 0.5  # of all iterations: where there are fewer than K_GSP, those left must find their places again
_HALVING = 20_000  # iterations after which the learning rate is halved
_CONVERGED = 1e-7  # change of the loss, averaged over a cycle of levels, that counts as none
_PATIENCE = 100  # iterations in a row
_LOOK = 200  # iterations of a device from one look at their losses to the next, which it has to be waited for
_TUNING = 0.2  # of the iterations at most are under quantisation

_TUNING_RATE = 0.3  # learning rate under quantisation, falling to zero, in units of what it was before

_START_LENGTHS = (0.1, 0.6)  # distances between splats of the layer
_START_SHEAR = 0.3  # as far as this either way
_SHORTEST_START = 0.5  # pixels
_START_COLORS = (0.0, 1.0)  # where there is nothing yet
_ADDED_COLORS = (-0.1, 0.1)  # on top of other splats


def background(objective: Objective) -> NDArray[np.float32]:
    """[C] zeros: the paper sums splats over black."""
    return np.zeros(objective.channels, np.float32)


def intra_float(stack: Stack, background: NDArray[np.float32]) -> FloatFit:
    """As `stack.Method.intra_float`."""
    model = _Fit.intra(stack, background, stack.iterations).model
    return FloatFit(background, split(model.splats(), model.ends))


def intra(stack: Stack, background: NDArray[np.float32]) -> FrameFit:
    """As `stack.Method.intra`."""
    fit = _Fit.intra(stack, background, _free_iterations(stack))
    grids = [LayerGrid(layer, stack.size, Splats.empty(stack.objective.channels)) for layer in stack.layers]
    layers = fit.tune(grids)
    return FrameFit.intra(background, layers, [grid.whole for grid in grids if grid.whole])


def inter(stack: Stack, background: NDArray[np.float32], reference: Reference) -> FrameFit:
    """As `stack.Method.inter`."""
    starts = [
        Splats.concatenate([layer, _random_splats(stack, index, count, _ADDED_COLORS)])
        for index, (layer, count) in enumerate(zip(reference.layers, _surplus(stack), strict=True))
    ]
    fit = _Fit(stack, background, starts)
    fit.run(_free_iterations(stack), _PRUNING_INTER)
    survivors, first = [], 0
    for start, layer in zip(starts, reference.layers, strict=True):
        left = np.isin(np.arange(first, first + len(start)), fit.origins)
        survivors.append(left[: len(layer)])  # rows keep their order: survivors first, injected splats behind
        first += len(start)
    grids = reference.grids(stack, survivors)
    return as_inter(background, fit.tune(grids), survivors, grids)


def probe(
    objective: Objective, num_splats: int, iterations: int, rng: np.random.Generator, start: Splats | None = None
) -> tuple[Splats, float]:
    """A small fit of one layer to the full level, nothing pruned, and its loss (Eq. 7).

    Args:
        start: where to begin; None = at random.
    """
    weights = full_level(1, 0)
    stack = Stack(objective, 0, [num_splats], weights, iterations, rng).as_one_layer()
    layer = _random_splats(stack, 0, num_splats, _START_COLORS) if start is None else start
    black = background(objective)
    fit = _Fit(stack, black, [layer])
    fit.descend(iterations)
    splats = fit.model.splats()
    shown = stack.objective.step(splats, black, [len(splats)], weights(0), with_moments=False)
    return splats, stack.objective.loss(shown.squared_error, weights(0))


def _free_iterations(stack: Stack) -> int:
    """Most iterations before the quantisers come in."""
    return math.ceil((1 - _TUNING) * stack.iterations)


def _surplus(stack: Stack) -> list[int]:
    """Splats beyond its number that each layer starts with: N_aug = N_prune."""
    shares = [_SURPLUS[0 if layer == 0 else 1] for layer in stack.layers]
    return [round(share * size) for share, size in zip(shares, stack.sizes, strict=True)]


def _random_splats(stack: Stack, index: int, count: int, colors: tuple[float, float]) -> Splats:
    """Splats anywhere in the frame for layer `index` of the stack, of the shapes and colours that a start may have."""
    objective, rng = stack.objective, stack.rng
    spacing = math.sqrt(objective.width * objective.height / max(stack.sizes[index], 1))
    lengths = np.maximum(rng.uniform(*_START_LENGTHS, (count, 2)) * spacing, _SHORTEST_START)
    shears = rng.uniform(-_START_SHEAR, _START_SHEAR, count) * spacing
    return Splats(
        rng.uniform(-1.0, 1.0, (count, 2)).astype(np.float32),
        np.stack([lengths[:, 0], shears, lengths[:, 1]], axis=1).astype(np.float32),
        rng.uniform(*colors, (count, objective.channels)).astype(np.float32),
    )


class _Fit:
    """One stack while it is fitted.

    Args:
        layers: splats to start with, the surplus included.
    """

    def __init__(self, stack: Stack, background: NDArray[np.float32], layers: Sequence[Splats]) -> None:
        self.stack = stack
        self.background = background
        ends = [int(end) for end in np.cumsum([len(layer) for layer in layers])]
        self.model = PlainModel(Splats.concatenate(layers), ends, *stack.size)
        self.origins = np.arange(len(self.model))  # rows that the model started with
        self._optimizer = Adan(self.model.parameters())
        self._spent = 0  # iterations

    @classmethod
    def intra(cls, stack: Stack, background: NDArray[np.float32], iterations: int) -> _Fit:
        """An I-frame after its float part."""
        if stack.start is not None:
            fit = cls(stack, background, stack.start)
            fit._spent = iterations
            return fit
        if stack.ranked:
            return cls._ranked(stack, background, iterations)
        layers = [
            _random_splats(stack, index, size + extra, _ADDED_COLORS if layer else _START_COLORS)
            for index, (layer, size, extra) in enumerate(zip(stack.layers, stack.sizes, _surplus(stack), strict=True))
        ]
        fit = cls(stack, background, layers)
        fit.run(iterations, _PRUNING_INTRA)
        return fit

    @classmethod
    def _ranked(cls, stack: Stack, background: NDArray[np.float32], iterations: int) -> _Fit:
        """One fit of all splats to the full level; those of most weight become the base, and so on."""
        single = cls.intra(stack.as_one_layer(), background, iterations)
        ranks = np.argsort(-single.model.weights[:, 0].abs().numpy(), kind="stable")
        fit = cls(stack, background, split(single.model.splats()[ranks], stack.ends))
        fit._spent = single._spent
        return fit

    def run(self, iterations: int, pruning_iterations: int) -> None:
        """Descend until the loss stands still, pruning layers to their number on the way (Algorithm 1, 12 to 17)."""
        last = min(pruning_iterations, math.ceil(_MOST_PRUNING * iterations))
        interval = max(1, round(_PRUNING_INTERVAL * last / pruning_iterations))
        descent = self._descent(self.model, halving(_HALVING))
        cycle = max(len(self.stack.sizes) - 1, 1)
        losses: deque[float] = deque(maxlen=cycle + 1)
        still = 0
        look = 1 if device_of(self.stack.objective.rasterizer) is None else _LOOK
        while descent.done < iterations and still < _PATIENCE:
            first = descent.done
            pruned = min(first // interval * interval + interval, last) if first < last else iterations
            for done, loss in enumerate(descent.each(min(look, pruned - first, iterations - first)), start=first + 1):
                losses.append(loss)
                # means over a cycle that slides by one differ by its ends
                change = abs(losses[-1] - losses[0]) / cycle if len(losses) > cycle else math.inf
                still = still + 1 if change < _CONVERGED and done > last else 0
                if still == _PATIENCE:
                    break  # a device may have gone on
            if done <= last and (done % interval == 0 or done == last):
                self._prune(done / last)
        self._spent = descent.done

    def descend(self, iterations: int) -> None:
        """So many iterations and nothing else."""
        self._descent(self.model, halving(_HALVING)).run(iterations)
        self._spent += iterations

    def tune(self, grids: Sequence[LayerGrid]) -> list[Splats]:
        """Bring the splats onto `grids`, which learn with them, in the iterations kept for it; [layers] decoded."""
        model = self.model
        model.fold_weights()
        parts = []
        for grid, layer, start in zip(grids, split(model.splats(), model.ends), [0, *model.ends[:-1]], strict=True):
            parts += coded_parts(grid, layer, start)
        shown = QuantizedModel(model, parts)
        self._optimizer.add(shown.learned)
        iterations = self.stack.iterations - _free_iterations(self.stack)
        peak = _TUNING_RATE * halving(_HALVING)(self._spent)
        fall = half_cosine(iterations, 0)
        before = self._spent
        # at a constant rate splats change their entries for ever, and the codebooks after them
        self._descent(shown, lambda iteration: peak * fall(iteration - before)).run(iterations)
        for part in parts:
            part.store()
        return split(snap(model.splats(), grids, model.ends), model.ends)

    def _descent(self, model: PlainModel | QuantizedModel, step_scale: Callable[[int], float]) -> Descent:
        return self.stack.descent(model, self._optimizer, self.background, step_scale, done=self._spent)

    def _prune(self, share: float) -> None:
        """Drop the splats of least weight |w|, layer by layer, until `share` of the surplus is gone."""
        starts = [0, *self.model.ends[:-1]]
        kept = []
        for start, end, size, extra in zip(
            starts, self.model.ends, self.stack.sizes, _surplus(self.stack), strict=True
        ):
            weights = self.model.weights[start:end, 0].abs().cpu().numpy()
            left = size + extra - round(share * extra)
            strongest = np.argsort(-weights, kind="stable")[:left]
            kept.append(start + np.sort(strongest))
        rows = np.concatenate(kept)
        old = self.model.parameters()
        self.model.keep(rows)
        self._optimizer.keep(old, self.model.parameters(), rows)
        self.origins = self.origins[rows]
