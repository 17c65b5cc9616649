"""Command lines: parse, call the library, map errors to exit codes.  click lives here only."""
