"""What all commands share: how they start, how they fail, how they write numbers.

Exit codes are part of the interface: 0 done, 1 unexpected, 2 usage or output, 3 input, 4 truncated where that is not
accepted, 5 verification mismatch, 6 target not reached, 7 no such device; 130, 141, 143 for signals.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from fractions import Fraction
from threading import Timer
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Self

import click

from pgsvc_codec import __version__
from pgsvc_codec.errors import BackendError, ConfigError, FormatError, InputError, OutputError, PgsError
from pgsvc_codec.video import VideoInfo

if TYPE_CHECKING:
    from pgsvc_codec.render.backend import Choice

_DEBUG = f"{__name__}.debug"

PROGRESS_MODES = ("auto", "on", "off", "json")
_PLAIN_SECONDS = 30.0  # least time between progress lines that stay
_LIVE_SECONDS = 0.1  # and between drawings of the one that is redrawn


class ExitCode(IntEnum):
    """What a command tells its caller."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    INPUT = 3
    TRUNCATED = 4
    MISMATCH = 5
    TARGET = 6
    BACKEND = 7
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class CommandError(Exception):
    """A failure whose exit code only the command knows: truncated under --strict, a mismatch, a missed target."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Terminated(BaseException):
    """SIGTERM arrived; temporary files are cleaned up on the way out."""


_CODES: tuple[tuple[type[PgsError], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (OutputError, ExitCode.USAGE),
    (InputError, ExitCode.INPUT),
    (FormatError, ExitCode.INPUT),
    (BackendError, ExitCode.BACKEND),
)
_UNTIL_COMPILED = 0.02  # seconds until a signal that came while kernels were compiled is looked at again
# Errors of the operating system that can only come from writing.
_WRITE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def pgs_command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Decorator: a click command with -h/--help, -V/--version and --debug, to be started by `run`."""

    def remember(context: click.Context, _: click.Parameter, value: bool) -> None:
        context.meta[_DEBUG] = value

    def decorate(function: Callable[..., Any]) -> click.Command:
        debug = click.option(
            "--debug", is_flag=True, expose_value=False, callback=remember, help="Show a traceback with any error."
        )
        version = click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
        settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
        return click.command(name, context_settings=settings)(debug(version(function)))

    return decorate


def run(command: click.Command) -> NoReturn:
    """Run a command on `sys.argv` and exit: the body of each console script."""
    _replace_closed_streams()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a closed pipe ends us quietly, as it does cat
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is in the background of a script
        signal.signal(signal.SIGINT, _stop)
    code = execute(command, sys.argv[1:])
    if code is not ExitCode.OK:
        _abandon_stdout()
    sys.exit(code)


def execute(command: click.Command, arguments: Sequence[str]) -> ExitCode:
    """Run a command; every failure becomes one line on stderr and a code."""
    name = command.name or "pgsvc"
    debug = False
    try:
        with command.make_context(name, list(arguments)) as context:
            debug = context.meta.get(_DEBUG, False)
            command.invoke(context)
        sys.stdout.flush()
        return ExitCode.OK
    except click.exceptions.Exit as stop:  # --help and --version
        return ExitCode(stop.exit_code)
    except BrokenPipeError:  # where SIGPIPE is ignored or does not exist
        return ExitCode.BROKEN_PIPE
    except (KeyboardInterrupt, click.Abort, Terminated, Exception) as error:
        if debug:
            traceback.print_exc()
        code, message = _explain(error, name)
        print(f"{name}: error: {message}", file=sys.stderr)
        return code


def survive_broken_pipes() -> None:
    """Have a closed pipe come as an error from here on: it may be that of a process of ours."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _explain(error: BaseException, name: str) -> tuple[ExitCode, str]:
    """Exit code and one line for anything that a command may raise."""
    error = _interruption(error) or error
    message = " ".join(str(error).split())
    match error:
        case CommandError():
            return error.code, message
        case PgsError():
            code = next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.UNEXPECTED)
            return code, message
        case click.ClickException():
            return ExitCode.USAGE, f"{' '.join(error.format_message().split())} (see {name} --help)"
        case KeyboardInterrupt() | click.Abort():
            return ExitCode.INTERRUPTED, "interrupted"
        case Terminated():
            return ExitCode.TERMINATED, "terminated"
        case OSError():
            code = ExitCode.USAGE if error.errno in _WRITE_ERRNOS else ExitCode.UNEXPECTED
            where = f"{error.filename}: " if error.filename else ""
            return code, f"{where}{error.strerror or message}"
        case MemoryError():
            return ExitCode.UNEXPECTED, "out of memory"
        case _:
            return ExitCode.UNEXPECTED, f"unexpected {type(error).__name__}: {message} (--debug shows the traceback)"


def _interruption(error: BaseException) -> BaseException | None:
    """The signal behind an error: one that arrives in compiled code comes out as the cause of a SystemError."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, (KeyboardInterrupt, Terminated)):
        link = link.__cause__
    return link


