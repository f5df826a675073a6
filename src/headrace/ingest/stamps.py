"""How each document of a collection was ingested, so that a change of settings is noticed.

Kept in the collection's own database. A stamp is written after its document: if the process dies
between the two, the document is read once more and its vectors are found by their keys.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from headrace.retrieval.collections import EmbeddedIndex
from headrace.retrieval.sides import settings

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


class Cut(NamedTuple):
    """How documents are cut into chunks."""

    chunker: str
    chunk_tokens: int


def chosen_cut(index: EmbeddedIndex, configured: Cut) -> Cut:
    """How the collection's documents are cut: as its last reindexing said, as long as the
    configuration is the one of that time; else as `configured`."""
    with index.reading() as db:
        known = settings(db)
        rows = dict(db.execute("SELECT key, value FROM meta WHERE key = 'configured_cut'"))
    if known is None or rows.get("configured_cut") != _encoded(configured):
        return configured
    return Cut(known.chunker, known.chunk_tokens)


def _encoded(cut: Cut) -> str:
    return msgspec.json.encode(cut).decode()


def recut(db: sqlite3.Connection, configured: Cut, before: Cut, after: Cut) -> None:
    """In the transaction of a switch: every document that was ingested with the settings `before`
    is now as if it had been with `after`, so that the next ingestion leaves it alone."""
    row = ("configured_cut", _encoded(configured))
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)
    db.execute(_TABLE)
    changed = []
    for key, old, labels, own, whole in db.execute(
        "SELECT j.document_id, j.stamp, d.labels, d.own_metadata, d.metadata "
        "FROM job_settings j JOIN documents d ON d.id = j.document_id"
    ).fetchall():
        for metadata in map(json.loads, (own, whole)):
            made = json.loads(labels), metadata
            if stamp(*before, *made) == old:
                changed.append((stamp(*after, *made), key))
                break
    db.executemany("UPDATE job_settings SET stamp = ? WHERE document_id = ?", changed)


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
        db.execute(_TABLE)
        db.executemany(
            "DELETE FROM job_settings WHERE document_id = ?", [(key,) for key in document_ids]
        )
