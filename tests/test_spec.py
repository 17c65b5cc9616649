"""bitstream_spec.md against the code: every table of fields, every limit, the version, in both directions."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from pgsvc_codec.format import constants, container, header, segments
from pgsvc_codec.format.fields import Record

SPEC = (Path(__file__).parents[1] / "bitstream_spec.md").read_text(encoding="utf-8")


def declared_records() -> dict[str, type[Record]]:
    kinds = [kind for module in (header, segments) for kind in vars(module).values() if isinstance(kind, type)]
    return {kind.NAME: kind for kind in kinds if issubclass(kind, Record) and kind is not Record}


def table_rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the rows below a table's heading line, blanks stripped."""
    lines = text[text.index(heading) + len(heading) :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def described_records() -> dict[str, list[list[str]]]:
    heading = "| field | type | allowed | meaning |"
    parts = re.split(r"^Record \*\*(.+?)\*\*:$", SPEC, flags=re.MULTILINE)
    return {name: table_rows(text, heading) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_the_spec_has_a_table_for_every_record_and_no_other() -> None:
    assert sorted(described_records()) == sorted(declared_records())


@pytest.mark.parametrize("name", sorted(declared_records()))
def test_fields_types_and_allowed_values_agree(name: str) -> None:
    rows = described_records()[name]
    assert [tuple(row[:3]) for row in rows] == declared_records()[name].table()
    assert all(row[3] for row in rows)


def test_limits_agree() -> None:
    described = {name: int(value) for name, value, _ in table_rows(SPEC, "| limit | value | of |")}
    assert described == {name: value for name, value in vars(constants).items() if name.startswith("MAX_")}


def test_versions_agree() -> None:
    assert SPEC.startswith(f"# The PGS bitstream, version {constants.VERSION}\n")
    assert table_rows(SPEC, "| version | changes |")[0][0] == str(constants.VERSION)


def test_tags_agree() -> None:
    described = {tag.encode(): name for tag, name, _ in table_rows(SPEC, "| tag | record | how often |")}
    assert described == {tag: kind.NAME for tag, kind in header._RECORDS.items()}


def test_sizes_in_the_text_agree() -> None:
    assert "sealed file header, 32 bytes" in SPEC
    assert header.FILE_HEADER_BYTES == 32
    assert "A sealed segment header (20 bytes)" in SPEC
    assert segments.SEGMENT_HEADER_BYTES == 20
    assert "gop × num_layers × 25 bytes" in SPEC
    assert segments.MIN_SEGMENT_BYTES == 25
    assert "trailer, the last 8 bytes" in SPEC
    assert segments.Trailer.min_bytes() == 8


def test_every_section_says_something() -> None:
    sections = re.split(r"^## (.+)$", SPEC, flags=re.MULTILINE)[1:]
    numbers = [title.split(".")[0] for title in sections[::2]]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert all(body.strip() for body in sections[1::2])


def test_the_example_is_what_the_writer_writes() -> None:
    rows = [line for line in SPEC.split("## 12. Example")[1].splitlines() if line.startswith("    ")]
    data = b""
    for row in rows:
        assert int(row[4:8], 16) == len(data)
        data += bytes.fromhex(row[10:34])
    reader = container.StreamReader(data)
    assert reader.read_segment(0, 0) == [b"", b""]
    sink = io.BytesIO()
    with container.StreamWriter(sink, reader.header, progression="gop", seekable=True) as writer:
        writer.write_gop(container.Gop(0, [container.LayerSegment([b"", b""], 0, 12.34)]))
    assert sink.getvalue() == data
