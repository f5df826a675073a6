"""HTML. Text is taken in document order, block by block; nothing is fetched or run."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from headrace.errors import ReadError
from headrace.ingest.readers.decode import decode
from headrace.ingest.readers.source import Source, one_line, tidy, title_of
from headrace.types import Heading, Parsed, Span

_DROPPED = frozenset([
    "script", "style", "nav", "noscript", "template", "svg", "math", "iframe", "object", "embed",
    "canvas", "audio", "video", "button", "select", "textarea", "head",
])  # fmt: skip
_BLOCKS = frozenset([
    "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3",
    "h4", "h5", "h6", "header", "hr", "html", "legend", "li", "main", "menu", "ol", "p", "pre",
    "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul", "caption",
])  # fmt: skip
_PARAGRAPHS = frozenset([
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "pre", "blockquote", "section",
    "article",
])  # fmt: skip
_INVISIBLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_NESTING = re.compile(
    r"<(/?)(?!(?:p|li|dt|dd|tr|td|th|option|thead|tbody|tfoot|colgroup|br|hr|img|input|meta|link"
    r"|area|base|col|embed|source|track|wbr|param|rt|rp)\b)[a-z]",
    re.IGNORECASE,
)
_DEEPEST = 5000
_SPACE = re.compile(r"[ \t\n\f]+")
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]{2,40})", re.IGNORECASE)


def read_html(source: Source) -> Parsed:
    charset = _CHARSET.search(source.data[:4096])
    decoded = decode(source, charset[1].decode("ascii") if charset else None)
    markup = tidy(decoded.text)
    _check_depth(source, markup)
    tree = LexborHTMLParser(markup)
    title = tree.css_first("title")
    writer = _Writer(source)
    if tree.root is not None:
        writer.walk(tree.root)
    text = "".join(writer.parts)
    headings = tuple(writer.headings)
    stated = one_line(title.text()) if title is not None else ""
    return Parsed(
        text,
        "text/html",
        title=stated or title_of(text, headings, 0, source.stem),
        headings=headings,
        notes=decoded.notes,
    )


def _check_depth(source: Source, markup: str) -> None:
    """Parsing takes time that grows with the square of the nesting (100,000 deep: a minute)."""
    depth = 0
    for match in _NESTING.finditer(markup):
        depth = max(0, depth - 1) if match[1] else depth + 1
        if depth > _DEEPEST:
            raise ReadError(
                f"{source.path.name} nests elements more than {_DEEPEST} deep, as no real page "
                "does; it is not read"
            )


class _Writer:
    """Collects text with its layout: blocks on lines of their own, cells joined by bars."""

    def __init__(self, source: Source) -> None:
        self.parts: list[str] = []
        self.headings: list[Heading] = []
        self._source = source
        self._size = 0
        self._breaks = 2  # line ends that the text now ends with
        self._space = False  # a space is due before the next word
        self._pre = 0
        self._heading = 0  # where the open heading starts

    def walk(self, root: LexborNode) -> None:
        """Depth first with a stack of its own: nesting has no limit in HTML."""
        stack: list[tuple[LexborNode, bool]] = [(root, False)]
        while stack:
            node, leaving = stack.pop()
            tag = node.tag or ""
            if leaving:
                self._leave(tag)
            elif node.is_text_node:
                self._text(node.text_content or "")
            elif tag == "br":
                self._break(1, more=True)
            elif tag not in _DROPPED and not _hidden(node):
                self._enter(node, tag)
                stack.append((node, True))
                stack.extend((child, False) for child in reversed(list(_children(node))))

    def _enter(self, node: LexborNode, tag: str) -> None:
        if tag in ("td", "th") and _follows_cell(node):
            self._space = False
            self._write(" | ")
            return
        if tag in _BLOCKS:
            self._break(2 if tag in _PARAGRAPHS else 1)
        if tag == "li":
            self._write("- ")
        if _heading_level(tag):
            self._heading = self._size
        self._pre += tag == "pre"

    def _leave(self, tag: str) -> None:
        level = _heading_level(tag)
        if level and self._heading < self._size:
            written = "".join(self._since(self._heading))
            if title := one_line(written):
                self._break(1)
                self.headings.append(Heading(Span(self._heading, self._size), level, title))
        self._pre -= tag == "pre"
        if tag in _BLOCKS and tag not in ("td", "th"):
            self._break(2 if tag in _PARAGRAPHS else 1)

    def _since(self, start: int) -> list[str]:
        size, index = self._size, len(self.parts)
        while size > start:
            index -= 1
            size -= len(self.parts[index])
        return self.parts[index:]

    def _text(self, raw: str) -> None:
        if self._pre:
            self._write(raw)
            return
        text = _SPACE.sub(" ", raw)
        words = text.strip(" ")
        if not words:
            self._space = self._space or bool(text)
            return
        self._space = self._space or text[0] == " "
        if self._space and not self._breaks:
            words = " " + words
        self._write(words)
        self._space = text[-1] == " "

    def _break(self, count: int, *, more: bool = False) -> None:
        missing = count if more and self._breaks < 2 else count - self._breaks
        self._space = False
        if missing > 0 and self._size:
            self._write("\n" * missing)

    def _write(self, text: str) -> None:
        if not text:
            return
        self.parts.append(text)
        self._size += len(text)
        self._source.check_text(self._size)
        ends = len(text) - len(text.rstrip("\n"))
        self._breaks = ends + (self._breaks if ends == len(text) else 0)
        self._space = False


def _children(node: LexborNode) -> list[LexborNode]:
    return list(node.iter(include_text=True))


def _heading_level(tag: str) -> int:
    return int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else 0


def _follows_cell(node: LexborNode) -> bool:
    before = node.prev
    while before is not None and before.tag not in ("td", "th"):
        before = before.prev
    return before is not None


def _hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return "hidden" in attributes or bool(_INVISIBLE.search(attributes.get("style") or ""))
