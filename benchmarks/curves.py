"""Rate against quality: curves through measured points, and what one codec needs against another at equal quality."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import bjontegaard
import numpy as np
from scipy.interpolate import PchipInterpolator

WINDOW = (0.1, 0.5)  # bits per pixel of a still that comparisons look at
_SAMPLES = 201  # of a curve that is cut to an interval


class Interval(NamedTuple):
    """Of qualities."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """Less than zero where there is nothing in it."""
        return self.high - self.low

    def shared(self, other: Interval) -> Interval:
        """What both hold."""
        return Interval(max(self.low, other.low), min(self.high, other.high))


class Curve:
    """Monotone piecewise cubics (pchip) of log rate over quality, through the points that no other point beats.

    Args:
        rates: of two points or more, > 0.
        qualities: of the same points, more is better.
    """

    def __init__(self, rates: Sequence[float], qualities: Sequence[float]) -> None:
        kept: list[tuple[float, float]] = []
        for rate, quality in sorted(zip(rates, qualities, strict=True), key=lambda point: (point[0], -point[1])):
            if not kept or quality > kept[-1][1]:
                kept.append((rate, quality))
        self.rates, self.qualities = (np.array(values, np.float64) for values in zip(*kept, strict=True))
        if len(kept) > 1:
            self._log_rate = PchipInterpolator(self.qualities, np.log(self.rates))

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]]) -> Self | None:
        """The curve through (rate, quality); None where fewer than two points would be on it."""
        listed = list(points)
        curve = cls(*zip(*listed, strict=True)) if listed else None
        return curve if curve is not None and len(curve.rates) > 1 else None

    @property
    def reach(self) -> Interval:
        """Of its qualities."""
        return Interval(float(self.qualities[0]), float(self.qualities[-1]))

    def rate_at(self, quality: float) -> float | None:
        """None beyond its ends."""
        if not self.reach.low <= quality <= self.reach.high:
            return None
        return math.exp(float(self._log_rate(quality)))

    def quality_at(self, rate: float) -> float | None:
        """None beyond its ends."""
        return self._quality_at(rate) if self.rates[0] <= rate <= self.rates[-1] else None

    def between(self, least: float, most: float) -> Interval:
        """Its qualities at two rates, or at its own ends where it does not come to them."""
        low, high = np.clip((least, most), self.rates[0], self.rates[-1])
        return Interval(self._quality_at(low), self._quality_at(high))

    def _quality_at(self, rate: float) -> float:
        low, high = self.reach
        for _ in range(60):  # the curve rises, so halving finds it
            middle = (low + high) / 2
            low, high = (middle, high) if self._log_rate(middle) < math.log(rate) else (low, middle)
        return (low + high) / 2

    def cut(self, interval: Interval) -> tuple[list[float], list[float]]:
        """Rates and qualities of points on the curve, so near each other that all who join them agree."""
        qualities = np.linspace(*interval, _SAMPLES)
        return np.exp(self._log_rate(qualities)).tolist(), qualities.tolist()


def bd_rate(anchor: Curve, test: Curve, interval: Interval) -> float:
    """Mean difference in rate at equal quality over an interval that both reach, per cent; less than 0: test saves."""
    rates, qualities = anchor.cut(interval)
    test_rates, test_qualities = test.cut(interval)
    return float(bjontegaard.bd_rate(rates, qualities, test_rates, test_qualities, method="pchip"))


def ratio_at(anchor: Curve, test: Curve, quality: float) -> float | None:
    """How many times the anchor's rate the test needs; None where either does not reach the quality."""
    needed, given = test.rate_at(quality), anchor.rate_at(quality)
    return None if needed is None or given is None else needed / given
