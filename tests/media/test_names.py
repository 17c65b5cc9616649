from fractions import Fraction

import pytest

from pgsvc_codec.media.names import NameFacts, facts_from_name

NAMES = [
    ("Beauty_1920x1080_120fps_420_8bit_YUV.yuv", (1920, 1080), 120, "yuv420p"),  # UVG
    ("HoneyBee_3840x2160_120fps_420_10bit_YUV.yuv", (3840, 2160), 120, "yuv420p10le"),
    ("BasketballDrive_1920x1080_50.yuv", (1920, 1080), 50, None),  # JCT-VC
    ("BasketballPass_416x240_50.yuv", (416, 240), 50, None),
    ("PeopleOnStreet_2560x1600_30_crop.yuv", (2560, 1600), 30, None),
    ("Tango2_3840x2160_60fps_10bit_420.yuv", (3840, 2160), 60, "yuv420p10le"),  # JVET
    ("x_1920x1080_24p_yuv420_8b.yuv", (1920, 1080), 24, "yuv420p"),  # Cool-Chic
    ("x_2160x1440_60_8b.yuv", (2160, 1440), 60, "yuv420p"),  # YUView
    ("x_1080p50.yuv", (1920, 1080), 50, None),
    ("park_joy_720p.yuv", (1280, 720), None, None),
    ("foreman_cif.yuv", (352, 288), None, None),
    ("carphone_qcif_30fps.yuv", (176, 144), 30, None),
    ("x_640x480_yuv420p10le.yuv", (640, 480), None, "yuv420p10le"),  # ffmpeg
    ("x_640x480_I420_10LE.yuv", (640, 480), None, "yuv420p10le"),  # GStreamer
    ("x_1280x720_29.97fps_422_10bit.yuv", (1280, 720), Fraction(30000, 1001), "yuv422p10le"),
    ("x_1280x720_23.976_444.yuv", (1280, 720), Fraction(24000, 1001), "yuv444p"),
    ("x_1920x1080_59.94hz_12bits.yuv", (1920, 1080), Fraction(60000, 1001), "yuv420p12le"),
    ("x_352x288_400.yuv", (352, 288), None, "gray"),
    ("x_352x288_gray10le.raw", (352, 288), None, "gray10le"),
    ("x_352x288_rgb24.rgb", (352, 288), None, "rgb24"),
    ("x_352x288p25_p422.yuv", (352, 288), 25, "yuv422p"),
    ("x_352x288_yuv420p10be.yuv", (352, 288), None, "yuv420p10be"),
    ("archer_1920x1080_1f_420_8bit.yuv", (1920, 1080), None, "yuv420p"),
    ("src01_576x324_3f_420_10le.yuv", (576, 324), None, "yuv420p10le"),
]

SILENT = [
    "clip.yuv",
    "take_50_420.yuv",  # a take number is no rate, nor 420 a chroma format, without a size
    "pacific.yuv",  # not cif
    "x_1x1.yuv",
    "v2.10b3.yuv",
]


@pytest.mark.parametrize(("name", "size", "fps", "pix_fmt"), NAMES)
def test_names_of_test_sequences(name, size, fps, pix_fmt):
    facts = facts_from_name(f"anywhere/{name}")
    assert (facts.size, facts.fps, facts.pix_fmt) == (size, fps, pix_fmt)


@pytest.mark.parametrize(("name", "size", "fps", "pix_fmt"), NAMES)
def test_the_folder_speaks_where_the_name_is_silent(name, size, fps, pix_fmt):
    facts = facts_from_name(f"{name}/clip.yuv")  # folders keep what looks like an extension
    stem_facts = facts_from_name(f"{name.rsplit('.', 1)[0]}/clip.yuv")
    assert facts.size == stem_facts.size == size
    assert (stem_facts.fps, stem_facts.pix_fmt) == (fps, pix_fmt)


@pytest.mark.parametrize("name", SILENT)
def test_silent_names(name):
    assert facts_from_name(name) == NameFacts()


def test_the_base_name_beats_the_folder():
    facts = facts_from_name("Beauty_1920x1080_120fps_420_8bit/part_64x48_422.yuv")
    assert (facts.size, facts.fps, facts.pix_fmt) == ((64, 48), 120, "yuv422p")


def test_a_depth_in_front_of_the_size_counts():
    assert facts_from_name("x_10bit_64x48.yuv").pix_fmt == "yuv420p10le"


def test_depth_of_the_folder_joins_chroma_of_the_name():
    assert facts_from_name("10bit/x_64x48_422.yuv").pix_fmt == "yuv422p10le"
