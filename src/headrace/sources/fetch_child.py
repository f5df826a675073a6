"""Fetches one source, in a process that can be ended at any time.

`python -m headrace.sources.fetch_child SOURCE CACHE_DIR [SHA256]` prints one JSON object: the
`path` of what `headrace.sources.resolve` gave, or the `code` and `message` of its error. The cache
keeps what an ended process had, and the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

from headrace import sources
from headrace.errors import HeadraceError, SourceError, by_code


async def fetch(source: str, cache_dir: Path, sha256: str | None) -> Path:
    """What `sources.resolve` gives, from a child process; cancelling ends it. Raises what
    `resolve` raises."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", __name__, source, str(cache_dir)),
        *([sha256] if sha256 else []),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        told = json.loads(out)
    except ValueError as error:
        raise SourceError(
            f"{source}: the process that fetched it ended with status {process.returncode}; "
            "the server's log has what it said"
        ) from error
    if "path" not in told:
        raise by_code(told["code"], told["message"])
    return Path(told["path"])


def main() -> None:
    source, cache_dir, *sha256 = sys.argv[1:]
    try:
        path = sources.resolve(
            source, cache_dir=Path(cache_dir), sha256=sha256[0] if sha256 else None
        )
        told = {"path": str(path)}
    except HeadraceError as error:
        told = {"code": error.code, "message": error.message}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
