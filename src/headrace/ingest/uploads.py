"""Uploaded files, kept on the disk until their job is done."""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path, PurePosixPath

from headrace.errors import BadRequest, StorageError
from headrace.ingest.discover import Candidate
from headrace.ingest.outcomes import UPLOAD, Upload


class Uploads:
    """`FOLDER/JOB/NUMBER/NAME`: no two files meet, whatever they are called. Methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, job_id: str, files: Sequence[Upload]) -> None:
        """Move the files into the job's folder. Raises `StorageError`; then none is kept."""
        try:
            for number, (source, file) in enumerate(zip(sources(files), files, strict=True)):
                place = self._place(job_id, number, source)
                place.parent.mkdir(parents=True)
                shutil.move(file.path, place)
        except OSError as error:
            self.drop(job_id)
            raise StorageError(f"the upload cannot be kept: {error}") from error

    def candidates(self, job_id: str, names: Sequence[str]) -> list[Candidate]:
        """The files of a job; `names` are their `sources`."""
        return [
            Candidate(source, self._place(job_id, number, source))
            for number, source in enumerate(names)
        ]

    def sweep(self, keep: Set[str]) -> None:
        """Remove the files of jobs that are not in `keep`."""
        if not self._folder.is_dir():
            return
        for folder in self._folder.iterdir():
            if re.fullmatch(r"[0-9a-f]{16}", folder.name) and folder.name not in keep:
                self.drop(folder.name)

    def _place(self, job_id: str, number: int, source: str) -> Path:
        name = PurePosixPath(source.removeprefix(UPLOAD)).name
        return self._folder / job_id / f"{number:04d}" / name

    def present(self, job_id: str) -> bool:
        return (self._folder / job_id).is_dir()

    def drop(self, job_id: str) -> None:
        shutil.rmtree(self._folder / job_id, ignore_errors=True)


def sources(files: Sequence[Upload]) -> list[str]:
    """What the documents will be called, in order. Raises `BadRequest`."""
    names = [safe_name(file.name) for file in files]
    double = next((name for name, count in Counter(names).items() if count > 1), None)
    if double is not None:
        raise BadRequest(f"two uploads are called {double!r}", field="files")
    return [UPLOAD + name for name in names]


def safe_name(name: str) -> str:
    """The name that the sender gave, folders included, as a relative path in Unicode's composed
    form. Raises `BadRequest` for one that no file can have."""
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    printable = all(unicodedata.category(character)[0] != "C" for character in name)
    longest = max((len(part.encode("utf-8", "replace")) for part in parts), default=0)
    if not parts or not printable or longest > 240:
        raise BadRequest(f"an uploaded file cannot be called {name[:100]!r}", field="files")
    return "/".join(parts)
