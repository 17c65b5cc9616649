"""Where a new I-frame is worth it: one frame at a time, so that pipes stream and memory does not grow.

Two rules.  By motion, as in x264's lookahead: a frame that motion from its predecessor explains little better than its
own block means do shares nothing with it.  By fits, as in the paper's dynamic key-frame selection (DKS, from GSVC):
a frame is fitted with a small budget once from scratch and once from its predecessor's small fit; where starting from
the predecessor helps far less than it has helped so far, the frame is a key frame.  That costs two fits a frame.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np

from pgsvc_codec.config import EncodePlan
from pgsvc_codec.splats import Splats
from pgsvc_codec.train import paper
from pgsvc_codec.train.motion import Motion
from pgsvc_codec.train.objective import Objective

_NOISE = 1.0 / 255  # mean residual below which nothing has happened, however flat the picture

_PROBE_SPLATS = 5000  # of the small fits (GSVC)
_PROBE_ITERATIONS = 500
_MOST_HISTORY = 64  # frames that an outlier is judged against
_LEAST_SPREAD = 0.1  # of the jumps: where nothing ever changes, noise is no outlier
_MOST_SPREAD = 0.2
_OUTLIER = 3.0  # spreads beyond the median, at the default threshold
_DEFAULT_THRESHOLD = 40.0
_TINY = 1e-12  # below any loss that matters: a perfect fit has a logarithm

KeyframeRule = Callable[[Callable[[], Objective], Motion | None, int], bool]
"""Told of every frame in turn: how to get its objective, motion from the frame before, frames of the GOP so far."""


def keyframe_rule(plan: EncodePlan) -> KeyframeRule:
    """The rule that a plan asks for."""
    if plan.scenecut <= 0:
        return lambda make_objective, motion, gop_frames: False
    if plan.method == "paper":
        return DynamicKeyframes(plan)
    return lambda make_objective, motion, gop_frames: (
        motion is not None and is_cut(motion, gop_frames, plan.keyint, plan.min_keyint, plan.scenecut)
    )


def is_cut(motion: Motion, gop_frames: int, keyint: int, min_keyint: int, threshold: float) -> bool:
    """Whether the frame that `motion` leads to should open a new GOP.

    The longer the GOP already is, the weaker the evidence that suffices, since the next I-frame is due soon anyway.

    Args:
        motion: from the previous frame to this one.
        gop_frames: frames of the current GOP so far.
        keyint: most frames of a GOP.
        min_keyint: fewest frames between cuts.
        threshold: 0 (never) to 100 (eager), x264's scale.
    """
    if gop_frames < min_keyint or threshold <= 0:
        return False
    bias = threshold / 100 * (0.25 + 0.75 * min(1.0, gop_frames / max(keyint, 1)))
    return bool(motion.residual > _NOISE and motion.residual >= (1.0 - bias) * motion.texture)


def is_foreign(motion: Motion) -> bool:
    """Whether the frame that `motion` leads to has nothing to gain from its predecessor, as in a flash.

    Where no GOP may begin, such a frame is better a P-frame without survivors: at the cuts of a film that are not
    allowed to be cuts, 5 to 9 dB better for a tenth more bytes.
    """
    return bool(motion.residual > _NOISE and motion.residual >= motion.texture)


class DynamicKeyframes:
    """The paper's rule: outliers of the normalised difference of two small fits' losses.

    A frame's difference is log(loss from the predecessor / loss from scratch).  It falls while the chain of small
    fits goes on in one scene and jumps where the scene changes; a jump is an outlier where it exceeds the median of
    those before by several robust spreads (1.4826 median absolute deviations).  The fits are single layers of the
    full level.
    """

    def __init__(self, plan: EncodePlan) -> None:
        self._splats = min(_PROBE_SPLATS, plan.splats)
        self._iterations = min(_PROBE_ITERATIONS, plan.iterations_intra)
        self._min_keyint = plan.min_keyint
        self._seed = plan.seed
        self._tolerance = _OUTLIER * _DEFAULT_THRESHOLD / plan.scenecut
        self._frames = 0
        self._chain: Splats | None = None  # the small fit of the frame before
        self._difference: float | None = None  # of the frame before
        self._jumps: deque[float] = deque(maxlen=_MOST_HISTORY)

    def __call__(self, make_objective: Callable[[], Objective], motion: Motion | None, gop_frames: int) -> bool:
        """See `KeyframeRule`."""
        objective = make_objective()
        rng = np.random.default_rng([self._seed, self._frames])
        self._frames += 1
        scratch, scratch_loss = paper.probe(objective, self._splats, self._iterations, rng)
        if self._chain is None:
            self._chain = scratch
            return False
        self._chain, chain_loss = paper.probe(objective, self._splats, self._iterations, rng, start=self._chain)
        before, self._difference = self._difference, math.log(max(chain_loss, _TINY) / max(scratch_loss, _TINY))
        jump = self._difference - (before or 0.0)
        if jump > self._limit():
            return gop_frames >= self._min_keyint
        self._jumps.append(jump)
        return False

    def _limit(self) -> float:
        """The largest jump that is not an outlier."""
        if not self._jumps:
            return 0.0
        median = float(np.median(self._jumps))
        spread = 1.4826 * float(np.median(np.abs(np.array(self._jumps) - median)))
        # while the chain is young its fits improve by leaps, which is no excuse for a jump the other way
        return max(median, 0.0) + self._tolerance * min(max(spread, _LEAST_SPREAD), _MOST_SPREAD)
