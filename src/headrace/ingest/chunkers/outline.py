"""The title path while walking down a document."""

from __future__ import annotations


class Outline:
    """Open headings, outermost first, under the document's title. A heading that only repeats the
    title is the title."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._open: list[tuple[int, str]] = []

    @property
    def path(self) -> tuple[str, ...]:
        titles = [title for _, title in self._open]
        return (self._title, *titles) if self._title else tuple(titles)

    def enter(self, level: int, title: str) -> None:
        """Close the headings at `level` and below, and open this one; one without a title only
        closes."""
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        if title and not (not self._open and title == self._title):
            self._open.append((level, title))
