"""The options that say what the pixels of an input are: the same for every command that reads any."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from pgsvc_codec.cli.common import parse_size
from pgsvc_codec.video import PIX_FMTS, Matrix, Range

if TYPE_CHECKING:
    from pgsvc_codec.media.source import Source

_MATRICES = {matrix.name.lower(): matrix for matrix in Matrix if matrix is not Matrix.RGB}


def _parse_rate(value: str) -> Fraction:
    """Frames per second from N, N.M or N/D."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6}|/0*[1-9][0-9]{0,8})?", value):
        raise click.BadParameter(f"got {value!r}, allowed N or N/D, as 25 or 30000/1001")
    return Fraction(value)


_OPTIONS = (
    click.option("--y4m", is_flag=True, help="Insist that the input is y4m."),
    click.option("-s", "--size", "--input-res", type=parse_size, metavar="WxH", help="Of raw video."),
    click.option("--pix-fmt", type=click.Choice(list(PIX_FMTS)), help="Of raw video.  [default: by name, yuv420p]"),
    click.option("--fps", type=_parse_rate, metavar="N[/D]", help="Frames per second.  [default: as the input, 25]"),
    click.option("--range", "range_", type=click.Choice(["limited", "full", "auto"]), help="Of the code values."),
    click.option("--colormatrix", type=click.Choice([*_MATRICES, "auto"]), help="Matrix coefficients of the input."),
)


@dataclass(frozen=True)
class PixelOptions:
    """What the user says of an input; None and "auto" leave it to the input."""

    y4m: bool
    size: tuple[int, int] | None
    pix_fmt: str | None
    fps: Fraction | None
    range_: str | None
    colormatrix: str | None

    def open(self, name: str, *, seek: int, frames: int | None) -> Source:
        """Open an input that these options describe.

        Args:
            name: a file, a folder or pattern of images, - for standard input.
            seek: frames to skip.
            frames: frames to read; None = all.

        Raises:
            ConfigError: options do not fit the input.
            InputError: it is missing, or not what it should be.
        """
        from pgsvc_codec.media.source import open_source

        return open_source(
            name,
            size=self.size,
            pix_fmt=self.pix_fmt,
            fps=self.fps,
            range=None if self.range_ in (None, "auto") else Range(self.range_),
            matrix=_MATRICES.get(self.colormatrix or "auto"),
            y4m=self.y4m,
            seek=seek,
            frames=frames,
        )


def pixel_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the options, which the command gets together as its argument `pixels`."""

    @wraps(command)
    def with_pixels(**arguments: Any) -> None:
        given = {field.name: arguments.pop(field.name) for field in fields(PixelOptions)}
        command(pixels=PixelOptions(**given), **arguments)

    decorated: Callable[..., None] = with_pixels
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
