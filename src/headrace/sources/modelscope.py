"""`ms:`: files of a model repository on ModelScope, or at the address that `MODELSCOPE_ENDPOINT`
names; with the token of `MODELSCOPE_API_TOKEN`, if there is one."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlencode

import httpx
import msgspec

from headrace.errors import SourceError
from headrace.sources import hub
from headrace.sources.cache import Entry, Progress
from headrace.sources.spec import Source

_REVISION = "master"


class _File(msgspec.Struct, rename="pascal"):
    path: str
    type: str = "blob"
    size: int = 0
    sha256: str = ""


class _Files(msgspec.Struct, rename="pascal"):
    files: list[_File]


class _Listing(msgspec.Struct, rename="pascal"):
    data: _Files


def fetch(source: Source, entry: Entry, sha256: str | None, progress: Progress) -> Path:
    """Fetch from the repository's branch `master`."""
    endpoint = os.environ.get("MODELSCOPE_ENDPOINT", "https://www.modelscope.cn").rstrip("/")
    base = f"{endpoint}/api/v1/models/{source.name}/repo"
    token = os.environ.get("MODELSCOPE_API_TOKEN")
    with hub.client({"Authorization": f"Bearer {token}"} if token else {}) as client:
        listed = _list(source, client, base, endpoint)

        def url_of(name: str) -> str:
            return f"{base}?{urlencode({'Revision': _REVISION, 'FilePath': name})}"

        return hub.fetch_files(source, entry, listed, url_of, client, sha256, progress, endpoint)


def _list(source: Source, client: httpx.Client, base: str, endpoint: str) -> dict[str, hub.Listed]:
    try:
        response = client.get(f"{base}/files?Revision={_REVISION}&Recursive=true")
        if response.status_code != 200:
            raise httpx.HTTPError(f"it answers {response.status_code}")
        listing = msgspec.json.decode(response.content, type=_Listing)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError) as error:
        raise SourceError(
            f"{source}: {endpoint} does not give it: {error}. Check the name and the network;"
            " MODELSCOPE_ENDPOINT can name another address; or copy the file from another machine"
            " and use file:PATH"
        ) from error
    return {
        file.path: hub.Listed(file.size, file.sha256 or None)
        for file in listing.data.files
        if file.type != "tree"
    }
