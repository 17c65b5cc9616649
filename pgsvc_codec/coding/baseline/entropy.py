"""Range coder with integer models, and the frequency tables that travel in the stream (spec §6.1, §6.2).

The only importer of constriction, on first use, since profile `main` does without.  Its silent habits end here: it
decodes wrong words without a word, warns on stdout unless `perfect` is given, and lets dtype and scaling of the
probabilities change the bytes.
All calls take whole arrays: one call per symbol would cost more than the coding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pgsvc_codec.errors import BackendError, CorruptError

if TYPE_CHECKING:
    import constriction

IntArray = NDArray[np.int32]

WORD_BYTES = 4
PRECISION = 24  # bits of every model: probabilities are multiples of 2^-24, none is zero

# Count of a symbol by its class: about half an octave per class.
LADDER = np.array(
    [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 2896], np.int64
)
# Counts of the class differences -23..23 to the class before: histograms are smooth, but for jumps to and from zero.
_DELTA_TAIL = [2000, 550, 150, 60, 30, 20, 14, 12, 10, 9, 8, 8, 7, 7, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6]
DELTA_COUNTS = np.array(_DELTA_TAIL[:0:-1] + _DELTA_TAIL, np.int64)


@lru_cache(maxsize=1)
def _stream() -> Any:
    """constriction's stream coders and models.

    Raises:
        BackendError: it is not installed.
    """
    try:
        import constriction
    except ImportError as error:
        raise BackendError(f"profile baseline: its range coder cannot be loaded: {error}") from error
    return constriction.stream


@lru_cache(maxsize=1)
def _uniform_family() -> constriction.stream.model.Uniform:
    return _stream().model.Uniform()


def _categorical(counts: NDArray[np.int64]) -> constriction.stream.model.Categorical:
    """The model of integer counts; float64 and unnormalised, because other forms give other bytes."""
    return _stream().model.Categorical(counts.astype(np.float64), perfect=False)


class RangeEncoder:
    """Collects symbols; `finish` returns the words, little-endian."""

    def __init__(self) -> None:
        self._coder = _stream().queue.RangeEncoder()

    def uniform(self, values: ArrayLike, sizes: ArrayLike) -> None:
        """Append equiprobable values, 0 <= values < sizes < 2^24 (arrays that broadcast); size 1 costs nothing.

        Raises:
            ValueError: a value is outside its range.
        """
        value, size = np.broadcast_arrays(np.asarray(values), np.asarray(sizes))
        if value.size and not (value.min() >= 0 and (value < size).all() and size.max() < 1 << PRECISION):
            raise ValueError("uniform symbols: a value is outside 0..size - 1")
        coded = size > 1
        if coded.any():
            self._coder.encode(
                np.ascontiguousarray(value[coded], np.int32),
                _uniform_family(),
                np.ascontiguousarray(size[coded], np.int32),
            )

    def table(self, symbols: IntArray, counts: NDArray[np.int64]) -> None:
        """Append symbols by a frequency table; an alphabet of one symbol costs nothing.

        Raises:
            ValueError: a symbol is not in the alphabet or has count 0.
        """
        if not len(symbols):
            return
        if symbols.min() < 0 or symbols.max() >= len(counts) or not counts[symbols].all():
            raise ValueError(f"symbols: one has no count in the table of {len(counts)}")
        if len(counts) > 1:
            self._coder.encode(np.ascontiguousarray(symbols, np.int32), _categorical(counts))

    def classes(self, classes: IntArray) -> None:
        """Append the classes of a frequency table, as differences to the class before."""
        differences = np.diff(classes, prepend=0) + len(LADDER) - 1
        self.table(differences.astype(np.int32), DELTA_COUNTS)

    def finish(self) -> bytes:
        """All symbols as bytes, a multiple of `WORD_BYTES`."""
        words: NDArray[np.uint32] = self._coder.get_compressed()
        return words.astype("<u4").tobytes()


class RangeDecoder:
    """Reads back, in the same order and with the same models, what `RangeEncoder` wrote.

    Wrong words usually decode into wrong symbols without an error: callers check a length and a CRC first, and take
    no count on trust.

    Raises:
        CorruptError: (from any method) the words belong to no sequence of symbols.
    """

    def __init__(self, payload: bytes) -> None:
        if len(payload) % WORD_BYTES:
            raise CorruptError(f"payload: got {len(payload)} bytes, allowed a multiple of {WORD_BYTES}")
        self._coder = _stream().queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))

    def _decode(self, *model: object) -> Any:
        """An int, or with parameters or a length an int32 array."""
        try:
            return self._coder.decode(*model)
        except AssertionError as error:
            raise CorruptError("payload: the words belong to no sequence of symbols") from error

    def uniform(self, sizes: ArrayLike) -> IntArray:
        """Equiprobable values of 0..size - 1 each, in the shape of sizes (0 < sizes < 2^24)."""
        size = np.asarray(sizes, np.int32)
        values = np.zeros(size.shape, np.int32)
        coded = np.flatnonzero(size > 1)
        if len(coded):
            values.put(coded, self._decode(_uniform_family(), size.take(coded)))
        return values

    def number(self, size: int) -> int:
        """One equiprobable number of 0..size - 1."""
        return int(self._decode(_stream().model.Uniform(size))) if size > 1 else 0

    def table(self, length: int, counts: NDArray[np.int64]) -> IntArray:
        """So many symbols by a frequency table, as int32; CorruptError where one has count 0."""
        if not length or len(counts) == 1:
            return np.zeros(length, np.int32)
        symbols: IntArray = self._decode(_categorical(counts), length)
        absent = counts == 0
        if absent.any() and absent.take(symbols).any():
            raise CorruptError("payload: a symbol has count 0 in its frequency table")
        return symbols

    def classes(self, size: int) -> IntArray:
        """Classes of a frequency table of so many symbols; CorruptError if one is out of range or all are 0."""
        classes = np.cumsum(self.table(size, DELTA_COUNTS) - (len(LADDER) - 1))
        if classes.min() < 0 or classes.max() >= len(LADDER) or not classes.any():
            raise CorruptError(
                f"frequency table: got classes {classes.min()}..{classes.max()}, allowed 0..23, not all 0"
            )
        return classes.astype(np.int32)


def choose_classes(histogram: NDArray[np.int64]) -> IntArray:
    """The classes with the least bits for table and symbols together; encoder only.

    Args:
        histogram: [A] how often each symbol occurs, not all zero.
    """
    paths = (_best_path(histogram, top) for top in (12, 18, len(LADDER) - 1))
    return min(paths, key=lambda path: class_bits(path) + symbol_bits(histogram, LADDER[path]))


def _best_path(histogram: NDArray[np.int64], top: int) -> IntArray:
    """Viterbi search over classes; the sum of counts is linearised where the most frequent symbol has class `top`."""
    delta_bits = np.log2(DELTA_COUNTS.sum() / DELTA_COUNTS)
    ladder = np.arange(len(LADDER))
    step_bits = delta_bits[ladder[None, :] - ladder[:, None] + len(LADDER) - 1]  # [from, to]
    slope = histogram.max() / (LADDER[top] * np.log(2))  # bits that one more count costs all symbols together
    log_counts = np.log2(np.maximum(LADDER, 1))
    best = np.where(ladder == 0, 0.0, np.inf)  # the class before the first is 0
    origins = []
    for occurrences in histogram:
        total = best[:, None] + step_bits
        origin = total.argmin(axis=0)
        best = total[origin, ladder] + slope * LADDER - occurrences * log_counts
        if occurrences:
            best[0] = np.inf
        origins.append(origin)
    path = [int(best.argmin())]
    for origin in origins[:0:-1]:
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1], np.int32)


def class_bits(classes: IntArray) -> float:
    """Bits of a frequency table in the stream."""
    differences = np.diff(classes, prepend=0) + len(LADDER) - 1
    return float(np.log2(DELTA_COUNTS.sum() / DELTA_COUNTS)[differences].sum())


def symbol_bits(histogram: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    """Bits of all symbols of a histogram by a frequency table; infinite where a symbol that occurs has count 0."""
    used = histogram > 0
    if not counts[used].all():
        return float("inf")
    return float((histogram[used] * np.log2(counts.sum() / counts[used])).sum())
