"""The bytes of one frame of one layer ↔ decoded splats, `baseline` profile (spec §6.5 to §6.7).

An I payload holds all splats of the layer in canonical order: cell by cell of a grid over the frame, so that the
order, which carries no information in a sum, costs nothing.  A P payload holds differences to the *decoded* splats
of the layer's previous frame, a mask of those that survive, and injected splats coded as in an I payload.
`LayerEncoder` and `LayerDecoder` live for one segment; both keep the decoded splats, the quantiser tables and the
frequency tables, so that a payload sends only what changes.
"""

from __future__ import annotations

from copy import deepcopy
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.baseline.entropy import (
    LADDER,
    RangeDecoder,
    RangeEncoder,
    choose_classes,
    class_bits,
    symbol_bits,
)
from pgsvc_codec.coding.baseline.quant import (
    FLOAT12_FRACTION_BITS,
    FLOAT16_FRACTION_BITS,
    MAX_ENTRIES,
    MAX_STAGES,
    Codebooks,
    IntArray,
    QuantTables,
    ScalarQuantizer,
    Symbols,
    cholesky_levels,
    dequantize_inter,
    dequantize_intra,
    float16_codes,
    float16_values,
    ordered,
    patterns,
    quantize_inter,
    quantize_intra,
)
from pgsvc_codec.errors import CorruptError
from pgsvc_codec.format.constants import MAX_SPLATS
from pgsvc_codec.splats import FloatArray, Splats

MAX_SPLATS_PER_BYTE = 2  # of splats coded whole: each coordinate takes at least two bits of a payload
MAX_CELLS_PER_SPLAT = 8

_COUNT_ESCAPE = 15  # cell counts from here on continue outside the table
_EXCESS_SIZES = 21  # binary digits 0..20 of what a count exceeds the escape by
_FLOAT16_MANTISSA = 10  # bits
_FLOAT12_MANTISSA = 6
_FLOAT16_SIZES = 30 + _FLOAT16_MANTISSA  # largest size of a finite fp16, see _split
_FLOAT12_SIZES = 30 + _FLOAT12_MANTISSA


class Coding(IntEnum):
    """How splats are coded, whole or as differences; each has its own quantiser and frequency tables."""

    INTRA = 0
    INTER = 1


class _State:
    """What both sides know between the payloads of a segment."""

    def __init__(self, layer: int, channels: int) -> None:
        self.layer = layer
        self.channels = channels
        self.decoded: Splats | None = None  # of the last frame, None before the first
        self.background = np.zeros(channels, np.float32)  # of the last frame; stays 0 in enhancement layers
        self._tables: dict[Coding, QuantTables] = {}  # as they are in the stream
        self._counts: dict[Coding, dict[str, NDArray[np.int64]]] = {coding: {} for coding in Coding}

    def _set_tables(self, coding: Coding, tables: QuantTables) -> None:
        """Take over new quantiser tables; frequency tables of the old symbols are of no use with them."""
        self._tables[coding] = tables
        self._counts[coding] = {}


