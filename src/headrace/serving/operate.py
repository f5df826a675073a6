"""What an operator asks of the host about its models, and tells it to do with them."""

from __future__ import annotations

import msgspec

from headrace.serving.arbiter_types import Place
from headrace.serving.control import LocalControl, Topic
from headrace.serving.status import Decision, ModelStatus, Operated
from headrace.serving.survey import Nothing


class Order(msgspec.Struct, frozen=True):
    """`place` is `SERVING`, `PARKED` or `GONE`."""

    model: str
    place: Place


class Reset(msgspec.Struct, frozen=True):
    model: str


class Decisions(msgspec.Struct, frozen=True):
    """The newest first."""

    decisions: tuple[Decision, ...]


DECISIONS = Topic("models.decisions", Nothing, Decisions)
ORDER = Topic("models.order", Order, ModelStatus)
"""Answered when the model is there."""
RESET = Topic("models.reset", Reset, ModelStatus)


def answer_operators(control: LocalControl, pool: Operated) -> None:
    """In the host."""

    def status(model: str) -> ModelStatus:
        return next(found for found in pool.states() if found.name == model)

    async def decisions(_: Nothing) -> Decisions:
        return Decisions(tuple(reversed(pool.decisions())))

    async def order(asked: Order) -> ModelStatus:
        await pool.order(asked.model, asked.place)
        return status(asked.model)

    async def reset(asked: Reset) -> ModelStatus:
        await pool.reset(asked.model)
        return status(asked.model)

    control.answer(DECISIONS, decisions)
    control.answer(ORDER, order)
    control.answer(RESET, reset)
