"""What all commands share: how they start, how they fail, how they write numbers.

Exit codes are part of the interface: 0 done, 1 unexpected, 2 usage or output, 3 input, 4 truncated where that is not
accepted, 5 verification mismatch, 6 target not reached, 7 no such device; 130, 141, 143 for signals.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import IntEnum
from types import FrameType
from typing import Any, BinaryIO, NoReturn

import click

from pgsvc_codec import __version__
from pgsvc_codec.errors import BackendError, ConfigError, FormatError, InputError, OutputError, PgsError

_DEBUG = f"{__name__}.debug"


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
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a closed pipe ends us quietly, as it does cat
    signal.signal(signal.SIGTERM, _terminate)
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


def _explain(error: BaseException, name: str) -> tuple[ExitCode, str]:
    """Exit code and one line for anything that a command may raise."""
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


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _abandon_stdout() -> None:
    """Keep the interpreter from complaining, on its way out, about output that could not be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_input(path: str) -> AbstractContextManager[BinaryIO]:
    """A binary file to read; ``-`` is standard input.

    Raises:
        InputError: it is missing, a directory, or may not be read.
    """
    if path == "-":
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