class LayerEncoder(_State):
    """Codes the frames of one layer of one segment, in coding order.

    Args:
        layer: index, 0 = base.
        channels: C, 1 or 3.

    Attributes:
        decoded: the splats that the decoder has after the last payload, None before the first.
        background: float32 [C], as the decoder has it.
        order: int [N], row of the input that each decoded splat came from.  After `encode_inter` the input is the
            targets followed by the injected splats.
    """

    def __init__(self, layer: int, channels: int) -> None:
        super().__init__(layer, channels)
        self.order: NDArray[np.intp] = np.zeros(0, np.intp)
        self._given: dict[Coding, QuantTables] = {}  # as the caller passed what is in the stream
        self._ranks: dict[Coding, list[IntArray]] = {}  # caller's entry index -> entry index in the stream, per stage

    def encode_intra(self, splats: Splats, tables: QuantTables, *, background: FloatArray | None = None) -> bytes:
        """The payload of an I-frame; empty where the layer has no splats and the background is 0.

        Args:
            splats: any order; positions outside [-1, 1) are clamped.
            tables: sent where they differ from those last sent for splats coded whole.
            background: [C] in 0..1, base layer only; None is 0.

        Raises:
            ValueError: an argument does not fit the layer, a number is not finite, or there are too many splats.
        """
        codes = self._background_codes(background)
        self._check(splats, tables, Coding.INTRA)
        self.background = _background(codes)
        if not len(splats) and not codes.any():
            self.decoded = Splats.empty(self.channels)
            self.order = np.zeros(0, np.intp)
            return b""
        coder = RangeEncoder()
        self._write_background(coder, codes, changed=bool(codes.any()))
        self.decoded, self.order = self._write_whole(coder, splats, tables)
        return coder.finish()

    def encode_inter(
        self,
        targets: Splats,
        tables: QuantTables | None,
        *,
        survivors: NDArray[np.bool_],
        injected: Splats,
        tables_intra: QuantTables,
        background: FloatArray | None = None,
    ) -> bytes:
        """The payload of a P-frame; empty where decoded splats and background stay as they are.

        Args:
            targets: what the surviving splats should become, in the order of `decoded`.
            tables: of the differences; sent where they differ from those last sent for differences.  None where
                nothing survives.
            survivors: [N] for each splat of `decoded`, whether it lives on.
            injected: new splats, any order.
            tables_intra: of the injected splats; as in `encode_intra`.
            background: [C] in 0..1, base layer only; None keeps the previous.

        Raises:
            ValueError: as `encode_intra`, or the survivors do not fit the previous frame or the targets.
        """
        if self.decoded is None:
            raise ValueError("P payload: no frame before it in the segment")
        if survivors.shape != (len(self.decoded),) or survivors.dtype != np.bool_:
            raise ValueError(f"survivors: got {survivors.dtype} {survivors.shape}, allowed bool ({len(self.decoded)},)")
        reference = self.decoded[survivors]
        if len(targets) != len(reference):
            raise ValueError(f"targets: got {len(targets)} splats for {len(reference)} survivors")
        if len(targets) + len(injected) > MAX_SPLATS:
            raise ValueError(f"P payload: got {len(targets) + len(injected)} splats, allowed {MAX_SPLATS}")
        codes = _codes(self.background) if background is None else self._background_codes(background)
        if tables is None and len(targets):
            raise ValueError(f"tables: got none for the differences of {len(targets)} survivors")
        if tables is not None:
            self._check(targets, tables, Coding.INTER)
        self._check(injected, tables_intra, Coding.INTRA)

        updated = reference
        if tables is not None:
            symbols = quantize_inter(targets, reference, tables)
            updated = dequantize_inter(symbols, reference, tables)
            _require_finite(updated, ValueError)
        changed = not np.array_equal(_background(codes), self.background)
        if not changed and not len(injected) and survivors.all() and _equal(updated, reference):
            self.order = np.arange(len(reference))
            return b""
        coder = RangeEncoder()
        self._write_background(coder, codes, changed=changed)
        _write_mask(coder, survivors)
        if tables is not None and len(symbols):
            self._write_tables(coder, Coding.INTER, tables, symbols.colors)
            self._write_differences(coder, symbols)
        coder.uniform([len(injected) > 0], 2)
        self.background = _background(codes)
        if not len(injected):
            self.decoded, self.order = updated, np.arange(len(updated))
        else:
            added, order = self._write_whole(coder, injected, tables_intra)
            self.decoded = Splats.concatenate([updated, added])
            self.order = np.concatenate([np.arange(len(updated)), len(updated) + order])
        return coder.finish()

    def _check(self, splats: Splats, tables: QuantTables, coding: Coding) -> None:
        """Everything that could fail later, so that a refused frame leaves the state as it was."""
        if splats.channels != self.channels or tables.colors.channels != self.channels:
            raise ValueError(
                f"channels: got {splats.channels} in splats, {tables.colors.channels} in tables, "
                f"allowed {self.channels}"
            )
        if len(splats) > MAX_SPLATS:
            raise ValueError(f"splats: got {len(splats)}, allowed {MAX_SPLATS}")
        _require_finite(splats, ValueError)
        if coding is Coding.INTER and tables.position_fraction_bits > FLOAT12_FRACTION_BITS:
            raise ValueError(_fraction_bits_text(tables))
        levels = cholesky_levels(self.layer, inter=coding is Coding.INTER)
        if (tables.cholesky.low, tables.cholesky.high) != levels:
            raise ValueError(
                f"Cholesky levels of layer {self.layer}, {coding.name}: "
                f"got {tables.cholesky.low}..{tables.cholesky.high}, allowed {levels[0]}..{levels[1]}"
            )

    def _background_codes(self, background: FloatArray | None) -> IntArray:
        if background is None:
            return np.zeros(self.channels, np.int32)
        if self.layer or background.shape != (self.channels,) or not np.isfinite(background).all():
            raise ValueError(f"background: got {background} in layer {self.layer}, allowed {self.channels} in layer 0")
        return _codes(background)

    def _write_background(self, coder: RangeEncoder, codes: IntArray, *, changed: bool) -> None:
        if self.layer == 0:
            coder.uniform([changed], 2)
            if changed:
                coder.uniform(codes, 256)

    def _write_tables(self, coder: RangeEncoder, coding: Coding, tables: QuantTables, indices: IntArray) -> None:
        """The flag and, where the tables changed, the tables, codebook entries by falling use."""
        given = self._given.get(coding)
        changed = given is None or not tables.matches(given)
        coder.uniform([changed], 2)
        if not changed:
            return
        self._given[coding] = deepcopy(tables)  # training goes on in the arrays
        ranks, stages = [], []
        for stage, column in zip(tables.colors.stages, indices.T, strict=True):
            by_use = np.argsort(-np.bincount(column, minlength=len(stage)), kind="stable")
            ranks.append(np.argsort(by_use).astype(np.int32))
            stages.append(stage[by_use])
        self._ranks[coding] = ranks
        sent = QuantTables(tables.cholesky, Codebooks(tuple(stages)), tables.position_fraction_bits)
        self._set_tables(coding, sent)
        _write_quant_tables(coder, sent)

    def _write_column(self, coder: RangeEncoder, coding: Coding, name: str, symbols: IntArray, size: int) -> None:
        """Symbols with the frequency table last sent under that name, or with a new one if that is smaller."""
        if not len(symbols) or size == 1:
            return
        histogram = np.bincount(symbols, minlength=size)
        classes = choose_classes(histogram)
        counts = LADDER[classes]
        last = self._counts[coding].get(name)
        if last is not None:
            renewed = class_bits(classes) + symbol_bits(histogram, counts) < symbol_bits(histogram, last)
            coder.uniform([renewed], 2)
            if not renewed:
                coder.table(symbols, last)
                return
        self._counts[coding][name] = counts
        coder.classes(classes)
        coder.table(symbols, counts)

    def _write_attributes(self, coder: RangeEncoder, coding: Coding, symbols: Symbols) -> None:
        """Cholesky levels, then codebook indices, one column after the other."""
        tables = self._tables[coding]
        low, high = tables.cholesky.low, tables.cholesky.high
        for index, levels in enumerate(symbols.cholesky.T):
            self._write_column(coder, coding, f"cholesky{index}", levels - low, high - low + 1)
        for index, (stage, indices) in enumerate(zip(tables.colors.stages, symbols.colors.T, strict=True)):
            self._write_column(coder, coding, f"stage{index}", self._ranks[coding][index][indices], len(stage))

    def _write_whole(self, coder: RangeEncoder, splats: Splats, tables: QuantTables) -> tuple[Splats, NDArray[np.intp]]:
        """The block of splats coded whole; returns the decoded splats and the input row of each."""
        coder.uniform([len(splats)], MAX_SPLATS + 1)
        if not len(splats):
            return splats, np.zeros(0, np.intp)
        symbols = quantize_intra(splats, tables)
        self._write_tables(coder, Coding.INTRA, tables, symbols.colors)
        grid = _choose_grid(symbols.positions, tables.position_fraction_bits)
        cells = grid.cells(symbols.positions)
        order = np.lexsort((symbols.positions[:, 1], symbols.positions[:, 0], cells))
        symbols, cells = symbols[order], cells[order]

        coder.uniform(grid.log2, _max_grid_log2(tables.position_fraction_bits) + 1)
        counts = np.bincount(cells, minlength=grid.num_cells)
        capped = np.minimum(counts, _COUNT_ESCAPE).astype(np.int32)
        self._write_column(coder, Coding.INTRA, "cells", capped, _COUNT_ESCAPE + 1)
        excess = counts[capped == _COUNT_ESCAPE] - _COUNT_ESCAPE
        lengths = _bit_lengths(excess)
        coder.uniform(lengths, _EXCESS_SIZES)
        coder.uniform(excess - _leading(lengths), np.maximum(_leading(lengths), 1))
        for axis, starts, sizes in grid.spans(cells):
            coder.uniform(symbols.positions[:, axis] - starts, sizes)

        self._write_attributes(coder, Coding.INTRA, symbols)
        return dequantize_intra(symbols, tables), order

    def _write_differences(self, coder: RangeEncoder, symbols: Symbols) -> None:
        for axis, codes in enumerate(symbols.positions.T):
            sizes, rest = _split(codes & 0x7FF, _FLOAT12_MANTISSA)
            signed = np.where(codes & 0x800, -sizes, sizes) + _FLOAT12_SIZES
            self._write_column(coder, Coding.INTER, f"position{axis}", signed, 2 * _FLOAT12_SIZES + 1)
            coder.uniform(rest, _rests(sizes, _FLOAT12_MANTISSA))
        self._write_attributes(coder, Coding.INTER, symbols)


