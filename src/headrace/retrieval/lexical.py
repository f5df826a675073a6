"""The derived lexical index: BM25 by tantivy, over the tokens of title path and text.

One document of the index, the *marker*, holds the generation that the index reflects, so a
commit changes contents and generation together. Tokens come from `analyze.tokens` and are handed
over joined by spaces.

The name of the field of tokens holds the analyzer's version, and tantivy refuses to open an index
of another schema. So tokens of two versions never meet: for a reader such an index is as good as
absent, and the next writer makes it anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tantivy

from headrace.errors import StorageError
from headrace.retrieval.analyze import VERSION, references, tokens
from headrace.retrieval.base import Ranking, embedding_text
from headrace.retrieval.rows import StoredChunk
from headrace.types import Filter

MAX_QUERY_TOKENS = 256
"""Distinct tokens of a query that are looked up: a pasted page costs no more than a question."""

_HEAP_BYTES = 64_000_000
_HEAP_BYTES_IN_MEMORY = 15_000_000  # the least that tantivy takes
_MARKER = "marker"
_BODY = f"body-{VERSION}"


class LexicalIndex:
    """A tantivy index in a folder, or in memory (`path` None). Any number of processes may read
    one folder; writing is for the holder of the collection's writer lock."""

    def __init__(self, path: Path | None, *, create: bool = False) -> None:
        """Open the index in `path`, or make an empty one there with `create`. Raises
        `StorageError`."""
        self._path = path
        self._writer: tantivy.IndexWriter | None = None
        with self._translated():
            if path is not None and create:
                path.mkdir(parents=True, exist_ok=True)
            elif path is not None and not (path / "meta.json").exists():
                raise FileNotFoundError(f"no lexical index in {path}")
            self._schema = _schema()
            self._index = tantivy.Index(self._schema, None if path is None else str(path))
            self._index.register_tokenizer("spaces", _spaces())
            self._index.config_reader("manual")
            self._index.reload()

    # Reading ------------------------------------------------------------------------------------

    def reader(self) -> LexicalReader:
        """The last commit, by whichever process."""
        with self._translated():
            self._index.reload()
            return LexicalReader(self._schema, self._index.searcher())

    # Writing ------------------------------------------------------------------------------------

    def add(self, chunk: StoredChunk, labels: Sequence[str], metadata: Mapping[str, str]) -> None:
        document = tantivy.Document()
        document.add_unsigned("chunk", chunk.id)
        document.add_unsigned("document", chunk.document)
        body = tokens(embedding_text(chunk.path, chunk.text))
        body += map(own_name, references(chunk.path[-1]) if chunk.path else ())
        document.add_text(_BODY, " ".join(body))
        for label in labels:
            document.add_text("label", label)
        for key, value in metadata.items():
            document.add_text("metadata", _pair(key, value))
        with self._translated():
            self._open_writer().add_document(document)

    def remove(self, document: int) -> None:
        """Remove the chunks of a document number, as far as they were added before."""
        with self._translated():
            # by query: `delete_documents_by_term` takes the number for a signed one, and finds none
            query = tantivy.Query.term_query(self._schema, "document", document)
            self._open_writer().delete_documents_by_query(query)

    def commit(self, generation: int) -> None:
        with self._translated():
            writer = self._open_writer()
            writer.delete_documents_by_term("label", _MARKER)
            marker = tantivy.Document()
            marker.add_text("label", _MARKER)
            marker.add_unsigned("generation", generation)
            writer.add_document(marker)
            writer.commit()

    def close_writer(self) -> None:
        """Give up the write lock; what was not committed is lost."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with self._translated():
                writer.wait_merging_threads()

    def _open_writer(self) -> tantivy.IndexWriter:
        if self._writer is None:
            heap = _HEAP_BYTES if self._path else _HEAP_BYTES_IN_MEMORY
            self._writer = self._index.writer(heap, 1)
            # A killed writer leaves files that no commit names; tantivy would refuse to write
            # over them (`FileAlreadyExists`).
            self._writer.garbage_collect_files()
        return self._writer

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError, RuntimeError) as error:  # what tantivy's binding raises
            place = self._path or "lexical index in memory"
            raise StorageError(
                f"{place}: {error}; the documents are unharmed: check free space and permissions, "
                "then run `headrace collections rebuild`"
            ) from error


class LexicalReader:
    """One commit of a lexical index; stays usable while newer ones appear."""

    def __init__(self, schema: tantivy.Schema, searcher: tantivy.Searcher) -> None:
        self._schema = schema
        self._searcher = searcher
        marker = self._term("label", _MARKER)
        found = searcher.search(marker, 1, count=False).hits
        addresses = [address for _, address in found]
        self.generation = max(self._numbers("generation", addresses), default=0)
        self.chunks = searcher.num_docs - len(addresses)

    def search(
        self,
        counts: Counter[str],
        k: int,
        where: Filter | None = None,
        documents: Sequence[int] = (),
    ) -> Ranking:
        """The best `k` chunks for tokens and how often the query has them; `where` None filters
        nothing. `documents` are the numbers of `where.documents`."""
        if not counts or not self.chunks or k < 1:
            return Ranking.of(())
        query = self._query(counts, where, documents)
        hits = self._searcher.search(query, min(k, self.chunks), count=False).hits
        ids = self._numbers("chunk", [address for _, address in hits])
        scores = [score for score, _ in hits]
        return Ranking(np.array(ids, np.int64), np.array(scores, np.float64))

    def frequency(self, token: str) -> int:
        """Chunks that have the token, deleted ones included until segments are merged."""
        return self._searcher.doc_freq(_BODY, token)

    def ids(self) -> list[int]:
        """Every chunk id in the index, ascending (for `verify`)."""
        everything = tantivy.Query.boolean_query(
            [
                (tantivy.Occur.Must, tantivy.Query.all_query()),
                (tantivy.Occur.MustNot, self._term("label", _MARKER)),
            ]
        )
        hits = self._searcher.search(everything, max(1, self.chunks), count=False).hits
        return sorted(self._numbers("chunk", [address for _, address in hits]))

    def _numbers(self, field: str, addresses: list[tantivy.DocAddress]) -> list[int]:
        values = self._searcher.fast_field_values(field, addresses)
        return [value for value in values if isinstance(value, int)]

    def _query(
        self, counts: Counter[str], where: Filter | None, documents: Sequence[int]
    ) -> tantivy.Query:
        should = [
            (tantivy.Occur.Should, _boosted(self._term(_BODY, token), count))
            for token, count in counts.most_common(MAX_QUERY_TOKENS)
        ]
        query = tantivy.Query.boolean_query(should)
        required = list(self._required(where, documents)) if where is not None else []
        if not required:
            return query
        return tantivy.Query.boolean_query(
            [(tantivy.Occur.Must, query)]
            + [
                (tantivy.Occur.Must, tantivy.Query.const_score_query(part, 0.0))
                for part in required
            ]
        )

    def _required(self, where: Filter, documents: Sequence[int]) -> Iterable[tantivy.Query]:
        if "*" not in where.access:
            yield self._any("label", sorted(where.access))
        for key, values in where.metadata.items():
            yield self._any("metadata", [_pair(key, value) for value in values])
        if where.documents:
            terms = (
                tantivy.Query.term_query(self._schema, "document", number) for number in documents
            )
            yield tantivy.Query.boolean_query([(tantivy.Occur.Should, term) for term in terms])

    def _term(self, field: str, value: str) -> tantivy.Query:
        option = "freq" if field == _BODY else "basic"
        return tantivy.Query.term_query(self._schema, field, value, option)

    def _any(self, field: str, values: Sequence[str]) -> tantivy.Query:
        if len(values) == 1:
            return self._term(field, values[0])
        return tantivy.Query.term_set_query(self._schema, field, list(values))


def own_name(reference: str) -> str:
    """The token of what a chunk *is* (article 44), beside that of what it mentions."""
    return f"@{reference}"


def _boosted(query: tantivy.Query, count: int) -> tantivy.Query:
    return tantivy.Query.boost_query(query, float(count)) if count > 1 else query


def _pair(key: str, value: str) -> str:
    return f"{key}\x1f{value}"


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field(_BODY, tokenizer_name="spaces", index_option="freq")
    builder.add_text_field("label", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("metadata", tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("chunk", fast=True)
    builder.add_unsigned_field("document", indexed=True)
    builder.add_unsigned_field("generation", fast=True)
    return builder.build()


def _spaces() -> tantivy.TextAnalyzer:
    return tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()
