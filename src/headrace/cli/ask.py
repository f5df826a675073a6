"""`headrace ask`: a streamed answer, its quotes, and where they stand."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import terminal
from headrace.cli.common import (
    DEFAULT_COLLECTION,
    AccessOption,
    CollectionOption,
    ConfigOption,
    JsonOption,
    WhereOption,
    fetch_for_question,
    load_config,
    make_filter,
    run,
)
from headrace.cli.search import place

if TYPE_CHECKING:
    from headrace.config.options import Config
    from headrace.pipeline.plan import AnswerRequest
    from headrace.pipeline.services import Services
    from headrace.types import (
        Conflict,
        DoneEvent,
        Event,
        HopEvent,
        Quote,
        Refused,
        UnsupportedEvent,
    )

EPILOG = """\b
Examples:
  headrace ask "Who may start the wheel again?"
  headrace ask 夜间施工的时间 --collection laws --verification strict
  headrace ask "What does it cost?" --generate none --json

\b
Exit status: 0 answered, 3 the documents hold no answer, 1 failed, 2 wrong usage.
"""
NO_ANSWER = 3

BEGINNING = 160
"""Characters of a nearest passage that are printed."""


class Effort(StrEnum):
    """How much is done to find passages."""

    FAST = "fast"
    BALANCED = "balanced"
    DEEP = "deep"
    AUTO = "auto"


class Verification(StrEnum):
    annotate = "annotate"
    strict = "strict"
    off = "off"


class Generate(StrEnum):
    """Whether a generator writes the answer."""

    AUTO = "auto"
    NONE = "none"


def ask(
    question: Annotated[str, typer.Argument(help="The question; `-` reads standard input.")],
    collection: CollectionOption = DEFAULT_COLLECTION,
    generate: Annotated[
        Generate | None,
        typer.Option(help="`none` answers with quotations alone, without a language model."),
    ] = None,
    effort: Annotated[
        Effort | None,
        typer.Option(
            help="How much is done to find passages: `deep` also follows what they lead to. "
            "`auto` goes by the kind of question."
        ),
    ] = None,
    verification: Annotated[
        Verification | None,
        typer.Option(
            help="Sentences that nothing supports are marked (`annotate`) or withheld (`strict`); "
            "`off` checks none."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Generator to use.")
    ] = None,
    hits: Annotated[
        int | None, typer.Option("-k", min=1, max=100, help="Passages to answer from.")
    ] = None,
    where: WhereOption = None,
    access: AccessOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Answer a question from the documents, with quotes and where they stand."""
    from headrace.pipeline.plan import AnswerRequest, make_plan

    if question == "-":
        question = sys.stdin.buffer.read(1_000_000).decode("utf-8", "replace")
    request = AnswerRequest(
        collection=collection,
        question=terminal.given(question),
        where=make_filter(where, access),
        generate=generate.value if generate else None,
        generator=model,
        effort=effort.value if effort else None,
        verification=verification.value if verification else None,
        hits=hits,
    )
    loaded = load_config(config)
    plan = make_plan(loaded, request)
    models = [plan.embedder, plan.generator, *loaded.rerankers(collection)]
    fetch_for_question(loaded, collection, models)
    done = run(_ask(loaded, request, json))
    if done.refusal:
        raise typer.Exit(NO_ANSWER)


async def _ask(config: Config, request: AnswerRequest, json: bool) -> DoneEvent:
    from headrace.app import application

    async with application(config) as services:
        return await answer_to_terminal(services, request, json=json)


async def answer_to_terminal(
    services: Services, request: AnswerRequest, *, json: bool = False
) -> DoneEvent:
    """Stream one answer to standard output; with `json`, one object at the end. Raises the error
    that ended the answer early."""
    import contextlib

    from headrace.pipeline.cache import cached

    transcript = Transcript(quiet=json)
    try:
        async with contextlib.aclosing(cached(services, request)) as events:
            async for event in events:
                transcript.take(event)
    finally:
        transcript.end_line()
    done = transcript.finished()
    if json:
        terminal.emit_json(transcript.record(request))
    else:
        transcript.print_sources()
    return done