class LayerDecoder(_State):
    """Decodes the frames of one layer of one segment, in coding order.

    The caller has checked length and CRC of the segment.  After an error the segment is lost: its later payloads
    refer to what could not be decoded.

    Args:
        layer: index, 0 = base.
        channels: C, 1 or 3.

    Attributes:
        decoded: the splats after the last payload, None before the first.
        background: float32 [C].
    """

    def decode_intra(self, payload: bytes) -> Splats:
        """The splats of an I-frame.

        Raises:
            CorruptError: the payload contradicts itself or a limit.
        """
        self.background = np.zeros(self.channels, np.float32)
        if not payload:
            self.decoded = Splats.empty(self.channels)
            return self.decoded
        coder = RangeDecoder(payload)
        self._read_background(coder)
        self.decoded = self._read_whole(coder, len(payload))
        return self.decoded

    def decode_inter(self, payload: bytes) -> Splats:
        """The splats of a P-frame: survivors in the order of the previous frame, then the injected ones.

        Raises:
            CorruptError: the payload contradicts itself, a limit or the previous frame.
        """
        if self.decoded is None:
            raise CorruptError("P payload: no frame before it in the segment")
        if not payload:
            return self.decoded
        coder = RangeDecoder(payload)
        self._read_background(coder)
        survivors = _read_mask(coder, len(self.decoded))
        reference = self.decoded if survivors is None else self.decoded[survivors]
        parts = [reference]
        if len(reference):
            tables = self._read_tables(coder, Coding.INTER)
            parts = [dequantize_inter(self._read_differences(coder, len(reference)), reference, tables)]
            _require_finite(parts[0], CorruptError)
        if coder.number(2):
            parts.append(self._read_whole(coder, len(payload)))
        count = sum(map(len, parts))
        if count > MAX_SPLATS:
            raise CorruptError(f"P payload: got {count} splats, allowed {MAX_SPLATS}")
        self.decoded = parts[0] if len(parts) == 1 else Splats.concatenate(parts)
        return self.decoded

    def _read_background(self, coder: RangeDecoder) -> None:
        if self.layer == 0 and coder.number(2):
            self.background = _background(coder.uniform(np.full(self.channels, 256)))

    def _read_tables(self, coder: RangeDecoder, coding: Coding) -> QuantTables:
        if coder.number(2):
            levels = cholesky_levels(self.layer, inter=coding is Coding.INTER)
            tables = _read_quant_tables(coder, levels, self.channels)
            if coding is Coding.INTER and tables.position_fraction_bits > FLOAT12_FRACTION_BITS:
                raise CorruptError(_fraction_bits_text(tables))
            self._set_tables(coding, tables)
        if coding not in self._tables:
            raise CorruptError(f"{coding.name} quantiser tables: used before any was sent in the segment")
        return self._tables[coding]

    def _read_column(self, coder: RangeDecoder, coding: Coding, name: str, length: int, size: int) -> IntArray:
        if not length or size == 1:
            return np.zeros(length, np.int32)
        tables = self._counts[coding]
        if name not in tables or coder.number(2):
            tables[name] = LADDER[coder.classes(size)]
        return coder.table(length, tables[name])

    def _read_attributes(self, coder: RangeDecoder, coding: Coding, positions: IntArray) -> Symbols:
        tables, length = self._tables[coding], len(positions)
        low, high = tables.cholesky.low, tables.cholesky.high
        levels = [
            self._read_column(coder, coding, f"cholesky{index}", length, high - low + 1) + low for index in range(3)
        ]
        indices = [
            self._read_column(coder, coding, f"stage{index}", length, len(stage))
            for index, stage in enumerate(tables.colors.stages)
        ]
        return Symbols(positions, np.stack(levels).T, np.stack(indices).T)

    def _read_whole(self, coder: RangeDecoder, payload_bytes: int) -> Splats:
        length = coder.number(MAX_SPLATS + 1)
        if length > MAX_SPLATS_PER_BYTE * payload_bytes:
            raise CorruptError(
                f"payload: got {length} splats in {payload_bytes} bytes, allowed {MAX_SPLATS_PER_BYTE} per byte"
            )
        if not length:
            return Splats.empty(self.channels)
        tables = self._read_tables(coder, Coding.INTRA)
        grid_sizes = _max_grid_log2(tables.position_fraction_bits) + 1
        grid = _Grid(coder.number(grid_sizes), coder.number(grid_sizes), tables.position_fraction_bits)
        if grid.num_cells > MAX_CELLS_PER_SPLAT * length:
            raise CorruptError(
                f"grid: got {grid.num_cells} cells for {length} splats, allowed {MAX_CELLS_PER_SPLAT} per splat"
            )
        counts = self._read_column(coder, Coding.INTRA, "cells", grid.num_cells, _COUNT_ESCAPE + 1).astype(np.int64)
        escaped = np.flatnonzero(counts == _COUNT_ESCAPE)
        leading = _leading(coder.uniform(np.full(len(escaped), _EXCESS_SIZES)))
        counts[escaped] += leading + coder.uniform(np.maximum(leading, 1))
        if counts.sum() != length:
            raise CorruptError(f"grid: cells hold {counts.sum()} splats, {length} were announced")
        cells = np.repeat(np.arange(grid.num_cells), counts)
        positions = np.stack([starts + coder.uniform(sizes) for _, starts, sizes in grid.spans(cells)]).T
        return dequantize_intra(self._read_attributes(coder, Coding.INTRA, positions), tables)

    def _read_differences(self, coder: RangeDecoder, length: int) -> Symbols:
        first_codes, num_codes = _float12_ranges()
        columns = []
        for axis in range(2):
            signed = self._read_column(coder, Coding.INTER, f"position{axis}", length, 2 * _FLOAT12_SIZES + 1)
            columns.append(first_codes.take(signed) + coder.uniform(num_codes.take(signed)))
        return self._read_attributes(coder, Coding.INTER, np.stack(columns).T)


