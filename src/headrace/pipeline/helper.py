"""What a capable generator is asked before the search: other words for a question, and its parts.

Each call has its own cap and shape, both run side by side, and what comes back is only taken if it
loses nothing of the question (`rewrite.keeps`). A call that fails or takes too long costs the
rewriting, not the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from headrace.errors import HeadraceError
from headrace.pipeline.budget import until
from headrace.pipeline.decompose import MOST
from headrace.pipeline.rewrite import LONGEST, Rewriting, keeps, keeps_together
from headrace.pipeline.untrusted import defused
from headrace.serving.models import Models, both
from headrace.types import Call, GenerateParams, Message

log = logging.getLogger(__name__)

REWRITE = GenerateParams(max_tokens=128, stop=("\n", "Question:"))
_SCHEMA = {
    "type": "object",
    "properties": {
        "questions": {
            "type": "array",
            "items": {"type": "string", "maxLength": LONGEST},
            "maxItems": MOST,
        }
    },
    "required": ["questions"],
    "additionalProperties": False,
}
DECOMPOSE = GenerateParams(
    max_tokens=256, stop=("\n\n",), json_schema=msgspec.json.encode(_SCHEMA).decode()
)
_REWRITE = """\
Rewrite the last question so that it can be understood without the conversation, in the words that \
documents use. Keep every number, name and identifier as it is. Write the question alone.

Conversation: How long is the probation period? / At most six months.
Question: And the pay in it?
Rewritten: What wage must be paid during the probation period?

Question: 老板拖着不给工钱怎么办？
Rewritten: 用人单位拖欠劳动报酬的，劳动者如何主张权利？

Question: Can my landlord kick me out under Article 12?
Rewritten: Under which conditions may the lessor terminate the lease under Article 12?
"""
_DECOMPOSE = """\
Take the question apart into the questions that must be answered first, each of which can be \
looked up alone. Keep every number, name and identifier. Answer as JSON.

Question: Are the founders of Alpha and Beta from the same country?
{"questions": ["Where was the founder of Alpha born?", "Where was the founder of Beta born?"]}

Question: 试用期最长多久，工资怎么算？
{"questions": ["试用期最长可以约定多久？", "试用期的工资怎么计算？"]}
"""


class _Parts(msgspec.Struct):
    questions: list[str]


async def helped(
    models: Models,
    generator: str,
    question: str,
    history: Sequence[Message],
    words: Sequence[str],
    *,
    rewrite: bool,
    parts: bool,
    call: Call,
) -> tuple[list[Rewriting], list[str]]:
    """Rewritings and parts of a question, as far as they are wanted and hold, and what was left
    out. `words` are terms of the collection to choose from."""

    async def rewritten() -> str:
        if not rewrite:
            return ""
        said = " / ".join(turn.content[-LONGEST:] for turn in history[-4:])
        lines = [f"Conversation: {said}"] if said else []
        lines += [f"Terms of the documents: {', '.join(words)}"] if words else []
        prompt = "\n".join([*lines, f"Question: {question}", "Rewritten:"])
        return await _said(models, generator, _REWRITE, prompt, REWRITE, call)

    async def taken_apart() -> str:
        if not parts:
            return ""
        prompt = f"Question: {question}"
        return await _said(models, generator, _DECOMPOSE, prompt, DECOMPOSE, call)

    try:
        one, several = await both(rewritten(), taken_apart())
    except (TimeoutError, HeadraceError) as error:
        why = str(error) or "it had no time"
        log.warning("generator %s did not help with a question: %s", generator, why)
        return [], [f"rewrite: {generator} failed or had no time"]
    found: list[Rewriting] = []
    skipped: list[str] = []
    text = " ".join(one.split())
    whole = " ".join([question, *(turn.content for turn in history if turn.role == "user")])
    if rewrite and 0 < len(text) <= LONGEST and (keeps(question, text) or keeps(whole, text)):
        found.append(Rewriting(text, "rewritten"))
    elif rewrite:
        skipped.append("rewrite: it lost or invented a number, a name or an identifier")
    pieces = _pieces(several)
    if len(pieces) > 1 and keeps_together(question, pieces):
        found += [Rewriting(piece, "a part of it") for piece in pieces]
    return found, skipped


async def _said(
    models: Models, generator: str, system: str, prompt: str, params: GenerateParams, call: Call
) -> str:
    """What the generator says. Raises `TimeoutError` at the deadline of `call`, and what `models`
    raises."""
    messages = [Message("system", system), Message("user", defused(prompt))]
    generated = models.generate(generator, messages, params, call=call)
    async with aclosing(until(call.deadline, generated)) as deltas:
        return "".join([delta.text async for delta in deltas])


def _pieces(said: str) -> list[str]:
    try:
        parts = msgspec.json.decode(said, type=_Parts) if said.strip() else _Parts([])
    except msgspec.DecodeError:  # cut off at its cap: no parts, as if none had been asked for
        return []
    return list(dict.fromkeys(" ".join(part.split()) for part in parts.questions if part.strip()))
