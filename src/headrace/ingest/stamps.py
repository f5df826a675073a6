"""How each document of a collection was ingested, so that a change of settings is noticed.

Kept in the collection's own database. A stamp is written after its document: if the process dies
between the two, the document is read once more and its vectors are found by their keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from headrace.retrieval.collections import EmbeddedIndex

_TABLE = (
    "CREATE TABLE IF NOT EXISTS job_settings (document_id TEXT PRIMARY KEY, stamp TEXT NOT NULL,"
    " labelled INTEGER NOT NULL) WITHOUT ROWID"
)

READERS_VERSION = 1
"""Raise it when readers or chunkers give other results for the same file."""


class Stamp(NamedTuple):
    """`value` stands for all settings; `labelled` says that somebody gave the labels, rather than
    the collection's configuration."""

    value: str
    labelled: bool


def stamp(chunker: str, budget: int, labels: Sequence[str], metadata: Mapping[str, str]) -> str:
    """Changes when a document would be stored differently though its file is the same."""
    settings = (READERS_VERSION, chunker, budget, sorted(labels), sorted(metadata.items()))
    return hashlib.blake2b(msgspec.json.encode(settings), digest_size=8).hexdigest()


def read_stamps(index: EmbeddedIndex) -> dict[str, Stamp]:
    with index.connection() as db:
        db.execute(_TABLE)
        rows = db.execute("SELECT document_id, stamp, labelled FROM job_settings")
        return {key: Stamp(value, bool(labelled)) for key, value, labelled in rows}


def write_stamp(index: EmbeddedIndex, document_id: str, made: Stamp) -> None:
    with index.connection() as db:
        db.execute("INSERT OR REPLACE INTO job_settings VALUES (?, ?, ?)", (document_id, *made))


def drop_stamps(index: EmbeddedIndex, document_ids: Sequence[str]) -> None:
    with index.connection() as db:
        db.executemany(
            "DELETE FROM job_settings WHERE document_id = ?", [(key,) for key in document_ids]
        )
