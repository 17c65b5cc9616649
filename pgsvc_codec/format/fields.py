"""How a record lies in bytes: declared once as a dataclass, from which packing, parsing and the spec's tables follow.

All numbers are little-endian (bitstream_spec.md, section 1).  A *sealed* block is followed by the CRC-32 of its bytes;
blocks are fetched whole and unsealed before they are parsed, so a record that runs past its block is corrupt, not cut.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cache
from math import gcd
from typing import Any, ClassVar, Protocol, Self

from pgsvc_codec.errors import ConfigError, CorruptError

CRC_BYTES = 4
_MAX_VARINT_BYTES = 9  # 63 bits: every value fits a signed 64-bit integer


class Cursor:
    """A reading position in a block that is whole in memory."""

    def __init__(self, data: bytes, *, where: str, base: int) -> None:
        """`where` names the block in messages; `base` is the offset of its first byte in the file."""
        self.data = data
        self.where = where
        self.base = base
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes not yet taken."""
        return len(self.data) - self.position

    def take(self, count: int, field: str) -> bytes:
        """The next `count` bytes.

        Raises:
            CorruptError: fewer remain.
        """
        if count > self.remaining:
            raise self.corrupt(field, self.position, f"needs {count} bytes, {self.remaining} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def corrupt(self, field: str, position: int, problem: str) -> CorruptError:
        """An error at `position` of the block, to be raised by the caller."""
        return CorruptError(f"{self.where} field {field} at byte {self.base + position:#x}: {problem}")

    def finish(self) -> None:
        """Demand that everything was taken.

        Raises:
            CorruptError: bytes are left over.
        """
        if self.remaining:
            raise CorruptError(
                f"{self.where} at byte {self.base + self.position:#x}: {self.remaining} bytes left over, allowed 0"
            )


class WireType(Protocol):
    """How one value lies in bytes."""

    @property
    def name(self) -> str:
        """As in the spec's tables."""

    @property
    def min_bytes(self) -> int:
        """Least size of any value, in bytes."""

    def pack(self, value: Any) -> bytes:
        """The bytes of an allowed value."""

    def take(self, cursor: Cursor, field: str) -> Any:
        """The value at the cursor; CorruptError where the bytes are none."""


@dataclass(frozen=True)
class Unsigned:
    """An unsigned integer of 1, 2, 4 or 8 bytes."""

    min_bytes: int

    @property
    def name(self) -> str:
        """u8, u16, u32 or u64."""
        return f"u{8 * self.min_bytes}"

    def pack(self, value: int) -> bytes:
        """Little-endian bytes."""
        return value.to_bytes(self.min_bytes, "little")

    def take(self, cursor: Cursor, field: str) -> int:
        """The integer at the cursor."""
        return int.from_bytes(cursor.take(self.min_bytes, field), "little")

    @property
    def span(self) -> range:
        """All values that fit."""
        return range(1 << (8 * self.min_bytes))


@dataclass(frozen=True)
class Varint:
    """An unsigned integer in groups of 7 bits, least first, bit 7 set on all bytes but the last; shortest form only."""

    name: ClassVar[str] = "varint"
    min_bytes: ClassVar[int] = 1
    span: ClassVar[range] = range(1 << (7 * _MAX_VARINT_BYTES))

    def pack(self, value: int) -> bytes:
        """1 to 9 bytes."""
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
        return bytes(out)

    def take(self, cursor: Cursor, field: str) -> int:
        """The integer at the cursor."""
        start = cursor.position
        value = 0
        for index in range(_MAX_VARINT_BYTES):
            byte = cursor.take(1, field)[0]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise cursor.corrupt(field, start, "varint is not in its shortest form")
                return value
        raise cursor.corrupt(field, start, f"varint is longer than {_MAX_VARINT_BYTES} bytes")


@dataclass(frozen=True)
class Bytes:
    """A fixed number of bytes."""

    min_bytes: int

    @property
    def name(self) -> str:
        """bytes[n]."""
        return f"bytes[{self.min_bytes}]"

    def pack(self, value: bytes) -> bytes:
        """The bytes themselves."""
        return value

    def take(self, cursor: Cursor, field: str) -> bytes:
        """The bytes at the cursor."""
        return cursor.take(self.min_bytes, field)


@dataclass(frozen=True)
class Rate:
    """A positive fraction in lowest terms: numerator, then denominator, varints below 2^32 each."""

    name: ClassVar[str] = "rate"
    min_bytes: ClassVar[int] = 2

    def pack(self, value: Fraction) -> bytes:
        """2 to 10 bytes."""
        return VARINT.pack(value.numerator) + VARINT.pack(value.denominator)

    def take(self, cursor: Cursor, field: str) -> Fraction:
        """The fraction at the cursor."""
        start = cursor.position
        numerator, denominator = VARINT.take(cursor, field), VARINT.take(cursor, field)
        small = max(numerator, denominator) < 1 << 32
        if not small or not numerator or not denominator or gcd(numerator, denominator) != 1:
            raise cursor.corrupt(field, start, f"got {numerator}/{denominator}, allowed 1..2^32-1 in lowest terms")
        return Fraction(numerator, denominator)


@dataclass(frozen=True)
class Text:
    """UTF-8 of at most 255 bytes, without control characters, behind its length as u8."""

    name: ClassVar[str] = "text"
    min_bytes: ClassVar[int] = 1

    def pack(self, value: str) -> bytes:
        """Length and bytes."""
        data = value.encode()
        return U8.pack(len(data)) + data

    def take(self, cursor: Cursor, field: str) -> str:
        """The text at the cursor."""
        start = cursor.position
        data = cursor.take(U8.take(cursor, field), field)
        try:
            value = data.decode()
        except UnicodeDecodeError:
            raise cursor.corrupt(field, start, "is not UTF-8") from None
        if self.has_controls(value):
            raise cursor.corrupt(field, start, "holds control characters")
        return value

    @staticmethod
    def has_controls(value: str) -> bool:
        """Whether there are C0 or C1 controls, which could do harm on the terminals where texts end up."""
        return any(character < " " or "\x7f" <= character <= "\x9f" for character in value)


@dataclass(frozen=True)
class Many:
    """Records of one kind behind their number."""

    record: type[Record]
    count: Unsigned | Varint
    allowed: range

    @property
    def name(self) -> str:
        """name[count type]."""
        return f"{self.record.NAME}[{self.count.name}]"

    @property
    def min_bytes(self) -> int:
        """The number and as many records as there must be."""
        return self.count.min_bytes + self.allowed.start * self.record.min_bytes()

    def pack(self, value: tuple[Record, ...]) -> bytes:
        """Number and records."""
        return self.count.pack(len(value)) + b"".join(record.pack() for record in value)

    def take(self, cursor: Cursor, field: str) -> tuple[Record, ...]:
        """The records at the cursor."""
        start = cursor.position
        count = self.count.take(cursor, field)
        if count not in self.allowed:
            raise cursor.corrupt(field, start, f"got {count} entries, allowed {show_allowed(self.allowed)}")
        if count * self.record.min_bytes() > cursor.remaining:
            raise cursor.corrupt(field, start, f"got {count} entries, but only {cursor.remaining} bytes follow")
        return tuple(self.record.parse(cursor) for _ in range(count))


U8, U16, U32, U64 = Unsigned(1), Unsigned(2), Unsigned(4), Unsigned(8)
VARINT = Varint()

Allowed = range | Collection[int] | Collection[bytes] | None


def show_allowed(allowed: Allowed) -> str:
    """As messages and the spec's tables write it; empty where every value of the type is allowed."""
    if allowed is None:
        return ""
    if isinstance(allowed, range):
        return f"{allowed.start}..{allowed.stop - 1}"
    return ", ".join(map(show_value, allowed))


def show_value(value: Any) -> str:
    """Bytes in hexadecimal, runs of zero bytes by their number."""
    if not isinstance(value, bytes):
        return str(value)
    return value.hex(" ") if any(value) else f"00 × {len(value)}"


@dataclass(frozen=True)
class Wire:
    """Type of a field and the values that it may take."""

    type: WireType
    allowed: Allowed = None

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value that was parsed, None if nothing."""
        if self.allowed is None or value in self.allowed:
            return None
        return f"got {show_value(value)}, allowed {show_allowed(self.allowed)}"

    def misuse(self, value: Any) -> str | None:
        """What is wrong with a value that a program made, None if nothing."""
        match self.type:
            case Unsigned() | Varint() if value not in self.type.span:
                return f"got {value}, allowed {show_allowed(self.type.span)}"
            case Bytes() if len(value) != self.type.min_bytes:
                return f"got {len(value)} bytes, allowed {self.type.min_bytes}"
            case Rate() if not (value > 0 and value.numerator in U32.span and value.denominator in U32.span):
                return f"got {value}, allowed > 0 with both parts below 2^32"
            case Text() if len(value.encode()) not in U8.span or self.type.has_controls(value):
                return f"got {value!r}, allowed at most 255 bytes without control characters"
            case Many() if len(value) not in self.type.allowed:
                return f"got {len(value)} entries, allowed {show_allowed(self.type.allowed)}"
        return self.problem(value)


def wire(type_: WireType, allowed: Allowed = None) -> Mapping[str, Wire]:
    """Metadata of a dataclass field that lies on the wire."""
    return {"wire": Wire(type_, allowed)}


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of all records: subclasses declare their fields in wire order, each with `wire(...)` as its metadata.

    Raises:
        ConfigError: a value does not fit its field.
    """

    NAME: ClassVar[str]  # as in the spec

    def __post_init__(self) -> None:
        for name, declared in self.wires():
            problem = declared.misuse(getattr(self, name))
            if problem:
                raise ConfigError(f"{self.NAME} field {name}: {problem}")

    @classmethod
    @cache
    def wires(cls) -> tuple[tuple[str, Wire], ...]:
        """Fields in wire order."""
        return tuple((field.name, field.metadata["wire"]) for field in fields(cls))

    @classmethod
    @cache
    def min_bytes(cls) -> int:
        """Least size of any such record, in bytes."""
        return sum(declared.type.min_bytes for _, declared in cls.wires())

    @classmethod
    def table(cls) -> list[tuple[str, str, str]]:
        """Rows (field, type, allowed) as in the spec."""
        rows = []
        for name, declared in cls.wires():
            allowed = declared.type.allowed if isinstance(declared.type, Many) else declared.allowed
            rows.append((name, declared.type.name, show_allowed(allowed)))
        return rows

    def pack(self) -> bytes:
        """The record's bytes."""
        return b"".join(declared.type.pack(getattr(self, name)) for name, declared in self.wires())

    @classmethod
    def parse(cls, cursor: Cursor) -> Self:
        """The record at the cursor, which moves behind it.

        Raises:
            CorruptError: a value is not allowed, or the block ends first.
        """
        values = {}
        for name, declared in cls.wires():
            start = cursor.position
            value = declared.type.take(cursor, name)
            problem = declared.problem(value)
            if problem:
                raise cursor.corrupt(name, start, problem)
            values[name] = value
        return cls(**values)


def seal(block: bytes) -> bytes:
    """The block and its CRC-32."""
    return block + U32.pack(zlib.crc32(block))


def unseal(sealed: bytes, *, where: str, base: int) -> bytes:
    """The block without its CRC-32, which was right.

    Raises:
        CorruptError: it was not.
    """
    block, stored = sealed[:-CRC_BYTES], int.from_bytes(sealed[-CRC_BYTES:], "little")
    actual = zlib.crc32(block)
    if len(sealed) < CRC_BYTES or actual != stored:
        raise CorruptError(f"{where} at byte {base:#x}: CRC-32 is {actual:08x}, stored {stored:08x}")
    return block
