"""The pictures and clips that the GPU benchmark runs on, read without PyAV where the format allows it.

    python benchmarks/gpu_material.py FOLDER     writes what there is under PGSVC_DATA in formats that need no PyAV

PNG files are read with Pillow, y4m and raw video with the package's own reader; what needs PyAV is skipped, and said,
where PyAV is absent.  Roles are filled by what there is, see `Found`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from experiment import parser_of
from material import DATA, KODAK

from pgsvc_codec.errors import PgsError
from pgsvc_codec.media.sinks import open_sink
from pgsvc_codec.media.source import open_source
from pgsvc_codec.picture import Frame
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo

FULL_HD = (1920, 1080)
STEP = (4, 2)  # pixels to the right and down from frame to frame of a panned picture, even for the sake of chroma
MOST_FRAMES = 16  # read of a clip
_EMPTY = 0.5  # mean difference of neighbours, in code values, below which a picture shows next to nothing


@dataclass(frozen=True)
class Material:
    """Frames in memory, and what they are; the encoder reads them as a source."""

    name: str
    info: VideoInfo
    frames: Sequence[Frame]

    @property
    def frame_count(self) -> int:
        """Frames that iterating gives."""
        return len(self.frames)

    @property
    def still(self) -> bool:
        """Whether it is one picture."""
        return len(self.frames) == 1

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def first(self, count: int) -> Material:
        """A clip of the first frames."""
        return replace(self, frames=self.frames[:count])


class Found(NamedTuple):
    """What a folder has for each part of the benchmark; None and nothing where it has none."""

    full_hd: list[Material]  # frames of 1920x1080, the one that shows most first; see `find_material`
    stills: list[Material]  # photographs of one size, Kodak's where they are there
    clip: Material | None  # the largest one of several frames


def folder() -> Path:
    """Where material lies: $GPU_DATA, else the folder of all benchmarks."""
    return Path(os.environ["GPU_DATA"]) if os.environ.get("GPU_DATA") else DATA


def find_material(place: Path, stills: int = 12) -> Found:
    """Read what a folder and its folders hold; what cannot be read is named on stderr.

    Args:
        place: folder.
        stills: photographs wanted at most.

    Where no frame of 1920x1080 is there, or only such as show next to nothing, the largest other one is enlarged.
    """
    read = [material for path in sorted(place.rglob("*")) if path.is_file() and (material := _read(path)) is not None]
    clip = max((material for material in read if not material.still), key=_samples, default=None)
    large = [material for material in read if (material.info.width, material.info.height) == FULL_HD]
    frames = sorted((material.first(1) for material in large), key=variation, reverse=True)
    others = [material.first(1) for material in read if material not in large and material.info.depth == 8]
    if others and (not frames or variation(frames[0]) < _EMPTY):
        frames.insert(0, enlarged(max(others, key=_samples), FULL_HD))
    photographs = [material for material in read if material.still and material.info.chroma is Chroma.RGB]
    kodak = [material for material in photographs if material.name.startswith("kodim")]
    return Found(frames, (kodak or photographs)[:stills], clip)


def variation(material: Material) -> float:
    """Mean difference of neighbours in a row of the first plane, in code values."""
    return float(np.abs(np.diff(material.frames[0][0].astype(np.int32), axis=1)).mean())


def panned(still: Material, count: int) -> Material:
    """A clip of one picture whose view moves by whole pixels; what the picture does not have is mirrored."""

    def view(plane: np.ndarray, number: int) -> np.ndarray:
        step_x, step_y = (
            step * number * side // whole
            for step, side, whole in zip(STEP, plane.shape[::-1], (still.info.width, still.info.height), strict=True)
        )
        padded = np.pad(plane, ((0, step_y), (0, step_x)), mode="reflect")
        return np.ascontiguousarray(padded[step_y:, step_x:])

    planes = still.frames[0]
    name = f"{still.name} panned"
    return Material(name, still.info, [tuple(view(plane, number) for plane in planes) for number in range(count)])


def enlarged(material: Material, size: tuple[int, int]) -> Material:
    """The first frame at another size, by Pillow's Lanczos filter; its name says so."""
    from PIL import Image

    info = replace(material.info, width=size[0], height=size[1])
    planes = [
        np.asarray(Image.fromarray(plane).resize(shape[::-1], Image.Resampling.LANCZOS))
        for plane, shape in zip(material.frames[0], info.plane_shapes, strict=True)
    ]
    return Material(f"{Path(material.name).stem} enlarged", info, [tuple(planes)])


def _samples(material: Material) -> int:
    return material.info.width * material.info.height


def _read(path: Path) -> Material | None:
    """A picture or clip; None for what is neither."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".png":
            return _read_png(path)
        if suffix in (".y4m", ".yuv", ".mkv", ".mp4"):
            with open_source(str(path), frames=None if suffix == ".yuv" else MOST_FRAMES) as source:
                return Material(path.name, source.info, list(source))
    except (PgsError, ImportError, OSError) as error:
        print(f"skipped: {path.name}: {error}", file=sys.stderr)
    return None


def _read_png(path: Path) -> Material:
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    info = VideoInfo(width, height, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)
    return Material(path.name, info, [tuple(np.ascontiguousarray(pixels[..., plane]) for plane in range(3))])


def export(source: Path, target: Path) -> None:
    """Write pictures and clips that a machine without PyAV can read, and few enough to be carried to it."""
    target.mkdir(parents=True, exist_ok=True)
    for path in [*sorted(KODAK.glob("*.png")), *sorted(source.iterdir())]:
        material = _read(path) if path.is_file() else None
        if material is None or material.info.depth != 8:
            continue
        if path.suffix in (".png", ".yuv"):
            (target / path.name).write_bytes(path.read_bytes())
        else:
            with open_sink("y4m", str(target / f"{path.stem}.y4m"), material.info) as sink:
                for frame in material.frames:
                    sink.write(frame)


def main() -> None:
    """Fill a folder for GPU_DATA."""
    parser = parser_of(__doc__)
    parser.add_argument("target", type=Path)
    export(DATA, parser.parse_args().target)


if __name__ == "__main__":
    main()
