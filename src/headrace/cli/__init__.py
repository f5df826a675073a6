"""The command line: argument parsing and terminal output, nothing else."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `headrace` with the process's arguments; ends the process."""
    try:
        from headrace.cli.program import run

        run()
    except KeyboardInterrupt:  # before or after the commands, which handle their own
        sys.exit(130)
