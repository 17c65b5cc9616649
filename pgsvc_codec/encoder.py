"""Frames in, a `.pgs` stream out: decides frame types, has frames fitted, codes them and writes GOPs.

The loop is closed: a P-frame is fitted from what the decoder will have, and the PSNR reported is that of the
decoder's own pictures.  One frame is in memory beside its predecessor's luma, so clips may be of any length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec import __version__
from pgsvc_codec.coding.baseline.payload import LayerEncoder
from pgsvc_codec.coding.baseline.quant import QuantTables
from pgsvc_codec.config import EncodeConfig, EncodePlan
from pgsvc_codec.errors import ConfigError
from pgsvc_codec.format.constants import SCALABILITY_NAMES
from pgsvc_codec.format.container import Gop, LayerSegment, StreamWriter
from pgsvc_codec.format.header import EncoderRecord, LayersRecord, LevelRecord, StreamHeader, VideoRecord
from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.picture import Frame, check_frame
from pgsvc_codec.render.backend import load
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.fit import fit_inter, fit_intra
from pgsvc_codec.train.keyframes import KeyframeRule, is_foreign, keyframe_rule
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.motion import Motion, estimate_motion
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.stack import FloatFit, FrameFit, Reference
from pgsvc_codec.video import Chroma, Range, VideoInfo


class FrameSource(Protocol):
    """What `encode` reads: `media.open_source` gives one, any object of this shape will do."""

    info: VideoInfo
    frame_count: int | None  # None where nobody knows yet
    still: bool  # a single picture rather than a clip of one frame

    def __iter__(self) -> Iterator[Frame]: ...


class Progress(NamedTuple):
    """Where an encode stands, after each frame."""

    frames: int  # done
    frame_count: int | None  # in all, if known
    size_bytes: int  # of payloads so far
    psnr: float  # dB, all layers, over the frames done
    seconds: float


class LevelReport(NamedTuple):
    """One level of a finished stream, cumulative over its layers."""

    layers: int
    width: int  # of its pictures
    height: int
    splats: int  # summed over frames
    size_bytes: int  # of headers, index and the segments that the level needs
    psnr: float  # dB, see `PsnrMeter.combined`
    psnr_planes: tuple[float, ...]


class EncodeReport(NamedTuple):
    """What `encode` did."""

    frames: int
    size_bytes: int  # of the whole stream
    levels: tuple[LevelReport, ...]
    gops: int
    seconds: float
    device: str
    plan: EncodePlan


@dataclass
class _OpenGop:
    """The GOP being coded."""

    first_frame: int
    scene_cut: bool
    coders: list[LayerEncoder]
    payloads: list[list[bytes]]  # per layer, per frame
    splats: list[int]  # per layer, summed over frames
    meters: list[PsnrMeter]  # per level
    tables_intra: list[QuantTables] = field(default_factory=list)
    tables_inter: list[QuantTables] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return len(self.payloads[0])

    @property
    def reference(self) -> list[Splats]:
        """What the decoder has after the last frame, layer by layer."""
        decoded = [coder.decoded for coder in self.coders]
        assert all(splats is not None for splats in decoded), "no frame has been coded"
        return [splats for splats in decoded if splats is not None]


class _Job(NamedTuple):
    """One stream to write."""

    info: VideoInfo
    plan: EncodePlan
    device: str
    sink: BinaryIO
    start: FloatFit | None = None


class _Encoder:
    """State of one `encode`."""

    def __init__(self, job: _Job, writer: StreamWriter) -> None:
        info, plan = job.info, job.plan
        self.info = info
        self.plan = plan
        self.writer = writer
        self.levels = LevelSizes(info, plan.level_sizes, load(job.device))
        self._start = job.start
        self.num_layers = plan.num_layers
        self.frames = 0
        self.gops = 0
        self.payload_bytes = 0
        self.splats = [0] * self.num_layers
        self.meters = self._new_meters()
        self._keyframes: KeyframeRule = keyframe_rule(plan)
        self._gop: _OpenGop | None = None
        self._luma: NDArray[np.float32] | None = None  # of the previous source frame

    def _new_meters(self) -> list[PsnrMeter]:
        is_rgb = self.info.chroma is Chroma.RGB
        return [PsnrMeter(self.info.max_code, is_rgb=is_rgb) for _ in range(self.num_layers)]

    def add(self, frame: Frame) -> None:
        """Code one frame."""
        check_frame(frame, self.info)
        objective, references = self.levels.read(frame)
        luma = objective.targets[-1].picture[0]
        motion = None if self._luma is None else estimate_motion(self._luma, luma)
        self._luma = luma
        cut = self._keyframes(objective, motion, self._gop.frames if self._gop else 0)
        if cut or self._gop is None or self._gop.frames >= self.plan.keyint:
            self.finish_gop()
            self._gop = self._open_gop(scene_cut=cut)
        # a seed per frame: a GOP then does not depend on how many random numbers earlier ones drew
        rng = np.random.default_rng([self.plan.seed, self.frames])
        if self._gop.frames == 0 or motion is None:
            start = None if self.frames else self._start
            self._code_intra(self._gop, fit_intra(objective, self.plan, rng, start))
        else:
            self._code_inter(self._gop, self._fit_inter(self._gop, objective, motion, rng))
        self._account(self._gop, references)
        self.frames += 1

    def _open_gop(self, *, scene_cut: bool) -> _OpenGop:
        channels = self.info.chroma.num_planes
        layers = range(self.num_layers)
        return _OpenGop(
            first_frame=self.frames,
            scene_cut=scene_cut,
            coders=[LayerEncoder(layer, channels) for layer in layers],
            payloads=[[] for _ in layers],
            splats=[0 for _ in layers],
            meters=self._new_meters(),
        )

    def _fit_inter(self, gop: _OpenGop, objective: Objective, motion: Motion, rng: np.random.Generator) -> FrameFit:
        layers = gop.reference
        if is_foreign(motion):  # all splats are new
            none = [np.zeros(len(splats), np.bool_) for splats in layers]
            return fit_intra(objective, self.plan, rng)._replace(survivors=none)
        reference = Reference(layers, motion, gop.tables_intra, gop.tables_inter)
        return fit_inter(objective, self.plan, rng, gop.coders[0].background, reference)

    def _code_intra(self, gop: _OpenGop, fit: FrameFit) -> None:
        gop.tables_intra = fit.tables_intra
        for layer, (coder, splats) in enumerate(zip(gop.coders, fit.whole, strict=True)):
            background = fit.background if layer == 0 else None
            gop.payloads[layer].append(coder.encode_intra(splats, fit.tables_intra[layer], background=background))

    def _code_inter(self, gop: _OpenGop, fit: FrameFit) -> None:
        gop.tables_intra = fit.tables_intra
        gop.tables_inter = fit.tables_inter or gop.tables_inter
        for layer, coder in enumerate(gop.coders):
            payload = coder.encode_inter(
                fit.targets[layer],
                fit.tables_inter[layer] if fit.tables_inter else None,
                survivors=fit.survivors[layer],
                injected=fit.whole[layer],
                tables_intra=fit.tables_intra[layer],
                background=fit.background if layer == 0 else None,
            )
            gop.payloads[layer].append(payload)

    def _account(self, gop: _OpenGop, references: Sequence[Frame]) -> None:
        """Measure what the decoder will show, level by level."""
        layers = gop.reference
        pictures = self.levels.paint(layers, gop.coders[0].background)
        for level, (reference, picture) in enumerate(zip(references, pictures, strict=True)):
            gop.meters[level].add(reference, picture)
            self.meters[level].add(reference, picture)
        for layer, splats in enumerate(layers):
            gop.splats[layer] += len(splats)
            self.splats[layer] += len(splats)
            self.payload_bytes += len(gop.payloads[layer][-1])

    def finish_gop(self) -> None:
        """Write the open GOP, if there is one."""
        gop, self._gop = self._gop, None
        if gop is None:
            return
        segments = [
            LayerSegment(payloads, splats, meter.combined)
            for payloads, splats, meter in zip(gop.payloads, gop.splats, gop.meters, strict=True)
        ]
        self.writer.write_gop(Gop(gop.first_frame, segments, key=True, scene_cut=gop.scene_cut))
        self.gops += 1


def _stream_header(info: VideoInfo, plan: EncodePlan) -> StreamHeader:
    return StreamHeader(
        video=VideoRecord(
            width=info.width,
            height=info.height,
            rate=info.rate,
            chroma=int(info.chroma),
            depth=info.depth,
            matrix=int(info.matrix),
            primaries=info.primaries,
            transfer=info.transfer,
            color_range=int(info.range is Range.FULL),
            siting=int(info.siting),
        ),
        layers=LayersRecord(
            scalability={name: value for value, name in SCALABILITY_NAMES.items()}[plan.scalability],
            levels=tuple(
                LevelRecord(width=width, height=height, splats=end)
                for (width, height), end in zip(plan.level_sizes, plan.level_splats, strict=True)
            ),
        ),
        encoder=EncoderRecord(text=f"pgsvc {__version__}"),
    )


def encode(
    source: FrameSource,
    sink: BinaryIO,
    config: EncodeConfig,
    *,
    progress: Callable[[Progress], None] | None = None,
    seekable: bool = True,
    spool_dir: str | None = None,
    start: FloatFit | None = None,
) -> EncodeReport:
    """Encode all frames of a source.

    Args:
        source: frames and what they are; read once.
        sink: where the stream goes, at its current position.
        config: options.
        progress: called after every frame.
        seekable: False writes GOP by GOP, with the index at the end, for pipes.
        spool_dir: where segments wait, in a nameless file, for the index that goes in front of them; None = the
            system's folder for temporary files.
        start: a float fit of the first frame with these options (`train.fit.fit_float`), only to be quantised.

    Raises:
        ConfigError: options do not fit the source or each other.
        InputError: the source is empty, or a frame is not what the source's info says.
        BackendError: the device is not available.
        OutputError: the sink or the temporary file cannot be written.
    """
    if config.strategy == "monolithic" and config.layers > 1:
        raise ConfigError(f"layers: got {config.layers}, allowed 1 in a stream of strategy monolithic")
    info = source.info
    plan = config.resolve(info.width, info.height, info.rate, still=source.still and seekable)
    job = _Job(info, plan, config.device, sink, start)
    return _encode(source, [job], lambda frame: [frame], progress, seekable=seekable, spool_dir=spool_dir)[0]


def encode_monolithic(
    source: FrameSource,
    sinks: Sequence[BinaryIO],
    config: EncodeConfig,
    *,
    progress: Callable[[Progress], None] | None = None,
    spool_dir: str | None = None,
) -> list[EncodeReport]:
    """Encode every level of a source as a stream of one layer: what scalable streams are compared with (GSVC).

    Args:
        source: frames and what they are; read once.
        sinks: one per level, seekable.
        config: options; levels have the splats and the size that they would have in one stream, and each its own
            `iterations`.
        progress: called after every frame.
        spool_dir: see `encode`.

    Raises:
        as `encode`.
    """
    info = source.info
    plan = config.resolve(info.width, info.height, info.rate, still=source.still)
    if len(sinks) != plan.num_layers:
        raise ConfigError(f"sinks: got {len(sinks)}, allowed {plan.num_layers}, one per level")
    levels = LevelSizes(info, plan.level_sizes, load(config.device))
    jobs = []
    for level, ((width, height), sink) in enumerate(zip(plan.level_sizes, sinks, strict=True), start=1):
        single = config.of_level(level, plan).resolve(width, height, info.rate, still=source.still)
        jobs.append(_Job(replace(info, width=width, height=height), single, config.device, sink))
    return _encode(source, jobs, levels.references, progress, seekable=True, spool_dir=spool_dir)


def _encode(
    source: FrameSource,
    jobs: Sequence[_Job],
    frames: Callable[[Frame], Sequence[Frame]],  # of each job, from one of the source
    progress: Callable[[Progress], None] | None,
    *,
    seekable: bool,
    spool_dir: str | None,
) -> list[EncodeReport]:
    """Write all streams side by side, the source being read once."""
    started = time.monotonic()
    with ExitStack() as stack:
        encoders = []
        for job in jobs:
            writer = StreamWriter(
                job.sink,
                _stream_header(job.info, job.plan),
                progression=job.plan.progression,
                seekable=seekable,
                spool_dir=spool_dir,
            )
            encoders.append(_Encoder(job, stack.enter_context(writer)))
        for frame in source:
            for encoder, part in zip(encoders, frames(frame), strict=True):
                encoder.add(part)
            if progress is not None:
                seconds = time.monotonic() - started
                size_bytes = sum(encoder.payload_bytes for encoder in encoders)
                last = encoders[-1]
                progress(Progress(last.frames, source.frame_count, size_bytes, last.meters[-1].combined, seconds))
        for encoder in encoders:
            encoder.finish_gop()
    seconds = time.monotonic() - started
    return [_report(encoder, job.device, seconds) for encoder, job in zip(encoders, jobs, strict=True)]


def _report(encoder: _Encoder, device: str, seconds: float) -> EncodeReport:
    levels = [
        LevelReport(
            level,
            *size,
            sum(encoder.splats[:level]),
            encoder.writer.level_bytes(level),
            meter.combined,
            meter.planes,
        )
        for level, (size, meter) in enumerate(zip(encoder.plan.level_sizes, encoder.meters, strict=True), start=1)
    ]
    return EncodeReport(
        frames=encoder.frames,
        size_bytes=encoder.writer.level_bytes(encoder.num_layers),
        levels=tuple(levels),
        gops=encoder.gops,
        seconds=seconds,
        device="cpu" if device == "auto" else device,
        plan=encoder.plan,
    )