class _Grid:
    """2^a columns × 2^b rows of equal cells over [-1, 1)²; a cell is a range of position keys per axis."""

    def __init__(self, log2_columns: int, log2_rows: int, fraction_bits: int) -> None:
        self.log2 = (log2_columns, log2_rows)
        self.num_cells = 1 << (log2_columns + log2_rows)
        self._borders = [_border_keys(log2, fraction_bits) for log2 in self.log2]

    def cells(self, positions: IntArray) -> NDArray[np.intp]:
        """Index of the cell of each position [N, 2], in raster order."""
        column, row = (
            np.searchsorted(borders, positions[:, axis], side="right") - 1 for axis, borders in enumerate(self._borders)
        )
        return np.asarray((row << self.log2[0]) + column)

    def spans(self, cells: NDArray[np.intp]) -> list[tuple[int, IntArray, IntArray]]:
        """Per axis: (axis, first key, number of keys) of the cells [N]."""
        column, row = cells & ((1 << self.log2[0]) - 1), cells >> self.log2[0]
        return [
            (axis, borders[index], np.diff(borders)[index])
            for axis, (borders, index) in enumerate(zip(self._borders, (column, row), strict=True))
        ]


def _border_keys(log2: int, fraction_bits: int) -> IntArray:
    """Keys of the 2^log2 + 1 cell borders, -1 and 1 included; all are multiples of four steps, so they are exact."""
    borders = np.arange((1 << log2) + 1) * 2.0 ** (1 - log2) - 1
    return ordered(float16_codes(borders * 2.0 ** (fraction_bits - FLOAT16_FRACTION_BITS)))


