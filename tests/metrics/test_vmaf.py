"""VMAF, by a real ffmpeg: its values, its failures, and what it leaves behind."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest

from pgsvc_codec.errors import BackendError, InputError
from pgsvc_codec.metrics.vmaf import MIN_SIDE, VmafMeter, find_ffmpeg

ROWS, COLUMNS = 65, 97  # odd, so that chroma has a half sample more


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A temporary folder that a test can look into, and a PATH without ffmpeg."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def put_ffmpeg(folder, *lines):
    """A program called ffmpeg."""
    path = folder / "ffmpeg"
    path.write_text("\n".join([f"#!{sys.executable}", "import os, sys", *lines]))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def luma(frame: int, noise: float, max_code: int = 255, shape=(ROWS, COLUMNS)):
    """A pattern that moves, under noise of a strength."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    value = 120 + 50 * np.sin((x + 2 * frame) / 7) * np.cos(y / 5) + 30 * ((x + frame) // 8 % 2)
    value = (value + np.random.default_rng(frame).normal(0, 1, x.shape) * noise) * max_code / 255
    return np.clip(np.round(value), 0, max_code).astype(np.uint8 if max_code == 255 else np.uint16)


def scores(noises, max_code=255, shape=(ROWS, COLUMNS)):
    with VmafMeter(max_code, threads=2) as meter:
        for frame, noise in enumerate(noises):
            meter.add(luma(frame, 0, max_code, shape), luma(frame, noise, max_code, shape))
        return meter.finish()


@pytest.mark.parametrize("max_code", [255, 1023])
def test_equal_frames_score_high_and_noise_lowers_it(max_code):
    measured = scores([0, 0, 0, 10, 25, 60], max_code)
    assert len(measured) == 6
    assert min(measured[:3]) > 95
    assert 95 > measured[3] > measured[4] + 5 > measured[5] + 10


def test_it_is_what_ffmpeg_says_of_two_files(tmp_path):
    noises = [0, 12, 5, 30]
    names = {"reference": tmp_path / "reference.y4m", "distorted": tmp_path / "distorted.y4m"}
    for name, path in names.items():
        neutral = np.full(2 * -(-ROWS // 2) * -(-COLUMNS // 2), 128, np.uint8).tobytes()
        frames = (luma(frame, noise * (name == "distorted")) for frame, noise in enumerate(noises))
        data = b"".join(b"FRAME\n" + frame.tobytes() + neutral for frame in frames)
        path.write_bytes(f"YUV4MPEG2 W{COLUMNS} H{ROWS} F25:1 Ip C420jpeg\n".encode() + data)
    command = [find_ffmpeg(), "-v", "error", "-i", names["distorted"], "-i", names["reference"]]
    command += ["-lavfi", "libvmaf=log_fmt=json:log_path=log.json", "-f", "null", "-"]
    subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, check=True)
    direct = [frame["metrics"]["vmaf"] for frame in json.loads((tmp_path / "log.json").read_text())["frames"]]
    assert scores(noises) == pytest.approx(direct, abs=1e-4)


def test_small_frames_are_refused_at_the_limit():
    shape = (MIN_SIDE, MIN_SIDE)
    with VmafMeter(255) as meter:
        meter.add(luma(0, 0, shape=shape), luma(0, 0, shape=shape))
        assert len(meter.finish()) == 1
    with VmafMeter(255) as meter, pytest.raises(InputError, match=r"^VMAF: got 17x16, allowed sides of 17 and more$"):
        meter.add(luma(0, 0, shape=(16, 17)), luma(0, 0, shape=(16, 17)))


def test_nothing_measured_is_nothing():
    with VmafMeter(255) as meter:
        assert meter.finish() == []


def test_nothing_stays_behind(places):
    meter = VmafMeter(255)
    meter.add(luma(0, 0), luma(0, 0))
    assert len(list((places / "temporary").iterdir())) == 1
    meter.close()
    assert list((places / "temporary").iterdir()) == []
    scores([0])
    assert list((places / "temporary").iterdir()) == []


def test_an_ffmpeg_with_libvmaf_on_the_path_comes_first(places):
    path = put_ffmpeg(places / "bin", "print(' .. libvmaf  VV->V  Calculate the VMAF.')")
    assert find_ffmpeg() == str(path)
    put_ffmpeg(places / "bin", "print(' .. vmafmotion  V->V  Calculate the VMAF Motion score.')")
    assert find_ffmpeg() not in (str(path), None)


def test_what_is_missing_is_named(places, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    needs = "^VMAF: needs an ffmpeg with libvmaf, got"
    with pytest.raises(
        BackendError, match=f"{needs} none on PATH and no imageio-ffmpeg; the extra metrics brings one$"
    ):
        VmafMeter(255)
    put_ffmpeg(places / "bin", "print('nothing')")
    with pytest.raises(BackendError, match=f"{needs} .*/bin/ffmpeg without it and no imageio-ffmpeg; "):
        VmafMeter(255)


HAS_LIBVMAF = "if '-filters' in sys.argv: print(' .. libvmaf'); sys.exit()"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sys.exit('no such filter\\nno luck')", "ffmpeg returned 1: no luck$"),
        ("os.kill(os.getpid(), 11)", "ffmpeg was ended by signal 11: it says nothing$"),
        ("open('vmaf.json', 'w').write('{\"frames\": []}'); sys.stdin.buffer.read()", "ffmpeg measured 0 of 9 frames$"),
    ],
)
def test_failures_of_ffmpeg(line, message, places):
    put_ffmpeg(places / "bin", HAS_LIBVMAF, line)
    with pytest.raises(BackendError, match=f"^VMAF: .*/bin/{message}"):
        scores([0] * 9, shape=(200, 200))  # more than fits into a pipe
    assert list((places / "temporary").iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="no SIGPIPE on this platform")
def test_a_process_that_dies_of_broken_pipes_does_not_die_of_that_of_ffmpeg(places):
    put_ffmpeg(places / "bin", HAS_LIBVMAF, "sys.exit('no luck')")
    program = """
import signal
import numpy as np
from pgsvc_codec.errors import BackendError
from pgsvc_codec.metrics.vmaf import VmafMeter
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
plane = np.zeros((300, 300), np.uint8)
with VmafMeter(255) as meter:
    try:
        for _ in range(9):
            meter.add(plane, plane)
    except BackendError as error:
        print(error)
signal.raise_signal(signal.SIGPIPE)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("ffmpeg returned 1: no luck\n")
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")
