"""Streams of one source, written by the encoder and measured from their bytes.

They are kept in `benchmarks/work/streams`, so that a run that was interrupted, or one figure after another, need not
encode again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from progress import Ticker
from quality import LevelMeter, Quality
from results_file import WORK

from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.decoder import Decoder
from pgsvc_codec.describe import describe_file
from pgsvc_codec.encoder import Progress, encode, encode_monolithic
from pgsvc_codec.media.source import open_source
from pgsvc_codec.render.backend import load
from pgsvc_codec.train.levels import LevelSizes

_SPENT = "seconds.txt"


@dataclass(frozen=True)
class LevelStream:
    """Where one level is found."""

    path: Path
    layers: int  # to decode of it

    def describe(self) -> dict[str, Any]:
        """What the file says of the level, see `describe_file`: its bytes, bits per pixel, kb/s, splats."""
        described: dict[str, Any] = describe_file(self.path)["levels"][self.layers - 1]
        return described


@dataclass(frozen=True)
class Encoded:
    """All levels of a source."""

    levels: list[LevelStream]
    seconds: float  # of encoding, as it was when it was done


def encode_levels(path: Path, frames: int | None, config: EncodeConfig) -> Encoded:
    """Encode a source, or take the streams from an earlier run; `monolithic` is a stream per level."""
    count = config.layers if config.strategy == "monolithic" else 1
    folder = WORK / "streams" / f"{path.stem}-{_fingerprint(path, frames, config)}"
    names = [f"{number}.pgs" for number in range(1, count + 1)]
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        seconds = _encode(path, frames, config, [partial / name for name in names])
        (partial / _SPENT).write_text(str(seconds), encoding="utf-8")
        partial.rename(folder)
    levels = [
        LevelStream(folder / names[min(level, count) - 1], 1 if count > 1 else level)
        for level in range(1, config.layers + 1)
    ]
    return Encoded(levels, float((folder / _SPENT).read_text(encoding="utf-8")))


def measure_levels(path: Path, frames: int | None, encoded: Encoded) -> list[Quality]:
    """What decoders show of every level."""
    with ExitStack() as stack:
        source = stack.enter_context(open_source(str(path), frames=frames))
        decoders = [stack.enter_context(Decoder(level.path)) for level in encoded.levels]
        sizes = [decoder.level_size(level.layers) for decoder, level in zip(decoders, encoded.levels, strict=True)]
        meters = [
            stack.enter_context(LevelMeter(replace(source.info, width=width, height=height))) for width, height in sizes
        ]
        shown = [decoder.frames(layers=level.layers) for decoder, level in zip(decoders, encoded.levels, strict=True)]
        references = LevelSizes(source.info, sizes, load("cpu")).references
        for frame, *pictures in zip(source, *shown, strict=True):
            for meter, reference, picture in zip(meters, references(frame), pictures, strict=True):
                meter.add(reference, picture.planes)
        return [meter.finish() for meter in meters]


def _encode(path: Path, frames: int | None, config: EncodeConfig, names: list[Path]) -> float:
    """Write streams; seconds."""
    with ExitStack() as stack:
        source = stack.enter_context(open_source(str(path), frames=frames))
        sinks = [stack.enter_context(name.open("w+b")) for name in names]
        ticker = Ticker(f"{path.name}, {config.splats} splats, {config.strategy}", source.frame_count)

        def follow(progress: Progress) -> None:
            ticker.tick(progress.frames, f"{progress.size_bytes} bytes, PSNR {progress.psnr:.2f}")

        if len(sinks) > 1:
            return encode_monolithic(source, sinks, config, progress=follow)[-1].seconds
        return encode(source, sinks[0], config, progress=follow).seconds


def _fingerprint(path: Path, frames: int | None, config: EncodeConfig) -> str:
    """Of everything that decides a stream, but for the code; of the source, what tells that a file has changed."""
    facts = path.stat()
    told = [config.__dict__, frames, path.name, facts.st_size, facts.st_mtime_ns]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
