"""How commands fail: one line on stderr, an exit code that scripts can rely on, and quiet deaths."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable

import click
import pytest

from pgsvc_codec import __version__
from pgsvc_codec.cli.common import (
    CommandError,
    ExitCode,
    Terminated,
    execute,
    format_duration,
    format_size,
    format_table,
    pgs_command,
)
from pgsvc_codec.errors import (
    BackendError,
    ConfigError,
    CorruptError,
    FormatError,
    InputError,
    OutputError,
    PgsError,
    TruncatedError,
    UnsupportedError,
)


def command_that(body: Callable[[], None]) -> click.Command:
    @pgs_command("pgsvc-test")
    @click.option("--count", type=int)
    def command(count: int | None) -> None:
        """Do it."""
        body()

    return command


def raising(error: BaseException) -> click.Command:
    def body() -> None:
        raise error

    return command_that(body)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a: got 1"), 2, "a: got 1"),
        (OutputError("o.pgs exists"), 2, "o.pgs exists"),
        (InputError("no\nsuch"), 3, "no such"),
        (FormatError("f"), 3, "f"),
        (UnsupportedError("u"), 3, "u"),
        (TruncatedError("t"), 3, "t"),
        (CorruptError("c"), 3, "c"),
        (BackendError("b"), 7, "b"),
        (PgsError("p"), 1, "p"),
        (CommandError(ExitCode.TRUNCATED, "truncated: GOP 1 missing"), 4, "truncated: GOP 1 missing"),
        (CommandError(ExitCode.MISMATCH, "m"), 5, "m"),
        (CommandError(ExitCode.TARGET, "g"), 6, "g"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "terminated"),
        (OSError(errno.ENOSPC, "No space left on device", "o.pgs"), 2, "o.pgs: No space left on device"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error"),
        (MemoryError(), 1, "out of memory"),
        (ZeroDivisionError("d"), 1, "unexpected ZeroDivisionError: d (--debug shows the traceback)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(raising(error), []) == code
    captured = capsys.readouterr()
    assert captured.err == f"pgsvc-test: error: {line}\n"
    assert captured.out == ""


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(raising(InputError("x")), ["--debug"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "pgsvc-test: error: x"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-such"], "No such option"),
        (["--count", "x"], "'x' is not a valid integer"),
        (["extra"], "unexpected extra argument"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(command_that(lambda: None), arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.endswith("(see pgsvc-test --help)\n")
    assert error.count("\n") == 1


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("-h", "--help"):
        assert execute(command_that(lambda: None), [option]) == 0
        assert "Do it." in capsys.readouterr().out
    for option in ("-V", "--version"):
        assert execute(command_that(lambda: None), [option]) == 0
        assert capsys.readouterr().out == f"pgsvc-test {__version__}\n"


def start(body: str, **pipes: int) -> subprocess.Popen[bytes]:
    """A fresh interpreter whose command runs `body`."""
    program = "import sys, time\nfrom pgsvc_codec.cli.common import pgs_command, run\n"
    program += "@pgs_command('pgsvc-test')\ndef command():\n" + textwrap.indent(textwrap.dedent(body), "    ")
    return subprocess.Popen([sys.executable, "-c", program + "\nrun(command)"], stderr=subprocess.PIPE, **pipes)  # type: ignore[call-overload,no-any-return]


def test_a_closed_pipe_is_a_quiet_death() -> None:
    with start("while True: sys.stdout.buffer.write(bytes(1 << 16))", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE


@pytest.mark.parametrize(
    ("number", "code", "line"), [(signal.SIGINT, 130, b"interrupted"), (signal.SIGTERM, 143, b"terminated")]
)
def test_signals_run_what_cleans_up(number: signal.Signals, code: int, line: bytes) -> None:
    body = """
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("cleaned up", flush=True)
    """
    with start(body, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.read() == b"cleaned up\n"
        assert process.stderr.read() == b"pgsvc-test: error: " + line + b"\n"
    assert process.returncode == code


def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "wb") as full, start("print('data')", stdout=full.fileno()) as process:
        assert process.stderr is not None
        assert process.stderr.read() == b"pgsvc-test: error: No space left on device\n"
    assert process.returncode == 2


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (45_200_000, "45.2 MB"), (999_600, "1.00 MB"), (2.5e15, "2500 TB")],
)
def test_sizes(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (891, "0:14:51"), (3599.6, "1:00:00"), (432_000, "120:00:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_tables_align() -> None:
    assert format_table([["level", "n"], ["1", "300"]]) == "level    n\n    1  300"
