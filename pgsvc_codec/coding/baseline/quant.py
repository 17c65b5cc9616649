"""Quantisers of the `baseline` profile: float32 parameters ↔ integer symbols (paper §3.6; spec §6.3, §6.4).

Positions become 16-bit floats in I-frames and 12-bit floats in P-frames, Cholesky factors go through a learned
uniform quantiser (Eq. 10), colours through a residual vector quantiser.  Dequantisation is NumPy float32 with one
rounding per operation in the order written here, which is the order of the spec: every machine gets the same bits.
Training, encoder and decoder all use `quantize_*` and `dequantize_*`, so what is trained for is what is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pgsvc_codec.splats import MIN_LENGTH, FloatArray, Splats

IntArray = NDArray[np.int32]

MAX_STAGES = 4
MAX_ENTRIES = 64
CODEBOOK_FRACTION_BITS = 9  # half a step of 8-bit pixels: a finer codebook costs bytes that no picture shows
# The smallest fp16 and 12-bit float above zero are 2 to the minus these; so many fraction bits keep floats whole.
FLOAT16_FRACTION_BITS = 24
FLOAT12_FRACTION_BITS = 20

_FLOAT16_MAX = np.float32(65504)
_FLOAT12_MAX = 127 * 2.0**9
_BEAM = 4  # partial sums that the residual search keeps from stage to stage
_BLOCK = 4096  # colours searched at a time, which bounds memory


def float16_codes(values: ArrayLike) -> NDArray[np.uint16]:
    """Bit patterns of the nearest fp16 (ties to even); magnitudes beyond 65504 become 65504."""
    codes: NDArray[np.uint16] = (
        np.clip(np.asarray(values, np.float32), -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16).view(np.uint16)
    )
    return codes


def float16_values(codes: ArrayLike) -> FloatArray:
    """The numbers that fp16 bit patterns stand for, exact in float32."""
    return np.asarray(codes, np.uint16).view(np.float16).astype(np.float32)


def float12_codes(values: ArrayLike) -> NDArray[np.uint16]:
    """Codes 0..4095 of the nearest 12-bit float: 1 sign, 5 exponent, 6 mantissa bits (ties to even, ±65024 at most).

    A code shifted left by four bits is the fp16 bit pattern of the same number.  What rounds to zero has code 0.
    """
    wide = np.clip(np.asarray(values, np.float64), -_FLOAT12_MAX, _FLOAT12_MAX)
    _, exponent = np.frexp(wide)  # |wide| in [2^(exponent - 1), 2^exponent)
    # Below 2^-14 the numbers are subnormal: the step stays at that of the smallest normal exponent.
    step = np.ldexp(1.0, np.maximum(exponent - 1, -14) - 6)
    rounded = np.rint(wide / step) * step + 0.0  # + 0.0 turns -0 into +0
    codes: NDArray[np.uint16] = rounded.astype(np.float16).view(np.uint16) >> 4
    return codes


def float12_values(codes: ArrayLike) -> FloatArray:
    """The numbers that 12-bit float codes stand for, exact in float32."""
    return float16_values(np.asarray(codes, np.uint16) << np.uint16(4))


def ordered(codes: NDArray[np.uint16]) -> IntArray:
    """fp16 bit patterns as integers in the order of the numbers; both zeros are 0.  Its own inverse is `patterns`."""
    wide = codes.astype(np.int32)
    keys: IntArray = np.where(wide < 0x8000, wide, 0x8000 - wide)
    return keys


def patterns(keys: IntArray) -> NDArray[np.uint16]:
    """fp16 bit patterns of ordered integers; zero is +0."""
    return np.where(keys < 0, 0x8000 - keys, keys).astype(np.uint16)


def position_keys(values: ArrayLike, fraction_bits: int) -> IntArray:
    """Positions [...] rounded to fp16 numbers that are multiples of 2^-fraction_bits, as ordered integers.

    A larger position has a larger key.  What lies outside [-1, 1) is clamped to it.
    """
    scale = np.float32(2.0 ** (fraction_bits - FLOAT16_FRACTION_BITS))  # makes the step fp16's smallest number
    end = int(ordered(float16_codes(scale)))
    keys = ordered(float16_codes(np.clip(np.asarray(values, np.float32), -1, 1) * scale))
    return np.asarray(np.clip(keys, -end, end - 1), np.int32)


def position_values(keys: IntArray, fraction_bits: int) -> FloatArray:
    """The positions of ordered integers, exact in float32 and fp16; inverse of `position_keys`."""
    values = float16_values(patterns(keys)) * np.float32(2.0 ** (FLOAT16_FRACTION_BITS - fraction_bits))
    return np.asarray(values, order="C")


def difference_codes(values: ArrayLike, fraction_bits: int) -> NDArray[np.uint16]:
    """Codes of differences of positions rounded to 12-bit floats that are multiples of 2^-fraction_bits."""
    return float12_codes(np.asarray(values, np.float32) * np.float32(2.0 ** (fraction_bits - FLOAT12_FRACTION_BITS)))


def difference_values(codes: ArrayLike, fraction_bits: int) -> FloatArray:
    """The differences that codes stand for, exact in float32; inverse of `difference_codes`."""
    values = float12_values(codes) * np.float32(2.0 ** (FLOAT12_FRACTION_BITS - fraction_bits))
    return np.asarray(values, order="C")


def position_fraction_bits(width: int, height: int) -> int:
    """Fraction bits that make the step of positions 1/8 to 1/4 of a pixel on the longer side, in pixels."""
    return min((2 * max(width, height) - 1).bit_length(), FLOAT12_FRACTION_BITS)


def cholesky_levels(layer: int, *, inter: bool) -> tuple[int, int]:
    """(L_min, L_max) of Eq. 10: I base unsigned 6 bit, I enhancement signed 6 bit, P signed 5 bit."""
    if inter:
        return -16, 15
    return (0, 63) if layer == 0 else (-32, 31)


@dataclass(frozen=True, eq=False)
class ScalarQuantizer:
    """Uniform quantiser of (l1, l2, l3), one scale and offset each (paper, Eq. 10).

    Raises:
        ValueError: shapes or dtypes do not fit, a number is not finite, a scale is not positive, or low > high.
    """

    scale: FloatArray  # [3] γ > 0, full-size pixels per step
    offset: FloatArray  # [3] β, full-size pixels
    low: int  # L_min
    high: int  # L_max, included

    def __post_init__(self) -> None:
        for name in ("scale", "offset"):
            array = getattr(self, name)
            if array.shape != (3,) or array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"ScalarQuantizer.{name}: got {array.dtype} {array}, allowed 3 finite float32")
        if not (self.scale > 0).all():
            raise ValueError(f"ScalarQuantizer.scale: got {self.scale}, allowed > 0")
        if self.low > self.high:
            raise ValueError(f"ScalarQuantizer: got levels {self.low}..{self.high}, allowed low <= high")
        if not np.isfinite(self.decode(np.array([[self.low], [self.high]]))).all():
            raise ValueError(f"ScalarQuantizer: levels {self.low}..{self.high} lead beyond float32")

    def encode(self, values: FloatArray) -> IntArray:
        """Levels [N, 3] in low..high of values [N, 3]: clamp(round((l - β) / γ)), ties to even."""
        with np.errstate(over="ignore"):
            levels = np.rint((values - self.offset) / self.scale)
        return np.asarray(np.clip(levels, self.low, self.high), np.int32)

    def decode(self, levels: IntArray) -> FloatArray:
        """Values [N, 3] float32 of levels [N, 3]: the product q γ is rounded, then the sum with β."""
        with np.errstate(over="ignore"):
            return np.asarray(levels.astype(np.float32) * self.scale + self.offset, order="C")


@dataclass(frozen=True, eq=False)
class Codebooks:
    """Residual vector quantiser of colours: a colour is the sum of one entry of each stage.

    Raises:
        ValueError: number or shape of the stages is out of range, or an entry is not exactly an fp16.
    """

    stages: tuple[FloatArray, ...]  # 1..MAX_STAGES arrays [B_m, C], 1 <= B_m <= MAX_ENTRIES, fp16-representable

    def __post_init__(self) -> None:
        if not 1 <= len(self.stages) <= MAX_STAGES:
            raise ValueError(f"Codebooks: got {len(self.stages)} stages, allowed 1..{MAX_STAGES}")
        for index, stage in enumerate(self.stages):
            if stage.ndim != 2 or stage.dtype != np.float32 or not 1 <= len(stage) <= MAX_ENTRIES:
                raise ValueError(
                    f"Codebooks stage {index}: got {stage.dtype} {stage.shape}, allowed float32 (1..{MAX_ENTRIES}, C)"
                )
            if stage.shape[1] != self.stages[0].shape[1] or stage.shape[1] not in (1, 3):
                raise ValueError(f"Codebooks stage {index}: got {stage.shape[1]} channels, allowed 1 or 3, all alike")
            if not np.array_equal(float16_values(float16_codes(stage)), stage):
                raise ValueError(f"Codebooks stage {index}: an entry is not an fp16, see Codebooks.on_grid")

    @classmethod
    def on_grid(cls, stages: Sequence[ArrayLike], fraction_bits: int = CODEBOOK_FRACTION_BITS) -> Codebooks:
        """Codebooks of any finite numbers, rounded to multiples of 2^-fraction_bits that are fp16.

        Fewer fraction bits make the codebooks smaller in the stream; 24 keeps every fp16.
        """
        grid = 2.0**fraction_bits
        rounded = (np.rint(np.asarray(stage, np.float64) * grid) / grid for stage in stages)
        return cls(tuple(float16_values(float16_codes(stage)) for stage in rounded))

    @property
    def channels(self) -> int:
        """C: 1 for gray, else 3."""
        return int(self.stages[0].shape[1])

    def encode(self, colors: FloatArray) -> IntArray:
        """Entry indices [N, M] whose sums lie near colors [N, C], by a residual search that keeps the best few sums."""
        blocks = [self._search(colors[start : start + _BLOCK]) for start in range(0, len(colors), _BLOCK)]
        return np.concatenate([np.zeros((0, len(self.stages)), np.int32), *blocks])

    def _search(self, colors: FloatArray) -> IntArray:
        count = len(colors)
        residuals = colors[:, None, :]  # [N, K, C], K partial sums per colour
        paths = np.zeros((count, 1, 0), np.int32)  # [N, K, stages so far]
        for position, stage in enumerate(self.stages):
            entries = len(stage)
            errors = np.zeros((count, residuals.shape[1], entries), np.float32)
            with np.errstate(over="ignore"):
                for channel in range(self.channels):
                    errors += (residuals[:, :, None, channel] - stage[:, channel]) ** 2
            flat = errors.reshape(count, residuals.shape[1] * entries)
            if position == len(self.stages) - 1:
                best = flat.argmin(axis=1)[:, None]
            else:
                best = np.argsort(flat, axis=1, kind="stable")[:, :_BEAM]
            parent, entry = best // entries, best % entries
            residuals = np.take_along_axis(residuals, parent[:, :, None], 1) - stage[entry]
            paths = np.concatenate([np.take_along_axis(paths, parent[:, :, None], 1), entry[:, :, None]], 2)
        return paths[:, 0].astype(np.int32)

    def decode(self, indices: IntArray) -> FloatArray:
        """Colours [N, C] float32 of indices [N, M]: entries added in stage order, each sum rounded."""
        first = self.stages[0] + np.float32(0)  # -0 and +0 are one entry in the stream
        colors: FloatArray = first.take(indices[:, 0], axis=0)
        for stage, column in zip(self.stages[1:], indices.T[1:], strict=True):
            colors += stage.take(column, axis=0)
        return colors


@dataclass(frozen=True, eq=False)
class QuantTables:
    """What dequantises the splats of one frame type in one layer.

    Positions (P: differences of positions) are fp16 (P: 12-bit float) numbers that are multiples of
    2^-position_fraction_bits.  24 (P: 20) keeps the whole float; `position_fraction_bits()` what a picture can show.

    Raises:
        ValueError: fraction bits out of range.
    """

    cholesky: ScalarQuantizer
    colors: Codebooks
    position_fraction_bits: int  # 1..24 (P: 1..20)

    def __post_init__(self) -> None:
        if not 1 <= self.position_fraction_bits <= FLOAT16_FRACTION_BITS:
            raise ValueError(
                f"position fraction bits: got {self.position_fraction_bits}, allowed 1..{FLOAT16_FRACTION_BITS}"
            )

    def matches(self, other: QuantTables) -> bool:
        """Whether both dequantise alike."""
        return (
            self.position_fraction_bits == other.position_fraction_bits
            and (self.cholesky.low, self.cholesky.high) == (other.cholesky.low, other.cholesky.high)
            and np.array_equal(self.cholesky.scale, other.cholesky.scale)
            and np.array_equal(self.cholesky.offset, other.cholesky.offset)
            and len(self.colors.stages) == len(other.colors.stages)
            and all(map(np.array_equal, self.colors.stages, other.colors.stages))
        )


@dataclass(frozen=True, eq=False)
class Symbols:
    """Integers of N splats, before entropy coding.

    A decoder hands over arrays whose columns are contiguous, as they were decoded; whatever the order in memory, splats
    made of them have contiguous rows, as renderers read them.
    """

    positions: IntArray  # [N, 2] ordered integers of fp16 (I) or 12-bit float codes of the differences (P)
    cholesky: IntArray  # [N, 3] levels of the scalar quantiser
    colors: IntArray  # [N, M] codebook indices

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows: NDArray[np.integer]) -> Symbols:
        """The symbols of the given splats, in that order."""
        return Symbols(self.positions[rows], self.cholesky[rows], self.colors[rows])


def quantize_intra(splats: Splats, tables: QuantTables) -> Symbols:
    """Symbols of splats coded whole; positions outside [-1, 1) are clamped to it."""
    return Symbols(
        position_keys(splats.means, tables.position_fraction_bits),
        tables.cholesky.encode(splats.cholesky),
        tables.colors.encode(splats.colors),
    )


def dequantize_intra(symbols: Symbols, tables: QuantTables) -> Splats:
    """Splats of symbols coded whole, as every decoder gets them."""
    return Splats(
        position_values(symbols.positions, tables.position_fraction_bits),
        raise_lengths(tables.cholesky.decode(symbols.cholesky)),
        tables.colors.decode(symbols.colors),
    )


def quantize_inter(targets: Splats, reference: Splats, tables: QuantTables) -> Symbols:
    """Symbols of the differences from decoded reference splats to their targets, row by row."""
    with np.errstate(over="ignore"):
        return Symbols(
            difference_codes(targets.means - reference.means, tables.position_fraction_bits).astype(np.int32),
            tables.cholesky.encode(targets.cholesky - reference.cholesky),
            tables.colors.encode(targets.colors - reference.colors),
        )


def dequantize_inter(symbols: Symbols, reference: Splats, tables: QuantTables) -> Splats:
    """Decoded reference splats plus decoded differences, one rounding per sum, as every decoder gets them."""
    with np.errstate(over="ignore", invalid="ignore"):
        return Splats(
            reference.means + difference_values(symbols.positions, tables.position_fraction_bits),
            raise_lengths(reference.cholesky + tables.cholesky.decode(symbols.cholesky)),
            reference.colors + tables.colors.decode(symbols.colors),
        )


def raise_lengths(cholesky: FloatArray) -> FloatArray:
    """Cholesky factors [N, 3] with |l1| and |l3| at least `MIN_LENGTH`; the sign stays, zero counts as positive."""
    raised = cholesky.copy()
    for column in (0, 2):
        lengths = raised[:, column]
        short = np.flatnonzero(np.abs(lengths) < MIN_LENGTH)
        lengths[short] = np.where(lengths[short] < 0, -MIN_LENGTH, MIN_LENGTH)
    return raised
