"""The error tree of the package: every failure that a caller may want to tell apart.

    PgsError
    ├── ConfigError        options that contradict each other or are out of range
    ├── InputError         source pixels missing, unsupported or inconsistent
    ├── OutputError        an output that cannot be written
    ├── BackendError       a device or a native part that was asked for and is not there
    └── FormatError        bytes that are not what bitstream_spec.md says
        ├── UnsupportedError   a valid stream that needs something this version does not have
        ├── TruncatedError     bytes end too early
        └── CorruptError       bytes contradict themselves, a limit or a checksum

Messages say what, where, got and allowed, in one line.  Each class also derives from the builtin that a caller
would expect.  ``assert`` is for our own bugs only.
"""

from __future__ import annotations


class PgsError(Exception):
    """Base of all errors that the package raises on purpose."""


class ConfigError(PgsError, ValueError):
    """An option is out of range, or two options contradict each other."""


class InputError(PgsError, ValueError):
    """The source is missing, unsupported, or not what it was said to be."""


class OutputError(PgsError, OSError):
    """The output cannot be written, or would overwrite something."""


class BackendError(PgsError, RuntimeError):
    """A device or backend that was asked for by name is not available."""


class FormatError(PgsError, ValueError):
    """The bytes of a stream do not follow the format."""


class UnsupportedError(FormatError):
    """The stream needs a feature (by name) that this version does not implement."""


class TruncatedError(FormatError):
    """The bytes end before a record, a segment or the stream does."""


class CorruptError(FormatError):
    """A checksum, a length, a count or a reserved bit is wrong."""