def _max_grid_log2(fraction_bits: int) -> int:
    """Most cells per axis, as a power of two: with more, a cell would hold less than four fp16 numbers or steps."""
    return min(10, fraction_bits - 1)


def _choose_grid(positions: IntArray, fraction_bits: int) -> _Grid:
    """The grid with the least bits for cell counts and positions among near-square ones of 1/8 to 2 splats a cell."""
    largest = (MAX_CELLS_PER_SPLAT * len(positions)).bit_length() - 1
    limit = _max_grid_log2(fraction_bits)
    candidates = {
        (min(total - total // 2, limit), min(total // 2, limit)) for total in range(max(largest - 4, 0), largest + 1)
    }
    grids = [_Grid(*log2, fraction_bits) for log2 in sorted(candidates)]
    return min(grids, key=lambda grid: _grid_bits(grid, positions))


def _grid_bits(grid: _Grid, positions: IntArray) -> float:
    cells = grid.cells(positions)
    counts = np.bincount(cells, minlength=grid.num_cells)
    histogram = np.bincount(np.minimum(counts, _COUNT_ESCAPE), minlength=_COUNT_ESCAPE + 1)
    excess = counts[counts >= _COUNT_ESCAPE] - _COUNT_ESCAPE
    escape_bits = float((np.log2(_EXCESS_SIZES) + np.log2(excess + 1)).sum())
    key_bits = sum(float(np.log2(sizes).sum()) for _, _, sizes in grid.spans(cells))
    return symbol_bits(histogram, np.maximum(histogram, 1)) + escape_bits + key_bits


def _bit_lengths(numbers: NDArray[np.int64] | IntArray) -> IntArray:
    """Binary digits of non-negative numbers below 2^53; 0 has none."""
    return np.frexp(numbers.astype(np.float64))[1].astype(np.int32)


def _leading(lengths: IntArray) -> NDArray[np.int64]:
    """The smallest numbers of so many binary digits: 0, 1, 2, 4, 8, ..."""
    return (np.int64(1) << lengths.astype(np.int64)) >> 1


def _write_mask(coder: RangeEncoder, survivors: NDArray[np.bool_]) -> None:
    pruned = int((~survivors).sum())
    coder.uniform([pruned], len(survivors) + 1)
    if 0 < pruned < len(survivors):
        coder.table(survivors.astype(np.int32), np.array([pruned, len(survivors) - pruned], np.int64))


def _read_mask(coder: RangeDecoder, length: int) -> NDArray[np.intp] | None:
    """The splats that survive, ascending; None: all."""
    pruned = coder.number(length + 1)
    if not pruned:
        return None
    if pruned == length:
        return np.zeros(0, np.intp)
    survivors = np.flatnonzero(coder.table(length, np.array([pruned, length - pruned], np.int64)))
    if len(survivors) != length - pruned:
        raise CorruptError(f"mask: {length - len(survivors)} splats pruned, {pruned} were announced")
    return survivors


def _write_quant_tables(coder: RangeEncoder, tables: QuantTables) -> None:
    numbers = np.concatenate([tables.cholesky.scale, tables.cholesky.offset]).astype("<f4").view("<u2")
    coder.uniform(numbers, 1 << 16)
    coder.uniform([tables.position_fraction_bits - 1], FLOAT16_FRACTION_BITS)
    coder.uniform([len(tables.colors.stages) - 1], MAX_STAGES)
    for stage in tables.colors.stages:
        fraction_bits = next(bits for bits in range(FLOAT16_FRACTION_BITS + 1) if _on_grid(stage, bits))
        keys = ordered(float16_codes(stage.ravel() * np.float32(2.0 ** (fraction_bits - FLOAT16_FRACTION_BITS))))
        sizes, rest = _split(np.abs(keys), _FLOAT16_MANTISSA)
        coder.uniform([len(stage) - 1], MAX_ENTRIES)
        coder.uniform([fraction_bits], FLOAT16_FRACTION_BITS + 1)
        classes = choose_classes(np.bincount(sizes, minlength=_FLOAT16_SIZES + 1))
        coder.classes(classes)
        coder.table(sizes, LADDER[classes])
        coder.uniform(keys[sizes > 0] < 0, 2)
        coder.uniform(rest, _rests(sizes, _FLOAT16_MANTISSA))


def _read_quant_tables(coder: RangeDecoder, levels: tuple[int, int], channels: int) -> QuantTables:
    numbers = coder.uniform(np.full(12, 1 << 16)).astype("<u2").view("<f4").astype(np.float32)
    position_bits = coder.number(FLOAT16_FRACTION_BITS) + 1
    stages = []
    for _ in range(coder.number(MAX_STAGES) + 1):
        entries = coder.number(MAX_ENTRIES) + 1
        fraction_bits = coder.number(FLOAT16_FRACTION_BITS + 1)
        sizes = coder.table(entries * channels, LADDER[coder.classes(_FLOAT16_SIZES + 1)])
        negative = np.zeros(len(sizes), bool)
        negative[sizes > 0] = coder.uniform(np.full(np.count_nonzero(sizes), 2))
        magnitudes = _join(sizes, coder.uniform(_rests(sizes, _FLOAT16_MANTISSA)), _FLOAT16_MANTISSA)
        values = float16_values(patterns(np.where(negative, -magnitudes, magnitudes)))
        stages.append((values * np.float32(2.0 ** (FLOAT16_FRACTION_BITS - fraction_bits))).reshape(entries, channels))
    try:
        return QuantTables(ScalarQuantizer(numbers[:3], numbers[3:], *levels), Codebooks(tuple(stages)), position_bits)
    except ValueError as error:
        raise CorruptError(f"quantiser tables: {error}") from error


def _on_grid(stage: FloatArray, fraction_bits: int) -> bool:
    scaled = np.ldexp(stage.astype(np.float64), fraction_bits)
    return np.array_equal(scaled, np.rint(scaled))


def _split(magnitudes: IntArray, mantissa_bits: int) -> tuple[IntArray, IntArray]:
    """Bit patterns of non-negative floats -> (size, rest): the place of the leading one, and the bits that follow it.

    Size 0 is zero, size s <= mantissa_bits a subnormal of s digits, size mantissa_bits + e an exponent field e.
    """
    subnormal = magnitudes < 1 << mantissa_bits
    sizes = np.where(subnormal, _bit_lengths(magnitudes), (magnitudes >> mantissa_bits) + mantissa_bits)
    return sizes.astype(np.int32), magnitudes & (_rests(sizes, mantissa_bits) - 1)


def _rests(sizes: IntArray, mantissa_bits: int) -> IntArray:
    """How many floats share each size."""
    return np.int32(1) << np.clip(sizes - 1, 0, mantissa_bits)


def _join(sizes: IntArray, rest: IntArray, mantissa_bits: int) -> IntArray:
    """Inverse of `_split`."""
    normal = np.maximum(sizes - mantissa_bits, 0) << mantissa_bits
    return rest + np.where(sizes > mantissa_bits, normal, _leading(np.minimum(sizes, mantissa_bits))).astype(np.int32)


@lru_cache(maxsize=1)
def _float12_ranges() -> tuple[IntArray, IntArray]:
    """The first code and the number of codes of each signed size, as `LayerEncoder` sends it for a difference."""
    signed = np.arange(-_FLOAT12_SIZES, _FLOAT12_SIZES + 1, dtype=np.int32)
    sizes = np.abs(signed)
    first = _join(sizes, np.zeros_like(sizes), _FLOAT12_MANTISSA) + np.where(signed < 0, 0x800, 0)
    return first.astype(np.int32), _rests(sizes, _FLOAT12_MANTISSA)


def _fraction_bits_text(tables: QuantTables) -> str:
    return f"INTER position fraction bits: got {tables.position_fraction_bits}, allowed 1..{FLOAT12_FRACTION_BITS}"


def _codes(background: FloatArray) -> IntArray:
    return np.clip(np.rint(background * 255), 0, 255).astype(np.int32)


def _background(codes: IntArray) -> FloatArray:
    return codes.astype(np.float32) / np.float32(255)


def _equal(left: Splats, right: Splats) -> bool:
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in ("means", "cholesky", "colors"))


def _require_finite(splats: Splats, error: type[ValueError]) -> None:
    for name in ("means", "cholesky", "colors"):
        if not np.isfinite(getattr(splats, name)).all():
            raise error(f"splats: a number in {name} is not finite")
