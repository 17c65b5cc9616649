"""Records: what is packed is parsed, and nothing but allowed bytes is."""

from __future__ import annotations

import typing
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsvc_codec.errors import ConfigError, CorruptError
from pgsvc_codec.format import header, segments
from pgsvc_codec.format.fields import (
    U8,
    U16,
    VARINT,
    Bytes,
    Cursor,
    Many,
    Rate,
    Record,
    Text,
    Unsigned,
    Varint,
    Wire,
    seal,
    show_allowed,
    unseal,
)

RECORDS = sorted(
    {kind for module in (header, segments) for kind in vars(module).values()
     if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record},
    key=lambda kind: kind.NAME,
)  # fmt: skip


def values(declared: Wire) -> st.SearchStrategy[object]:
    """Any value that a field may hold."""
    kind, allowed = declared.type, declared.allowed
    if isinstance(allowed, range):
        return st.integers(allowed.start, allowed.stop - 1)
    if allowed is not None:
        return st.sampled_from(list(allowed))
    if isinstance(kind, Many):
        return st.lists(records(kind.record), min_size=kind.allowed.start, max_size=min(kind.allowed.stop - 1, 4)).map(
            tuple
        )
    if isinstance(kind, Unsigned | Varint):
        return st.integers(0, kind.span.stop - 1)
    if isinstance(kind, Bytes):
        return st.binary(min_size=kind.min_bytes, max_size=kind.min_bytes)
    if isinstance(kind, Rate):
        return st.builds(Fraction, st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1))
    assert isinstance(kind, Text)
    return st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=60)


def records(kind: type[Record]) -> st.SearchStrategy[Record]:
    """Any record of a kind."""
    return st.builds(kind, **{name: values(declared) for name, declared in kind.wires()})  # type: ignore[arg-type]


def cursor(data: bytes) -> Cursor:
    return Cursor(data, where="block", base=0x40)


def test_every_record_is_found() -> None:
    assert {"file header", "video", "index layer", "segment header"} <= {kind.NAME for kind in RECORDS}


@given(st.data())
@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.NAME)
def test_parse_inverts_pack(kind: type[Record], data: st.DataObject) -> None:
    record = data.draw(records(kind))
    packed = record.pack()
    assert len(packed) >= kind.min_bytes()
    reader = cursor(packed)
    assert kind.parse(reader) == record
    reader.finish()


@given(st.data())
@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.NAME)
def test_pack_inverts_parse(kind: type[Record], data: st.DataObject) -> None:
    """No two byte strings mean the same record, and bytes that mean none are corrupt."""
    block = bytearray(data.draw(records(kind)).pack() + data.draw(st.binary(max_size=4)))
    for position, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(block) - 1), st.integers(0, 255)), max_size=3)
    ):
        block[position] = byte
    reader = cursor(bytes(block))
    try:
        record = kind.parse(reader)
    except CorruptError:
        return
    assert record.pack() == block[: reader.position]


@given(st.data())
@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.NAME)
def test_a_short_block_is_corrupt(kind: type[Record], data: st.DataObject) -> None:
    packed = data.draw(records(kind)).pack()
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(CorruptError, match=r"block field \w+ at byte 0x"):
        kind.parse(cursor(packed[:cut]))


@pytest.mark.parametrize(
    ("value", "packed"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**63 - 1, "ffffffffffffffff7f")],
)
def test_varint(value: int, packed: str) -> None:
    assert VARINT.pack(value).hex() == packed
    assert VARINT.take(cursor(bytes.fromhex(packed)), "n") == value


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        ("8000", "field n at byte 0x40: varint is not in its shortest form"),
        ("ffffffffffffffffff01", "field n at byte 0x40: varint is longer than 9 bytes"),
        ("80", "field n at byte 0x41: needs 1 bytes, 0 are left"),
    ],
)
def test_bad_varints(packed: str, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        VARINT.take(cursor(bytes.fromhex(packed)), "n")


@pytest.mark.parametrize(
    ("kind", "packed", "message"),
    [
        (Rate(), "00 01", r"got 0/1, allowed 1\.\.2\^32-1 in lowest terms"),
        (Rate(), "02 04", r"got 2/4, allowed 1\.\.2\^32-1 in lowest terms"),
        (Rate(), "01 00", r"got 1/0, allowed 1\.\.2\^32-1 in lowest terms"),
        (Text(), "02 c328", "is not UTF-8"),
        (Text(), "02 1b5b", "holds control characters"),
        (Text(), "05 6162", "needs 5 bytes, 2 are left"),
        (Many(header.LevelRecord, U8, range(1, 9)), "09", r"got 9 entries, allowed 1\.\.8"),
        (Many(header.LevelRecord, U8, range(1, 9)), "08 0000", "got 8 entries, but only 2 bytes follow"),
    ],
)
def test_bad_values(kind: typing.Any, packed: str, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        kind.take(cursor(bytes.fromhex(packed)), "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, r"level field width: got 0, allowed 1\.\.16384"),
        ({"height": 16385}, r"level field height: got 16385, allowed 1\.\.16384"),
        ({"splats": -1}, r"level field splats: got -1, allowed 0\.\.9223372036854775807"),
    ],
)
def test_misuse_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        header.LevelRecord(**{"width": 1, "height": 1, "splats": 0} | change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: header.RecordHead(tag=b"ABC", length=0), "tag: got 3 bytes, allowed 4"),
        (lambda: header.EncoderRecord(text="x" * 256), "allowed at most 255 bytes"),
        (lambda: header.EncoderRecord(text="a\nb"), "without control characters"),
        (lambda: header.LayersRecord(scalability=0, levels=()), r"levels: got 0 entries, allowed 1\.\.8"),
    ],
)
def test_misuse_of_other_types_is_refused(make: typing.Callable[[], Record], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@given(st.binary(max_size=100), st.integers(0, 10**6))
def test_any_flipped_bit_breaks_a_seal(block: bytes, bit: int) -> None:
    sealed = bytearray(seal(block))
    assert unseal(bytes(sealed), where="block", base=0) == block
    sealed[bit // 8 % len(sealed)] ^= 1 << bit % 8
    with pytest.raises(CorruptError, match="block at byte 0x0: CRC-32 is"):
        unseal(bytes(sealed), where="block", base=0)


@pytest.mark.parametrize("short", [b"", b"\0", b"\0\0\0"])
def test_a_seal_needs_its_four_bytes(short: bytes) -> None:
    with pytest.raises(CorruptError, match="CRC-32"):
        unseal(short, where="block", base=0)


def test_allowed_values_in_words() -> None:
    assert show_allowed(range(1, 4)) == "1..3"
    assert show_allowed((0, 1, 6)) == "0, 1, 6"
    assert show_allowed((b"\x89P",)) == "89 50"
    assert show_allowed((bytes(5),)) == "00 × 5"
    assert show_allowed(None) == ""
    assert U16.name == "u16"
