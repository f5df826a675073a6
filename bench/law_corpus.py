"""The law corpus for benchmarks: articles, questions, given vectors, and a collection of them."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.harness import shared_data
from headrace.ingest.outcomes import document_id
from headrace.retrieval.base import NewChunk, chunk_key, embedding_text
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.types import Chunk, Document, Parsed, Span


class Article(NamedTuple):
    """One article; `number` is its row in the vectors and its id among the gold answers."""

    number: int
    law: str
    name: str
    text: str


class Question(NamedTuple):
    text: str
    gold: frozenset[int]


def articles() -> list[Article]:
    with gzip.open(shared_data() / "laws" / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = map(json.loads, file)
        return [Article(int(r["id"]), r["law"], r["article"], r["text"]) for r in rows]


def questions() -> list[Question]:
    with (shared_data() / "laws" / "questions.jsonl").open(encoding="utf-8") as file:
        rows = map(json.loads, file)
        return [Question(r["question"], frozenset(map(int, r["gold_ids"]))) for r in rows]


def vectors() -> npt.NDArray[np.float32]:
    """float32 [articles, 384], L2-normalised; row i belongs to article i."""
    raw = np.load(shared_data() / "laws" / "vectors_int8.npy").astype(np.float32)
    normalised: npt.NDArray[np.float32] = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return normalised


def documents(found: list[Article]) -> Iterator[tuple[Document, list[Article], list[Chunk]]]:
    """One document a law, one chunk an article, in the order of the articles."""
    for law, group in groupby(found, key=lambda article: article.law):
        members = list(group)
        parts: list[str] = []
        chunks = []
        position = 0
        for article in members:
            part = f"{article.name} {article.text}\n"
            span = Span(position, position + len(part))
            chunks.append(Chunk(span, (law, article.name)))
            parts.append(part)
            position = span.end
        text = "".join(parts)
        source = f"laws/{members[0].number}-{law}"
        document = Document(
            id=document_id(source),
            source=source,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            parsed=Parsed(text=text, media_type="text/plain", title=law),
            chunker="statute",
        )
        yield document, members, chunks


def fill(index: EmbeddedIndex, found: list[Article], given: npt.NDArray[np.float32]) -> None:
    """Store the articles with their given vectors."""
    with index.writer() as writer:
        fingerprint = index.embedder().fingerprint
        for document, members, chunks in documents(found):
            rows = []
            for article, chunk in zip(members, chunks, strict=True):
                text = embedding_text(chunk.path, chunk.span.of(document.parsed.text))
                key = chunk_key(fingerprint, text)
                rows.append(NewChunk(chunk, key, given[article.number]))
            writer.upsert(document, rows)
