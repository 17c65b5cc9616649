"""What a picture sequence *is*: size, rate, chroma, depth and colour, and the one formula for the size of a frame.

Stdlib only, so that file names, headers and options can be reasoned about without arrays.  The numbers of
`Matrix` are those of ITU-T H.273 (CICP); they go into the stream as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from fractions import Fraction

from pgsvc_codec.errors import ConfigError


class Chroma(IntEnum):
    """Which planes a frame has, and how the second and third are subsampled.  Values are on the wire."""

    GRAY = 0
    YUV420 = 1
    YUV422 = 2
    YUV444 = 3
    RGB = 4

    @property
    def num_planes(self) -> int:
        """1 for gray, else 3."""
        return 1 if self is Chroma.GRAY else 3

    @property
    def shift(self) -> tuple[int, int]:
        """log2 of the chroma subsampling, horizontal then vertical."""
        return {Chroma.YUV420: (1, 1), Chroma.YUV422: (1, 0)}.get(self, (0, 0))


class Matrix(IntEnum):
    """Matrix coefficients (CICP, H.273 table 4)."""

    RGB = 0
    BT709 = 1
    BT601 = 6
    BT2020NC = 9


class Siting(IntEnum):
    """Where a subsampled chroma sample lies among the luma samples (values as H.273 chroma_sample_loc_type)."""

    LEFT = 0  # MPEG-2, H.264, HEVC default: on the left luma column, between the rows
    CENTER = 1  # JPEG, MPEG-1: between columns and rows
    TOP_LEFT = 2  # BT.2020: on the luma sample


class Range(Enum):
    """Span of the code values."""

    LIMITED = "limited"
    FULL = "full"


# ffmpeg's names; 10-bit planes are little-endian 16-bit words.
PIX_FMTS: dict[str, tuple[Chroma, int]] = {
    "gray": (Chroma.GRAY, 8),
    "gray10le": (Chroma.GRAY, 10),
    "yuv420p": (Chroma.YUV420, 8),
    "yuv420p10le": (Chroma.YUV420, 10),
    "yuv422p": (Chroma.YUV422, 8),
    "yuv422p10le": (Chroma.YUV422, 10),
    "yuv444p": (Chroma.YUV444, 8),
    "yuv444p10le": (Chroma.YUV444, 10),
    "rgb24": (Chroma.RGB, 8),
}
_PIX_FMT_OF = {value: name for name, value in PIX_FMTS.items()}

MAX_SIDE = 16384  # pixels; bitstream_spec.md, "Limits"
UNSPECIFIED = 2  # CICP code for "unspecified" primaries and transfer


@dataclass(frozen=True)
class VideoInfo:
    """Geometry, rate and colour of a sequence of frames.

    A *frame* is a tuple of planes, NumPy arrays of shape ``plane_shapes[i]`` (rows, columns), uint8 at depth 8 and
    uint16 at depth 10: (Y,), (Y, Cb, Cr) or (R, G, B).

    Raises:
        ConfigError: a size, rate or depth is out of range, or RGB and the matrix contradict each other.
    """

    width: int  # luma samples, 1..MAX_SIDE
    height: int
    rate: Fraction = Fraction(25)  # frames per second
    chroma: Chroma = Chroma.YUV420
    depth: int = 8  # bits per sample, 8 or 10
    matrix: Matrix = Matrix.BT709
    range: Range = Range.LIMITED
    siting: Siting = Siting.LEFT
    primaries: int = UNSPECIFIED  # CICP
    transfer: int = UNSPECIFIED  # CICP

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            side = getattr(self, name)
            if not 1 <= side <= MAX_SIDE:
                raise ConfigError(f"video {name}: got {side}, allowed 1..{MAX_SIDE}")
        if self.rate <= 0:
            raise ConfigError(f"video rate: got {self.rate}, allowed > 0")
        if (self.chroma, self.depth) not in _PIX_FMT_OF:
            raise ConfigError(
                f"video format: {self.chroma.name} at {self.depth} bits is not supported, allowed {', '.join(PIX_FMTS)}"
            )
        if (self.chroma is Chroma.RGB) != (self.matrix is Matrix.RGB):
            raise ConfigError(f"video matrix: {self.matrix.name} does not go with {self.chroma.name} planes")

    @property
    def pix_fmt(self) -> str:
        """ffmpeg's name of the planes' layout."""
        return _PIX_FMT_OF[self.chroma, self.depth]

    @property
    def max_code(self) -> int:
        """Largest code value: 255 or 1023."""
        return (1 << self.depth) - 1

    @property
    def plane_shapes(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each plane; an odd side keeps its last chroma sample."""
        shift_x, shift_y = self.chroma.shift
        chroma = (-(-self.height >> shift_y), -(-self.width >> shift_x))
        return ((self.height, self.width),) + (chroma,) * (self.chroma.num_planes - 1)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one raw planar frame."""
        samples = sum(rows * columns for rows, columns in self.plane_shapes)
        return samples * (1 if self.depth == 8 else 2)


def guess_matrix(height: int) -> Matrix:
    """The matrix of untagged Y'CbCr material: BT.709 from 720 rows on, BT.601 below (users' convention)."""
    return Matrix.BT709 if height >= 720 else Matrix.BT601
