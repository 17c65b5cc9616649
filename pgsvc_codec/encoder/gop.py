"""One GOP while it is coded: what a profile's coder is given and gives back, and how its frames are measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.picture import Frame
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.motion import Motion
from pgsvc_codec.video import Chroma, VideoInfo


class InputFrame(NamedTuple):
    """One frame of the source."""

    number: int  # in display order, from 0
    planes: Frame
    motion: Motion | None  # from the frame before; None for the first of the source


class Tally:
    """Counts and quality of coded frames: of a GOP, or of a whole stream.

    Attributes:
        frames: coded.
        splats: per layer, summed over frames.
        payload_bytes: of all layers.
        meters: per level.
    """

    def __init__(self, info: VideoInfo, num_layers: int) -> None:
        self.frames = 0
        self.splats = [0] * num_layers
        self.payload_bytes = 0
        self.meters = [PsnrMeter(info.max_code, is_rgb=info.chroma is Chroma.RGB) for _ in range(num_layers)]

    def add(
        self, references: Sequence[Frame], pictures: Sequence[Frame], layers: Sequence[Splats], payload_bytes: int
    ) -> None:
        """One frame: what each level should look like and does, its splats by layer, its bytes."""
        self.frames += 1
        self.payload_bytes += payload_bytes
        for layer, splats in enumerate(layers):
            self.splats[layer] += len(splats)
        for meter, reference, picture in zip(self.meters, references, pictures, strict=True):
            meter.add(reference, picture)

    def include(self, other: Tally) -> None:
        """The frames of another, too."""
        self.frames += other.frames
        self.payload_bytes += other.payload_bytes
        self.splats = [own + more for own, more in zip(self.splats, other.splats, strict=True)]
        for meter, more in zip(self.meters, other.meters, strict=True):
            meter.include(more)


class Measure:
    """Measures what the decoder will show of each frame of a GOP.

    Args:
        levels: how levels look.
        tally: of the GOP.
    """

    def __init__(self, levels: LevelSizes, tally: Tally) -> None:
        self._levels = levels
        self._tally = tally

    def __call__(
        self,
        references: Sequence[Frame],
        layers: Sequence[Splats],
        background: NDArray[np.float32],
        payload_bytes: int,
    ) -> None:
        """Add one frame.

        Args:
            references: what each level should look like.
            layers: decoded splats.
            background: [C], decoded.
            payload_bytes: of all layers of the frame.
        """
        pictures = self._levels.paint(layers, background)
        self._tally.add(references, pictures, layers, payload_bytes)


class GopCoder(Protocol):
    """Codes the frames of one GOP; a profile's own."""

    def add(self, frame: InputFrame) -> None:
        """The next frame of the GOP, in display order; the coder may wait for later ones before it codes it."""
        ...

    def finish(self) -> list[list[bytes]]:
        """Code what waits; the payloads per layer, per frame in coding order."""
        ...
