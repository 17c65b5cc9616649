"""What can be turned in a fit in natural coordinates; the defaults won by measurement (benchmarks/ablation.py)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long, how thin and how strong splats may become."""

    shortest: float  # pixels
    longest: float  # distances between splats of the layer
    thinnest: float  # pixels, across a row; less than `shortest`
    ridge: float  # pull of amplitudes towards nothing: adds ridge / 2 times their squares to the loss


FREE = Limits(shortest=0.15, longest=8.0, thinnest=0.1, ridge=0.0)
# The baseline's quantiser has 64 even steps for lengths.  Left alone, a long fit grows splats of under a sample and
# of over a hundred, and quantising those costs 2 dB; within these limits longer fits stay better after quantisation.
# Errors of rounded colours act like a ridge: strong splats that cancel each other are worth nothing once rounded.  With
# it, 4000 iterations are 0.5 dB better after quantisation, and not worse than 1000.
CODED = Limits(shortest=0.5, longest=1.0, thinnest=0.35, ridge=0.01)


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
