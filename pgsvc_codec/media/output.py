"""Binary outputs that appear whole under their name, or not at all."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pgsvc_codec.errors import ConfigError, OutputError, PgsError


@contextmanager
def _system_errors(target: str) -> Iterator[None]:
    """Errors of the system as `OutputError`; a reader that has gone is not the output's fault and stays itself."""
    try:
        yield
    except (PgsError, BrokenPipeError):
        raise
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from None


class AtomicFile:
    """A binary output: bytes go to ``TARGET.tmp-<pid>`` beside the target, which `commit` renames to it.

    As a context manager it commits at the end of the block and aborts on an exception.  ``-`` is standard output;
    it, devices and named pipes are written directly.

    Raises:
        ConfigError: the target exists and ``overwrite`` is not set.
        OutputError: the target is a directory, or cannot be written.
    """

    def __init__(self, target: str, *, overwrite: bool = False) -> None:
        self.target = target
        self._overwrite = overwrite
        self._temporary: Path | None = None
        self._stream: BinaryIO | None = None
        if target == "-":
            self._stream = sys.stdout.buffer
            return
        # Through a symbolic link the file it names is replaced, not the link.
        self._path = Path(os.path.realpath(target))
        with _system_errors(target):
            mode = self._path.stat().st_mode if self._path.exists() else None
            if mode is not None and stat.S_ISDIR(mode):
                raise OutputError(f"{target}: is a directory, allowed a file")
            if mode is not None and not stat.S_ISREG(mode):
                self._stream = self._path.open("wb")
                return
            if mode is not None and not overwrite:
                raise ConfigError(f"{target} exists; use -y to overwrite it")
            if mode is not None and not os.access(self._path, os.W_OK):
                raise OutputError(f"{target}: cannot be written: Permission denied")
            self._temporary = self._path.with_name(f"{self._path.name}.tmp-{os.getpid()}")
            self._stream = self._temporary.open("w+b")
            if mode is not None:  # who may read the old file may read the new one, and nobody else
                self._temporary.chmod(stat.S_IMODE(mode))

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes; returns their number.

        Raises:
            OutputError: the system refuses them (a full disk).
            BrokenPipeError: the reader of a pipe has gone.
        """
        with _system_errors(self.target):
            self._open_stream().write(data)
        return len(data)

    def seekable(self) -> bool:
        """Whether bytes that were written can be replaced: true of files only."""
        return self._temporary is not None

    @property
    def folder(self) -> str | None:
        """Where the file will be; None if the output is none."""
        return None if self._temporary is None else str(self._temporary.parent)

    def seek(self, offset: int) -> int:
        """Go to a byte offset from the start, to replace what is there."""
        return self._open_stream().seek(offset)

    def tell(self) -> int:
        """The byte offset of the next write in a seekable output."""
        return self._open_stream().tell()

    def commit(self) -> None:
        """Make what was written the target.  Nothing happens after a first `commit` or `abort`.

        Raises:
            OutputError: the system refuses, or the target has appeared since; what was written then stays beside it.
        """
        stream, self._stream = self._stream, None
        if stream is None:
            return
        with _system_errors(self.target):
            if self._temporary is None:
                stream.flush()
                self._close_special(stream)
                return
            try:
                stream.flush()
                os.fsync(stream.fileno())
                stream.close()
            except OSError:
                self._discard(stream)
                raise
            if not self._overwrite and self._path.exists():
                raise OutputError(f"{self.target}: has appeared meanwhile; the result is {self._temporary}")
            self._temporary.replace(self._path)

    def abort(self) -> None:
        """Drop what was written; an existing target stays as it was."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if self._temporary is None:
            with suppress(OSError):
                self._close_special(stream)
        else:
            self._discard(stream)

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.abort()

    def _open_stream(self) -> BinaryIO:
        if self._stream is None:
            raise ValueError(f"{self.target}: is closed")
        return self._stream

    def _discard(self, stream: BinaryIO) -> None:
        """Remove the temporary file; closing may fail once more to write what is buffered."""
        with suppress(OSError):
            stream.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def _close_special(self, stream: BinaryIO) -> None:
        """Standard output belongs to the process and stays open."""
        if stream is not sys.stdout.buffer:
            stream.close()
