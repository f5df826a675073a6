"""`hf:`: files of a model repository on the Hugging Face hub, or on the mirror that `HF_ENDPOINT`
names; with the token of `HF_TOKEN` or of `hf auth login`."""

from __future__ import annotations

import os
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from headrace.errors import SourceError
from headrace.sources import hub
from headrace.sources.cache import Entry, Progress
from headrace.sources.spec import Source


def fetch(source: Source, entry: Entry, sha256: str | None, progress: Progress) -> Path:
    """Fetch from the newest commit of the repository's main branch."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        info = HfApi(endpoint=endpoint).model_info(source.name, files_metadata=True, timeout=30.0)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx2.HTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{source}: {endpoint} does not give it: {reason}. Check the name, the network and,"
            " for a private or gated model, HF_TOKEN; HF_ENDPOINT can name a mirror; or copy the"
            " file from another machine and use file:PATH"
        ) from error
    listed = {
        file.rfilename: hub.Listed(file.size or 0, file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or ()
    }

    def url_of(name: str) -> str:
        return hf_hub_url(source.name, name, revision=info.sha, endpoint=endpoint)

    token = get_token()
    with hub.client({"Authorization": f"Bearer {token}"} if token else {}) as client:
        return hub.fetch_files(
            source, entry, listed, url_of, client, sha256, progress, f"{endpoint} at {info.sha}"
        )
