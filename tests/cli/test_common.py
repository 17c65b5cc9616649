"""How commands fail: one line on stderr, an exit code that scripts can rely on, and quiet deaths."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import click
import pytest

from pgsvc_codec import __version__
from pgsvc_codec.cli.common import (
    CommandError,
    Console,
    ExitCode,
    Terminated,
    execute,
    format_duration,
    format_size,
    format_table,
    parse_size,
    pgs_command,
    refuse_collisions,
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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a console sees, to be set as element 0."""
    now = [0.0]
    monkeypatch.setattr("pgsvc_codec.cli.common.time.monotonic", lambda: now[0])
    return now


def test_progress_lines_that_stay_are_rare(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Console("pgsvc-test", progress=None, quiet=False, verbose=False) as console:
        for second in range(1, 101):
            clock[0] = second
            console.progress(second, 400, second, rate=Fraction(50), size_bytes=1000 * second, psnr=30.04)
    assert capsys.readouterr().err.splitlines() == [
        "[7.5%] 30/400 frames  1.00 fps  400.0 kb/s  est 400 kB  PSNR 30.0  eta 0:06:10",
        "[15.0%] 60/400 frames  1.00 fps  400.0 kb/s  est 400 kB  PSNR 30.0  eta 0:05:40",
        "[22.5%] 90/400 frames  1.00 fps  400.0 kb/s  est 400 kB  PSNR 30.0  eta 0:05:10",
    ]


def test_progress_of_an_unknown_number_of_frames(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Console("pgsvc-test", progress="on", quiet=True, verbose=False) as console:
        console.progress(3, None, 1.5, rate=Fraction(25), size_bytes=600, psnr=31)
    assert capsys.readouterr().err == "3 frames  2.00 fps  40.0 kb/s  PSNR 31.0\n"


@pytest.mark.parametrize(("cause", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143), (OSError("x"), 1)])
def test_signals_in_compiled_code(cause: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    error = SystemError("returned a result with an exception set")
    error.__cause__ = cause
    assert execute(raising(error), []) == code
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("progress", "quiet"), [("off", False), (None, True)])
def test_no_progress(progress: str | None, quiet: bool, clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Console("pgsvc-test", progress=progress, quiet=quiet, verbose=False) as console:
        clock[0] = 99.0
        console.progress(1, 2, 1)
    assert capsys.readouterr().err == ""


def test_warnings_are_said_once_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("pgsvc-test", progress=None, quiet=True, verbose=False)
    for message in ("a", "b", "a"):
        console.warn(message)
    assert console.warnings == ["a", "b"]
    assert capsys.readouterr().err == "pgsvc-test: a\npgsvc-test: b\n"
    strict = Console("pgsvc-test", progress=None, quiet=False, verbose=False, is_strict=True)
    with pytest.raises(CommandError, match="truncated: x") as caught:
        strict.warn("truncated: x", ExitCode.TRUNCATED)
    assert caught.value.code is ExitCode.TRUNCATED


def test_one_file_in_two_roles(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match="link: got as input and as output, allowed once"):
        refuse_collisions(str(tmp_path / "a"), output=str(link))
    with pytest.raises(ConfigError, match="-: got as output and as json, allowed once"):
        refuse_collisions("-", output="-", json="-")
    refuse_collisions("-", output="-", json=None)
    refuse_collisions("a", output="/dev/null", json="/dev/null")


def test_sizes_of_options() -> None:
    assert parse_size("1920x1080") == (1920, 1080)
    with pytest.raises(click.BadParameter, match="got '19', allowed WxH or full"):
        parse_size("19", words=["full"])


INTERRUPTED_COMPILER = """
import signal, time
from llvmlite.binding import executionengine
from numba import njit
from pgsvc_codec.cli.common import pgs_command, run

copy_of = executionengine.string_at

def string_at(*where):  # which LLVM's callback copies compiled code with
    print("compiled", flush=True)
    signal.raise_signal(signal.{})
    return copy_of(*where)

executionengine.string_at = string_at

@pgs_command("probe")
def probe():
    njit(lambda x: x + 1)(1)
    time.sleep(5)
    print("went on")

run(probe)
"""


@pytest.mark.parametrize(("number", "code", "said"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_signals_wait_for_the_compiler_of_kernels(number: str, code: int, said: str) -> None:
    line = [sys.executable, "-c", INTERRUPTED_COMPILER.format(number)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, f"probe: error: {said}\n")
    assert set(done.stdout.split()) == {"compiled"}