class Transcript:
    """An answer as it grows. Prints its text unless `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        self.text = ""
        self.quotes: list[Quote] = []
        self.unsupported: list[UnsupportedEvent] = []
        self.hops: list[HopEvent] = []
        self.refused: Refused | None = None
        self.conflicts: list[Conflict] = []
        self.done: DoneEvent | None = None
        self._quiet = quiet
        self._console = terminal.out()

    def take(self, event: Event) -> None:
        """Raises the error that an `error` event carries."""
        from headrace import types
        from headrace.errors import by_code

        match event:
            case types.DeltaEvent(text):
                self._write(text)
            case types.QuoteEvent(quote):
                self.quotes.append(quote)
            case types.UnsupportedEvent():
                self.unsupported.append(event)
            case types.HopEvent():
                self.hops.append(event)
            case types.RefusedEvent(refused):
                self.refused = refused
            case types.ConflictEvent(conflict):
                self.conflicts.append(conflict)
            case types.DoneEvent():
                self.done = event
            case types.ErrorEvent(code, message):
                raise by_code(code, message)

    def _write(self, text: str) -> None:
        doubtful = any(
            event.span.start <= len(self.text) < event.span.end for event in self.unsupported
        )
        self.text += text
        if not self._quiet:
            style = "yellow" if doubtful else ""
            self._console.print(terminal.styled((text, style)), end="")
            self._console.file.flush()

    def end_line(self) -> None:
        if self.text and not self._quiet and not self.text.endswith("\n"):
            self._console.print()

    def finished(self) -> DoneEvent:
        from headrace.errors import ModelFailed

        if self.done is None:
            raise ModelFailed("the answer broke off; ask again")
        return self.done

    def print_sources(self) -> None:
        """The quotes with where they stand; the text only of those not in the answer already."""
        if self.done is not None and (kept := self.done.cached) is not None:
            note = f"given before, {kept.age_seconds:.0f} s ago; saved {kept.saved_ms:.0f} ms"
            terminal.err().print(terminal.styled(("cache: ", "bold"), note))
        for quote in self.quotes:
            where = place(quote.source, quote.path, quote.page)
            self._console.print(
                terminal.styled((f"\n[{quote.number}] ", "bold"), (where, "cyan")), end=""
            )
            if quote.text not in self.text:
                self._console.print(
                    terminal.styled(f"\n    “{' '.join(quote.text.split())}”"), end=""
                )
        if self.quotes:
            self._console.print()
        self._print_hops()
        withheld = [event for event in self.unsupported if not len(event.span)]
        for event in withheld:
            self._console.print(
                terminal.styled(("withheld: ", "yellow"), f"{event.text} ({event.reason})")
            )

    def _print_hops(self) -> None:
        """What was searched for beside the question, and what that found."""
        for hop in self.hops:
            for sought in hop.sought:
                found = ", ".join(sought.found) or "nothing"
                asked = f"search {hop.number} ({sought.why}): "
                self._console.print(
                    terminal.styled((asked, "dim"), (f"{sought.text} → {found}", "dim"))
                )
        if self.hops:
            self._console.print()
        self._print_nearest()

    def _print_nearest(self) -> None:
        """Where a refusal's nearest passages stand, and how each begins."""
        if self.refused is None:
            return
        self._console.print(terminal.styled(("refused: ", "yellow"), self.refused.reason))
        for hit in self.refused.nearest:
            where = place(hit.source, hit.path, hit.page)
            begins = " ".join(hit.text.split())[:BEGINNING]
            self._console.print(terminal.styled(("nearest: ", "bold"), (where, "cyan")))
            self._console.print(terminal.styled(f"    {begins}"))

    def record(self, request: AnswerRequest) -> dict[str, Any]:
        """The whole answer for programs."""
        done = self.finished()
        return {
            "question": request.question,
            "collection": request.collection,
            "answer": self.text,
            "refusal": done.refusal,
            "quotes": self.quotes,
            "unsupported": self.unsupported,
            "hops": self.hops,
            "refused": self.refused,
            "conflicts": self.conflicts,
            "finish_reason": done.finish_reason,
            "usage": done.usage,
            "timings": done.timings,
            "skipped": done.skipped,
            "config_version": done.config_version,
            "generation": done.generation,
            "cached": done.cached,
        }
