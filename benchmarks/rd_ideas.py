"""What the ideas of the `main` profile gain: encodes without one of them, or with another choice, against the default.

    python benchmarks/rd_ideas.py [FILE ..] [--ideas NAME ..] [--quality 35 55 75] [--preset fast]

Of stills the middle 384x256 are taken, of clips the middle 480x270 of the first 9 frames; by default of some Kodak
pictures, bunny and park_joy.  Rows go to `results/rd-ideas.tsv`, one per source, idea, quality and level; those that
are there are not measured again.  Then `results/rd-ideas-bd.tsv` has the BD-rate of each idea against the default over
all qualities that both reach, mean over sources: more than 0 is what leaving the default costs.  Bytes are those of
whole streams.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple
from unittest.mock import patch

import experiment
import numpy as np
from curves import Curve, bd_rate
from experiment import LAYERS
from material import DATA, KODAK, find, is_picture
from results_file import RESULTS, ResultsFile, read_rows

from pgsvc_codec.config import PRESETS, EncodeConfig
from pgsvc_codec.encoder import EncodeReport, encode, main
from pgsvc_codec.media.source import open_source
from pgsvc_codec.picture import Frame
from pgsvc_codec.train.main import aim, alternate, fit, gop, inter, refine
from pgsvc_codec.video import VideoInfo

STILLS = [KODAK / f"kodim{number:02d}.png" for number in (1, 7, 13, 23)]
CLIPS = [DATA / "bunny_1280x720_32f.mkv", DATA / "park_joy_480x270_10f.y4m"]
FRAMES = 9
CROPS = {True: (384, 256), False: (480, 270)}  # width and height, of stills and of clips
DEFAULT = "default"
KEYS = ["source", "idea", "quality", "preset"]
COLUMNS = [*KEYS, "level", "size_bytes", "psnr", "seconds"]
BD_COLUMNS = ["idea", "kind", "level", "sources", "bd_rate"]


class Idea(NamedTuple):
    """Something else than the default."""

    patches: Callable[[], AbstractContextManager[Any]] = nullcontext
    options: dict[str, Any] = {}  # noqa: RUF012
    stills: bool = True  # what it is tried on
    clips: bool = False


def _set(target: object, **values: Any) -> Callable[[], AbstractContextManager[Any]]:
    """Attributes of a module or class while a stream is encoded."""
    return lambda: patch.multiple(target, **values)


def _to_lattice(*arguments: Any, rounds: int, most: int | None, passes: int, **options: Any) -> Any:
    """As `alternate`, but every splat goes to the lattice point nearest to it."""
    return refine.refine_intra(*arguments, passes=0, **options)


def _any_shares(*arguments: Any, shares: Sequence[float], **options: Any) -> Any:
    return alternate.alternate(*arguments, **options)


IDEAS = {
    DEFAULT: Idea(clips=True),
    "splats rounded, not refined": Idea(_set(main, alternate=_to_lattice)),
    "one refinement, no fits in between": Idea(_set(main, _rounds=lambda iterations: 0)),
    "12 rounds of fit and refinement": Idea(_set(main, _rounds=lambda iterations: 12)),
    "no births in refinement": Idea(_set(refine, _BIRTHS=0.0)),
    "lambda halved": Idea(_set(fit, REFINED_PRICE=fit.REFINED_PRICE / 2)),
    "lambda doubled": Idea(_set(fit, REFINED_PRICE=fit.REFINED_PRICE * 2)),
    "coded at D of the fit": Idea(_set(aim, CODED_STEP=1.0)),
    "coded at twice D": Idea(_set(aim, CODED_STEP=2.0)),
    "coded at thrice D": Idea(_set(aim, CODED_STEP=3.0)),
    "no rate in the float fit": Idea(_set(fit, PRICE=1e-6)),
    "one D for all layers": Idea(_set(aim.Aim, step_ratios=property(lambda self: np.ones(len(self.shares))))),
    "shares as they come": Idea(_set(main, alternate=_any_shares)),
    "one layer": Idea(options={"layers": 1}),
    "100 iterations": Idea(options={"iterations": 100}),
    "1500 iterations": Idea(options={"iterations": 1500}),
    "P-frames alone": Idea(_set(main, choose_distance=lambda *_: 1), stills=False, clips=True),
    "anchors always 8 apart": Idea(_set(main, choose_distance=lambda *_: 8), stills=False, clips=True),
    "no splats reborn or added": Idea(_set(inter, _FIRST_BIRTHS=2.0, _LAST_BIRTHS=3.0), stills=False, clips=True),
    "6 passes of refinement": Idea(_set(main, Effort=partial(gop.Effort, passes=6)), stills=False, clips=True),
    "quality not held": Idea(_set(main, held_price=lambda *_: 1.0), stills=False, clips=True),
    "I-frame no finer": Idea(_set(main, _FINER=1.0), stills=False, clips=True),
}


class Crop:
    """The middle of a file's frames, as a source."""

    def __init__(self, path: Path) -> None:
        self.still = is_picture(path)
        with open_source(str(path), frames=None if self.still else FRAMES) as source:
            info, frames = source.info, list(islice(source, FRAMES))
        width, height = map(min, CROPS[self.still], (info.width, info.height))
        self.info: VideoInfo = replace(info, width=width, height=height)
        self.frame_count = len(frames)
        self._frames = [tuple(map(self._cut, frame, self.info.plane_shapes)) for frame in frames]

    @staticmethod
    def _cut(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        top, left = ((have - want) // 2 for have, want in zip(plane.shape, shape, strict=True))
        return np.ascontiguousarray(plane[top : top + shape[0], left : left + shape[1]])

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)


def measure(source: Crop, idea: Idea, quality: float, preset: str) -> EncodeReport:
    """Encode a source that way."""
    options = {"layers": LAYERS, "quality": quality, "preset": preset, "keyint": None if source.still else FRAMES}
    with ExitStack() as stack:
        stack.enter_context(idea.patches())
        return encode(source, io.BytesIO(), EncodeConfig(**(options | {"scenecut": 0.0} | idea.options)))


def compare(rows: Sequence[dict[str, str]]) -> None:
    """BD-rates of all ideas that have rows."""
    points: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for row in rows:
        level = int(row["level"]) - LAYERS  # from the top, where streams of one layer have theirs too
        level += LAYERS - IDEAS[row["idea"]].options.get("layers", LAYERS)
        points.setdefault((row["idea"], row["source"], level), []).append(
            (float(row["size_bytes"]), float(row["psnr"]))
        )
    curves = {key: Curve.of(values) for key, values in points.items()}
    with ResultsFile("rd-ideas-bd", BD_COLUMNS) as results:
        for idea in IDEAS:
            for kind, is_still in (("stills", True), ("clips", False)):
                for level in (0, -1, -2):
                    found = []
                    for source in sorted({key[1] for key in points if is_picture(Path(key[1])) == is_still}):
                        anchor, test = curves.get((DEFAULT, source, level)), curves.get((idea, source, level))
                        if anchor and test and idea != DEFAULT and anchor.reach.shared(test.reach).width > 0:
                            found.append(bd_rate(anchor, test, anchor.reach.shared(test.reach)))
                    if found:
                        results.add(
                            idea=idea, kind=kind, level=LAYERS + level, sources=len(found), bd_rate=fmean(found)
                        )


def run() -> None:
    """Measure what has no row yet, and compare."""
    parser = experiment.parser_of(__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--ideas", nargs="+", choices=IDEAS, default=list(IDEAS), metavar="NAME")
    parser.add_argument("--quality", type=float, nargs="+", default=[35.0, 55.0, 75.0])
    parser.add_argument("--preset", choices=list(PRESETS), default="fast")
    options = parser.parse_args()
    files = find(options.files or [*STILLS, *CLIPS], suffixes=())
    with ResultsFile("rd-ideas", COLUMNS, [*KEYS, "level"]) as results:
        for name in dict.fromkeys([DEFAULT, *options.ideas]):
            idea = IDEAS[name]
            for path in files:
                if not (idea.stills if is_picture(path) else idea.clips):
                    continue
                source = None
                for quality in options.quality:
                    keys = {"source": path.name, "idea": name, "quality": quality, "preset": options.preset}
                    if results.has(**keys, level=1):
                        continue
                    source = source or Crop(path)
                    report = measure(source, idea, quality, options.preset)
                    for level in report.levels:
                        facts = {"size_bytes": level.size_bytes, "psnr": level.psnr, "seconds": report.seconds}
                        results.add(**keys, level=level.layers, **facts)
    compare(read_rows(RESULTS / "rd-ideas.tsv"))


if __name__ == "__main__":
    experiment.run(run)
