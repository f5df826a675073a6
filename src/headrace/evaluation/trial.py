"""A configuration tried beside another: the same questions under both, in turns, in one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import msgspec

from headrace.config.load import config_version
from headrace.config.options import Config
from headrace.errors import HeadraceError
from headrace.evaluation.asking import ask
from headrace.evaluation.format import Question, Suite
from headrace.evaluation.journal import Record
from headrace.pipeline.services import Services
from headrace.types import USER, Role

TWIN = ".trial"
"""Ends the name of a model that is tried with other options beside the one in use."""

CLEAR, LITTLE = 0.8, 1.02
"""A ratio below the first is believed, and one above the second is not looked at again, after one
round; between them a second round decides, in the opposite order."""

Configure: TypeAlias = Callable[[Config], Awaitable[None]]
"""Lets the models be those of a configuration; the live path of a running server."""


class Laboratory:
    """Answers the questions of one suite under any configuration. Every answer comes from the same
    models, index and process; a model whose options differ is loaded as a twin beside the one in
    use, so that both are asked in turns."""

    def __init__(self, services: Services, configure: Configure, suite: Suite) -> None:
        self._services = services
        self._configure = configure
        self.suite = msgspec.structs.replace(suite, kinds=("answers",))
        self.asked = 0

    async def use(self, config: Config) -> None:
        """From now on this one is in use."""
        await self._configure(config)
        self._services = self._under(config)

    async def answers(self, config: Config, questions: Sequence[Question]) -> list[Record]:
        """One after the other, as a person would ask. A question that fails has a record that says
        so."""
        services, records = self._under(config), []
        for question in questions:
            self.asked += 1
            try:
                records.append(await ask(services, self.suite, question, call=USER))
            except HeadraceError as error:
                records.append(Record(id=question.id, failed=f"{error.code}: {error.message}"))
        return records

    async def ratio(self, now: Config, other: Config, questions: Sequence[Question]) -> float:
        """How long the questions take under `other`, relative to `now`. Of each side and question
        the quicker answer of two rounds counts: what else the machine does only adds."""
        tried = self._with_twins(now, other)
        await self._configure(tried)
        best: dict[str, dict[str, float]] = {"now": {}, "other": {}}
        warm = questions[:1]
        await self.answers(tried, warm)  # a twin is loaded by its first question
        for order in (("now", "other"), ("other", "now")):
            for side in order:
                config = now if side == "now" else tried
                for record in await self.answers(config, questions):
                    ms = record.timings.get("total", float("inf"))
                    best[side][record.id] = min(ms, best[side].get(record.id, ms))
            ratio = _ratio(best["now"], best["other"])
            if not CLEAR <= ratio <= LITTLE:
                break
        return ratio

    def _under(self, config: Config) -> Services:
        return dataclasses.replace(
            self._services, config=config, config_version=config_version(config)
        )

    def _with_twins(self, now: Config, other: Config) -> Config:
        """`other`, with the models of `now` too: those that differ under a name of their own, which
        the suite's collection uses."""
        name = self.suite.collection
        changed = [key for key, model in now.models.items() if other.models[key] != model]
        if not changed:
            return other
        models = dict(now.models) | {key + TWIN: other.models[key] for key in changed}
        options = other.collection(name)
        roles = {role.value: getattr(options, role.value) for role in Role}
        uses = {role: key + TWIN for role, key in roles.items() if key in changed}
        given = other.collections.get(name)
        own = options if given is None else given
        if given is None:  # the sections stay general ones
            own = options.model_copy(update={"retrieval": None, "answer": None})
        collections = {**other.collections, name: own.model_copy(update=uses)}
        return other.model_copy(update={"models": models, "collections": collections})


def _ratio(now: dict[str, float], other: dict[str, float]) -> float:
    """Of the questions that were answered before the change; infinite if one of them fails after
    it, or if there is none."""
    answered = [name for name, ms in now.items() if ms < float("inf")]
    before = sum(now[name] for name in answered)
    return sum(other[name] for name in answered) / before if before else float("inf")
