"""What a collection names and defines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.lexicon import FILE, definitions_in, key, says, spellings
from headrace.retrieval.rows import StoredChunk

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("title", "known"),
    [
        ("Always (2011 film)", {"always 2011 film", "always"}),
        ("Laie, Hawaii", {"laie hawaii"}),
        ("《中华人民共和国民法典》", {"中华人民共和国民法典", "民法典"}),
        ("劳动合同法（2012修正）", {"劳动合同法 2012 修正", "劳动合同法"}),
        ("第四条", set()),
        ("Article 4", set()),
        ("42", set()),
        ("f(x)", {"f x"}),
    ],
)
def test_the_names_of_a_title(title: str, known: set[str]) -> None:
    assert set(spellings(title)) == known


@pytest.mark.parametrize(
    ("text", "term", "gloss"),
    [
        (
            "第三条 本法所称要约，是指希望与他人订立合同的意思表示。",
            "要约",
            "希望与他人订立合同的意思表示",
        ),
        ("（二）组团社，是指与旅游者订立合同的旅行社；", "组团社", "与旅游者订立合同的旅行社"),
        ("本条例所称的礼品指礼物、礼金和证券。", "礼品", "礼物、礼金和证券"),
        (
            "“Weir keeper” means the person in charge of the gates.",
            "Weir keeper",
            "the person in charge of the gates",
        ),
        ("term: MTU\ndefinition: largest packet of a link\n", "MTU", "largest packet of a link"),
        ("术语: 要约\n含义: 订立合同的意思表示\n", "要约", "订立合同的意思表示"),
    ],
)
def test_definitions(text: str, term: str, gloss: str) -> None:
    (found,) = definitions_in(StoredChunk(7, 1, ("path",), text))
    assert (found.term, found.gloss, found.chunk) == (term, gloss, 7)


@pytest.mark.parametrize(
    "text",
    ["It means that nobody may enter.", "This refers to all of the above.", "前款所指的人。"],
)
def test_a_pronoun_is_not_defined(text: str) -> None:
    assert list(definitions_in(StoredChunk(7, 1, (), text))) == []


def test_names_in_a_text_are_found_where_they_are_written_as_names(
    index: EmbeddedIndex, make: Make
) -> None:
    for name in ("Mill Wheel", "Mill Wheel Works", "民法典"):
        index.upsert(*make(name, ["text"]))
    text = "The Title Mill Wheel Works of a mill wheel, see title 民法典: “Title Mill Wheel”."
    found = index.lexicon().mentioned(text)
    assert [name.text for name in found] == [
        "Title Mill Wheel Works",
        "title 民法典",
        "Title Mill Wheel",
    ]
    assert all(text[name.start : name.end] == name.text for name in found)


def test_it_follows_the_collection(index: EmbeddedIndex, make: Make) -> None:
    assert not index.lexicon().names
    generation = index.upsert(*make("Alpha Beta", ["“Weir keeper” means who keeps the weir."]))
    first = index.lexicon()
    assert first.generation == generation
    assert set(first.definitions) == {"Weir keeper"}
    index.upsert(*make("Gamma", ["text"]))
    assert key("Title Gamma") in index.lexicon().names
    assert key("Title Alpha Beta") in index.lexicon().names
    assert key("Title Gamma") not in first.names


@pytest.mark.parametrize("content", [None, b"", b"\x93\x01", b"no msgpack at all"])
def test_a_lost_or_broken_file_is_made_anew(
    collections: Collections, index: EmbeddedIndex, make: Make, content: bytes | None
) -> None:
    with index.writer() as writer:
        writer.upsert(*make("Alpha Beta", ["text"]))
    file = index.folder / FILE
    assert file.exists()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    collections.close()
    assert key("Title Alpha Beta") in Collections(collections.folder).open("laws").lexicon().names


def test_the_next_process_reads_what_the_writer_left(
    collections: Collections, index: EmbeddedIndex, make: Make
) -> None:
    with index.writer() as writer:
        writer.upsert(*make("Alpha Beta", ["“Weir keeper” means who keeps the weir."]))
    held = index.lexicon()
    collections.close()
    found = Collections(collections.folder).open("laws").lexicon()
    assert (found.generation, found.names, found.definitions) == (
        held.generation,
        held.names,
        held.definitions,
    )


def test_whole_words_only() -> None:
    assert says("by the Mill Wheel, he said", {"mill wheel"})
    assert not says("by the Mill Wheels", {"mill wheel"})
    assert says("依照民法典第十条", {"民法典"})
