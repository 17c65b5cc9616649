"""A second decoder of payloads, written from bitstream_spec.md §6 alone: slow, symbol by symbol, NumPy only.

It imports nothing of the package, so that the package and the text are held to each other.
"""

import struct
from bisect import bisect_right

import numpy as np

MASK = 2**64 - 1
LADDER = [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 2896]
DELTA = [2000, 550, 150, 60, 30, 20, 14, 12, 10, 9, 8, 8, 7, 7, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6]
F32 = np.float32


class SpecError(Exception):
    """The payload is not what the spec allows."""


def require(condition):
    """Raise unless the spec's condition holds."""
    if not condition:
        raise SpecError


class Reader:
    """§6.1."""

    def __init__(self, payload):
        require(len(payload) % 4 == 0)
        self.words = list(struct.unpack(f"<{len(payload) // 4}I", payload))[::-1]
        self.low, self.size = 0, MASK
        self.point = self.word() << 32
        self.point |= self.word()

    def word(self):
        return self.words.pop() if self.words else 0

    def quantile(self):
        quantile = ((self.point - self.low) & MASK) // (self.size >> 24)
        require(quantile < 2**24)
        return quantile

    def narrow(self, left, right):
        step = self.size >> 24
        self.low = (self.low + step * left) & MASK
        self.size = step * (right - left)
        if self.size < 2**32:
            self.low = (self.low << 32) & MASK
            self.size <<= 32
            self.point = ((self.point << 32) & MASK) | self.word()

    def u(self, size):
        if size == 1:
            return 0
        width = 2**24 // size
        symbol = min(self.quantile() // width, size - 1)
        self.narrow(symbol * width, 2**24 if symbol == size - 1 else (symbol + 1) * width)
        return symbol

    def table(self, counts, length):
        scale = float(2**24 - len(counts)) / float(sum(counts))
        edges, before = [], 0
        for i, count in enumerate(counts):
            edges.append(int(before * scale) + i)
            before += count
        edges.append(2**24)
        symbols = []
        for _ in range(length):
            symbol = bisect_right(edges, self.quantile()) - 1
            self.narrow(edges[symbol], edges[symbol + 1])
            require(counts[symbol])
            symbols.append(symbol)
        return symbols

    def frequency_table(self, size):
        counts, last = [], 0
        delta = [DELTA[abs(difference)] for difference in range(-23, 24)]
        for symbol in self.table(delta, size):
            last += symbol - 23
            counts.append(last)
        require(all(0 <= c <= 23 for c in counts) and any(counts))
        return [LADDER[c] for c in counts]


def join(size, rest, mantissa):
    """§6.3, magnitude of a size and a rest."""
    if size == 0:
        return 0
    return 2 ** (size - 1) + rest if size <= mantissa else (size - mantissa) * 2**mantissa + rest


def rests(size, mantissa):
    """§6.3, number of rests."""
    return 2 ** min(max(size - 1, 0), mantissa)


def fp16(magnitude, sign=0):
    """The number of a bit pattern, as a Python float."""
    return struct.unpack("<e", struct.pack("<H", magnitude | sign << 15))[0] if magnitude else 0.0


def border(numerator, log2, fraction_bits):
    """Key of the border -1 + numerator · 2^(1 - log2)."""
    number = (-1 + numerator * 2.0 ** (1 - log2)) * 2.0 ** (fraction_bits - 24)
    pattern = struct.unpack("<H", struct.pack("<e", abs(number)))[0]
    return -pattern if number < 0 else pattern


class SpecLayerDecoder:
    """One layer of one segment: `intra` and `inter` return (means, cholesky, colors), and set `background`."""

    def __init__(self, layer, channels):
        self.layer, self.channels = layer, channels
        self.background = np.zeros(channels, F32)
        self.splats = None
        self.quantisers = {}
        self.counts = {}

    def intra(self, payload):
        self.background = np.zeros(self.channels, F32)
        if not payload:
            self.splats = self.none()
            return self.splats
        self.reader = Reader(payload)
        self.read_background()
        self.splats = self.whole(len(payload))
        return self.splats

    def inter(self, payload):
        require(self.splats is not None)
        if not payload:
            return self.splats
        self.reader = Reader(payload)
        self.read_background()
        length = len(self.splats[0])
        pruned = self.reader.u(length + 1)
        alive = [int(pruned == 0)] * length
        if 0 < pruned < length:
            alive = self.reader.table([pruned, length - pruned], length)
            require(alive.count(0) == pruned)
        kept = [array[np.array(alive, bool)] for array in self.splats]
        if pruned < length:
            kept = self.differences(kept)
        if self.reader.u(2):
            kept = [np.concatenate(pair) for pair in zip(kept, self.whole(len(payload)), strict=True)]
        require(len(kept[0]) <= 2**20)
        self.splats = tuple(kept)
        return self.splats

    def none(self):
        return tuple(np.zeros((0, width), F32) for width in (2, 3, self.channels))

    def read_background(self):
        if self.layer == 0 and self.reader.u(2):
            self.background = np.array([F32(self.reader.u(256)) / F32(255) for _ in range(self.channels)])

    def column(self, kind, name, length, size):
        if length == 0 or size == 1:
            return [0] * length
        known = self.counts.setdefault(kind, {})
        if name not in known or self.reader.u(2):
            known[name] = self.reader.frequency_table(size)
        return self.reader.table(known[name], length)

    def quantiser(self, kind):
        read = self.reader
        if read.u(2):
            halves = [read.u(65536) for _ in range(12)]
            numbers = np.array(struct.unpack("<6f", struct.pack("<12H", *halves)), F32)
            fraction_bits = read.u(24) + 1
            require(np.isfinite(numbers).all() and (numbers[:3] > 0).all())
            require(kind == "whole" or fraction_bits <= 20)
            stages = []
            for _ in range(read.u(4) + 1):
                entries, grid = read.u(64) + 1, read.u(25)
                sizes = read.table(read.frequency_table(41), entries * self.channels)
                signs = [read.u(2) if size else 0 for size in sizes]
                magnitudes = [join(size, read.u(rests(size, 10)), 10) for size in sizes]
                values = [fp16(m, sign) * 2.0 ** (24 - grid) for m, sign in zip(magnitudes, signs, strict=True)]
                require(all(abs(value) <= 65504 for value in values))
                stages.append(np.array(values, F32).reshape(entries, self.channels))
            low, high = (-16, 15) if kind == "differences" else (0, 63) if self.layer == 0 else (-32, 31)
            with np.errstate(over="ignore"):
                ends = np.array([[F32(q) * numbers[i] + numbers[3 + i] for i in range(3)] for q in (low, high)])
            require(np.isfinite(ends).all())
            self.quantisers[kind] = (numbers, fraction_bits, stages, low, high)
            self.counts[kind] = {}
        require(kind in self.quantisers)
        return self.quantisers[kind]

    def attributes(self, kind, length):
        numbers, _, stages, low, high = self.quantisers[kind]
        factors = np.zeros((length, 3), F32)
        for i in range(3):
            for row, symbol in enumerate(self.column(kind, f"cholesky{i}", length, high - low + 1)):
                factors[row, i] = F32(symbol + low) * numbers[i] + numbers[3 + i]
        colors = None
        for i, stage in enumerate(stages):
            chosen = stage[self.column(kind, f"stage{i}", length, len(stage))]
            colors = chosen if colors is None else colors + chosen
        return factors, colors

    def whole(self, payload_bytes):
        read = self.reader
        count = read.u(2**20 + 1)
        require(count <= 2 * payload_bytes)
        if not count:
            return self.none()
        fraction_bits = self.quantiser("whole")[1]
        limit = min(10, fraction_bits - 1)
        a, b = read.u(limit + 1), read.u(limit + 1)
        require(2 ** (a + b) <= 8 * count)
        inside = self.column("whole", "cells", 2 ** (a + b), 16)
        full = [cell for cell, symbol in enumerate(inside) if symbol == 15]
        digits = [read.u(21) for _ in full]
        for cell, k in zip(full, digits, strict=True):
            inside[cell] += 2 ** (k - 1) + read.u(2 ** (k - 1)) if k else 0
        require(sum(inside) == count)
        cells = [cell for cell, number in enumerate(inside) for _ in range(number)]
        means = np.zeros((count, 2), F32)
        for axis, log2 in ((0, a), (1, b)):
            for row, cell in enumerate(cells):
                place = cell % 2**a if axis == 0 else cell // 2**a
                left, right = (border(place + i, log2, fraction_bits) for i in (0, 1))
                key = left + read.u(right - left)
                means[row, axis] = fp16(abs(key), int(key < 0)) * 2.0 ** (24 - fraction_bits)
        factors, colors = self.attributes("whole", count)
        return means, raised(factors), colors

    def differences(self, reference):
        fraction_bits = self.quantiser("differences")[1]
        length = len(reference[0])
        moves = np.zeros((length, 2), F32)
        for axis in range(2):
            symbols = self.column("differences", f"position{axis}", length, 73)
            for row, symbol in enumerate(symbols):
                size = abs(symbol - 36)
                magnitude = join(size, self.reader.u(rests(size, 6)), 6)
                moves[row, axis] = fp16(magnitude << 4, int(symbol < 36)) * 2.0 ** (20 - fraction_bits)
        factors, colors = self.attributes("differences", length)
        with np.errstate(over="ignore"):
            result = [reference[0] + moves, reference[1] + factors, reference[2] + colors]
        require(all(np.isfinite(array).all() for array in result))
        result[1] = raised(result[1])
        return result


def raised(factors):
    """§6.4, lengths of at least 1/64."""
    for row in factors:
        for i in (0, 2):
            if abs(row[i]) < F32(1 / 64):
                row[i] = F32(-1 / 64) if row[i] < 0 else F32(1 / 64)
    return factors