def _stop(signum: int, frame: FrameType | None) -> None:
    """Raise what a signal asks for, but not through a compiler: that would go on without it, or break."""
    if _is_compiling(frame):
        again = Timer(_UNTIL_COMPILED, signal.raise_signal, (signum,))
        again.daemon = True
        again.start()
    elif signum == signal.SIGINT:
        raise KeyboardInterrupt
    else:
        raise Terminated


def _is_compiling(frame: FrameType | None) -> bool:
    """Whether kernels of numba are compiled at this place: in callbacks of LLVM exceptions get lost."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in ("numba", "llvmlite"):
            return True
        frame = frame.f_back
    return False


def _replace_closed_streams() -> None:
    """Put something where the caller closed stdout or stderr, lest messages go to stdout and data into a file of ours.

    Messages are then dropped; data cannot be written, which is an error as soon as there is any.
    """
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _abandon_stdout() -> None:
    """Keep the interpreter from complaining, on its way out, about output that could not be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_input(path: str) -> AbstractContextManager[BinaryIO]:
    """A binary file to read; ``-`` is standard input.

    Raises:
        InputError: it is missing, a directory, may not be read, or a terminal.
    """
    if path == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError("standard input is closed or a terminal, allowed a pipe or a file")
        return nullcontext(sys.stdin.buffer)
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"input {path}: {error.strerror or error}") from None


def warn(command: str, message: str) -> None:
    """One line for people."""
    print(f"{command}: {message}", file=sys.stderr)


def format_size(size_bytes: float) -> str:
    """Three significant digits in decimal units, as "45.2 MB"."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while size_bytes >= 999.5 and len(units) > 1:
        size_bytes /= 1000
        del units[0]
    digits = 0 if units[0] == "B" or size_bytes >= 99.95 else 1 if size_bytes >= 9.995 else 2
    return f"{size_bytes:.{digits}f} {units[0]}"


def format_duration(seconds: float) -> str:
    """Hours, minutes, seconds, as "0:14:51"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Right-aligned columns, two blanks apart; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def parse_size(value: str, *, words: Sequence[str] = ()) -> tuple[int, int]:
    """Width and height of an option's value such as ``1920x1080``; `words` are what else the option allows."""
    match = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", value)
    if match is None:
        raise click.BadParameter(f"got {value!r}, allowed {' or '.join(('WxH', *words))}")
    return int(match[1]), int(match[2])


def refuse_collisions(input: str, **outputs: str | None) -> None:
    """Refuse one file, or standard output, in two roles; None is no file.

    Raises:
        ConfigError: two names mean the same.
    """
    seen = {} if input == "-" else {os.path.realpath(input): "input"}
    for role, name in outputs.items():
        if name is None or name == os.devnull:
            continue
        place = name if name == "-" else os.path.realpath(name)
        if place in seen:
            raise ConfigError(f"{name}: got as {seen[place]} and as {role}, allowed once")
        seen[place] = role


def video_document(info: VideoInfo, frames: int) -> dict[str, Any]:
    """What pixels are, for a JSON document."""
    return {
        "w": info.width,
        "h": info.height,
        "frames": frames,
        "fps": float(info.rate),
        "pix_fmt": info.pix_fmt,
        "range": info.range.value,
        "matrix": info.matrix.name.lower(),
    }


def finite(value: float, digits: int = 4) -> float | None:
    """A rounded number for a JSON document, which knows no infinity."""
    return round(value, digits) if math.isfinite(value) else None


