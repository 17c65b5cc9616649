"""What can be turned in a fit in natural coordinates; the defaults won by measurement (benchmarks/ablation.py)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long and how thin splats may become."""

    shortest: float  # pixels
    longest: float  # distances between splats of the layer
    thinnest: float  # pixels, across a row; less than `shortest`


FREE = Limits(shortest=0.15, longest=8.0, thinnest=0.1)
# The baseline's quantiser has 64 even steps for lengths.  Left alone, a long fit grows splats of under a sample and
# of over a hundred, and quantising those costs 2 dB; within these limits longer fits stay better after quantisation.
CODED = Limits(shortest=0.5, longest=1.0, thinnest=0.35)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Choices of the fit of an I-frame."""

    detail_share: float = 0.9  # of the splats start in proportion to the picture's gradient, the others evenly
    start_size: float = 0.3  # standard deviation in units of the local distance between splats of a layer
    awake: float | None = None  # of each layer's splats start with a colour; None: the longer the fit, the fewer
    offset_rate: float = 0.6  # standard deviations of the splat per step
    shape_rate: float = 0.18  # of log lengths and shear
    amplitude_rate: float = 0.07  # times sqrt(pixels per splat): amplitudes grow with the area a splat has to itself
    betas: tuple[float, float] | None = None  # of Adam; None: the shorter the fit, the shorter its memory
    warmup: int = 3  # iterations
    relocations: int = 100  # of 500 iterations: a layer's cheapest splats go where they are worth most
    relocated: float = 0.2  # most splats of a layer that go at a time
    relocated_until: float = 0.7  # of the iterations; the rest lets the last ones find their place


DEFAULTS = Tuning()
