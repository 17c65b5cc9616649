"""Numbers of the container: magics, wire values and limits (bitstream_spec.md, sections 3 to 5 and "Limits").

Wire values of chroma, matrix and siting are those of `pgsvc_codec.video`; a test holds the two together.
"""

from __future__ import annotations

VERSION = 0

MAGIC = b"\x89PGS\r\n\x1a\n"  # a byte above 127, CR LF and LF show damage by text-mode transfers, as in PNG
SEGMENT_MARKER = b"\xc5SEG"
TRAILER_MAGIC = b"PGSX"

FLAG_LAYER_ORDER = 0x01  # of the file header: segments lie layer by layer
FLAG_INDEX_IN_FRONT = 0x02  # of the file header: the index follows the stream header
FLAG_KEY = 0x01  # of a GOP: it begins with an I-frame and needs nothing outside itself
FLAG_SCENE_CUT = 0x02  # of a GOP: it begins a new scene

TAG_VIDEO = b"VIDE"  # a tag whose first letter is a capital must be understood
TAG_LAYERS = b"LAYR"
TAG_PROFILE = b"PROF"
TAG_ENCODER = b"encd"

QUALITY, RESOLUTION = 0, 1
SCALABILITY_NAMES = {QUALITY: "quality", RESOLUTION: "resolution"}
BASELINE, MAIN = 0, 1
PROFILE_NAMES = {BASELINE: "baseline", MAIN: "main"}

CHROMA_RGB = 4
CHROMA_NAMES = {0: "gray", 1: "yuv420p", 2: "yuv422p", 3: "yuv444p", CHROMA_RGB: "rgb24"}  # ffmpeg's, at 8 bits
DEPTH_SUFFIXES = {8: "", 10: "10le"}
MATRIX_RGB = 0
MATRIX_NAMES = {MATRIX_RGB: "rgb", 1: "bt709", 6: "bt601", 9: "bt2020nc"}
RANGE_NAMES = {0: "limited", 1: "full"}
SITING_NAMES = {0: "left", 1: "center", 2: "top_left"}

MAX_SIDE = 16384
MAX_LAYERS = 8
MAX_GOPS = 1 << 20
MAX_GOP_FRAMES = 1024
MAX_SPLATS = 1 << 20
MAX_STREAM_HEADER_BYTES = 1 << 16
MAX_INDEX_BYTES = 1 << 28
MAX_BODY_BYTES = 1 << 30
MAX_PSNR = 20000