class Console:
    """What a command says on stderr: notes, warnings and how far it is, none within another's line.

    As a context manager it ends the progress line at the end of the block.
    """

    def __init__(
        self, command: str, *, progress: str | None, quiet: bool, verbose: bool, is_strict: bool = False
    ) -> None:
        """`progress` is one of `PROGRESS_MODES`, None for auto, which says nothing when `quiet`."""
        if quiet and verbose:
            raise ConfigError("got -q and -v, allowed one of them")
        self.warnings: list[str] = []
        self._command = command
        self._quiet = quiet
        self._verbose = verbose
        self._is_strict = is_strict
        self._mode = progress or ("off" if quiet else "auto")
        self._live = self._mode in ("auto", "on") and sys.stderr.isatty()
        self._next = time.monotonic() + (0 if self._live else _PLAIN_SECONDS)
        self._drawn = 0  # characters of the line that will be redrawn

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            print(file=sys.stderr)
            self._drawn = 0

    def note(self, text: str) -> None:
        """Text for people, unless they want quiet."""
        if not self._quiet:
            self._print(text)

    def choose_device(self, device: str) -> Choice:
        """The device that an option means, said where that may be a surprise; see `backend.choose`."""
        from pgsvc_codec.render.backend import choose

        choice = choose(device)
        if choice.because is not None:
            self.note(f"device {device}: {choice.name}, because {choice.because}")
        return choice

    def note_compilation(self) -> AbstractContextManager[None]:
        """While the context lasts, say why nothing happens if kernels are compiled."""
        from pgsvc_codec.render.backend import on_compilation

        def tell(is_kept: bool) -> None:
            how_often = "once" if is_kept else "each time, for no folder can keep it; NUMBA_CACHE_DIR may name one"
            self.note(f"compiling kernels for this processor, {how_often}: up to a minute")

        return on_compilation(tell)

    def detail(self, text: str) -> None:
        """Text for people who asked for more."""
        if self._verbose:
            self._print(text)

    def warn(self, message: str, code: ExitCode = ExitCode.USAGE) -> None:
        """One line that is said even where quiet is wanted, and kept in `warnings`; the same is said once.

        Raises:
            CommandError: in a strict command, with `code`.
        """
        if self._is_strict:
            raise CommandError(code, message)
        if message not in self.warnings:
            self.warnings.append(message)
            self._print(f"{self._command}: {message}")

    def progress(
        self,
        frames: int,
        frame_count: int | None,
        seconds: float,
        *,
        rate: Fraction = Fraction(0),
        size_bytes: int | None = None,
        psnr: float | None = None,
    ) -> None:
        """Say how far the work is.

        Args:
            frames: done, 1 or more.
            frame_count: in all, None if unknown.
            seconds: that these frames took.
            rate: of the video, in frames per second; of use with `size_bytes` only.
            size_bytes: written for these frames, where that is of interest.
            psnr: of these frames in dB, likewise.
        """
        if self._mode == "off":
            return
        speed = frames / seconds if seconds else 0.0
        eta = None if frame_count is None else (frame_count - frames) * seconds / frames
        if self._mode == "json":
            event: dict[str, Any] = {"event": "frame", "n": frames, "of": frame_count, "fps": finite(speed)}
            event |= {} if size_bytes is None else {"bytes": size_bytes}
            event |= {} if psnr is None else {"psnr": finite(psnr)}
            self._print(json.dumps(event | {"eta_s": None if eta is None else round(eta)}))
            return
        now = time.monotonic()
        is_due = now >= self._next or (frames == frame_count if self._live else self._mode == "on")
        if not is_due:
            return
        parts = [f"{frames} frames" if frame_count is None else f"{frames}/{frame_count} frames", f"{speed:.2f} fps"]
        if size_bytes is not None:
            parts.append(f"{size_bytes * 8 / 1000 * float(rate) / frames:.1f} kb/s")
            if frame_count is not None:
                parts.append(f"est {format_size(size_bytes / frames * frame_count)}")
        if psnr is not None:
            parts.append(f"PSNR {psnr:.1f}")
        if eta is not None:
            parts.append(f"eta {format_duration(eta)}")
        share = "" if frame_count is None else f"[{100 * frames / frame_count:.1f}%] "
        self._show(share + "  ".join(parts), now)

    def _show(self, line: str, now: float) -> None:
        if not self._live:
            self._next = now + _PLAIN_SECONDS
            self._print(line)
            return
        self._next = now + _LIVE_SECONDS
        line = line[: shutil.get_terminal_size().columns - 1]  # a line that wraps cannot be redrawn
        sys.stderr.write(f"\r{line.ljust(self._drawn)}")
        sys.stderr.flush()
        self._drawn = len(line)

    def _print(self, text: str) -> None:
        if self._drawn:
            sys.stderr.write(f"\r{' ' * self._drawn}\r")
            self._drawn = 0
        print(text, file=sys.stderr, flush=True)
