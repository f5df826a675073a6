"""What `headrace tune` may change for speed, the cheapest first. A lever is declared, not coded:
its name, what it can harm, and the changes it would make to a configuration, if it applies.

The order is by what a change costs whoever runs Headrace: a cap costs nothing, another model has to
be fetched. Within a lever the boldest change comes first; where the gate refuses it, the next one
is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from headrace.config.answering import AnswerOptions, RetrievalOptions
from headrace.config.model_options import default_models
from headrace.config.options import CollectionOptions, Config
from headrace.engines.machine import cores
from headrace.types import Role

Path: TypeAlias = tuple[str, ...]

SENTENCE_CAPS = (48, 96, 160)
"""Tokens of answers of one, two or three sentences."""

PROMPTS = (0.2, 0.35, 0.5, 0.75)
DEPTHS = (0.2, 0.5)


class Change(NamedTuple):
    """Values by their path in the configuration, and how to say it."""

    values: Mapping[Path, Any]
    says: str


class Scene(NamedTuple):
    """A configuration as one collection sees it. `models` are those that may be tried in place of
    the ones in use; `given` is what every question says itself, whatever the configuration is."""

    config: Config
    name: str
    options: CollectionOptions
    models: tuple[str, ...]
    given: Mapping[str, Any]

    @property
    def answer(self) -> AnswerOptions:
        return self.options.answer or self.config.answer

    @property
    def retrieval(self) -> RetrievalOptions:
        return self.options.retrieval or self.config.retrieval

    def at(self, section: str, option: str) -> Path:
        """Where an option of `answer` or `retrieval` stands for this collection: in its own
        section, if it has one, for that replaces the general one."""
        own = self.config.collections.get(self.name)
        if own is not None and getattr(own, section) is not None:
            return ("collections", self.name, section, option)
        return (section, option)

    def model(self, role: Role) -> Path:
        """Where the name of the model of a role stands."""
        own = self.config.collections.get(self.name)
        if own is not None and getattr(own, role.value) is not None:
            return ("collections", self.name, role.value)
        return ("defaults", role.value)

    def in_use(self, role: Role) -> str | None:
        name: str | None = getattr(self.options, role.value)
        return name

    @property
    def writes(self) -> bool:
        generate = self.given.get("generate") or self.answer.generate
        return self.in_use(Role.GENERATOR) is not None and generate != "none"


class Lever(NamedTuple):
    """`harms` is what it can make worse, for the evidence table."""

    name: str
    harms: str
    changes: Callable[[Scene], Iterator[Change]]

    def effective(self, at: Scene) -> Iterator[Change]:
        """The changes of something that the questions do not say themselves."""
        for change in self.changes(at):
            if not any(path[-1] in at.given for path in change.values):
                yield change


def scene(
    config: Config,
    collection: str,
    models: tuple[str, ...] = (),
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Scene:
    return Scene(config, collection, config.collection(collection), models, given)


def _one(path: Path, before: object, after: object) -> Change:
    return Change({path: after}, f"{'.'.join(path)}: {_said(before)} → {_said(after)}")


def _of_model(at: Scene, name: str, option: str, before: object, after: object) -> Change:
    """An entry of the file replaces the default model of its name, so it must be a whole one."""
    model = at.config.models[name]
    change = _one(("models", name, option), before, after)
    if default_models().get(name) != model:
        return change
    whole = model.model_dump(mode="json", include=model.model_fields_set)
    values: dict[Path, Any] = {("models", name, key): value for key, value in whole.items()}
    return change._replace(values={**values, **change.values})


def _said(value: object) -> str:
    return "none" if value is None else str(value)


def _token_cap(at: Scene) -> Iterator[Change]:
    if at.writes:
        before = at.answer.max_tokens
        for cap in SENTENCE_CAPS:
            if cap < before:
                yield _one(at.at("answer", "max_tokens"), before, cap)


def _stop_rule(at: Scene) -> Iterator[Change]:
    if at.writes:
        before = at.answer.max_sentences
        for most in (1, 2):
            if before is None or most < before:
                yield _one(at.at("answer", "max_sentences"), before, most)


def _prompt(at: Scene) -> Iterator[Change]:
    if at.writes:
        before = at.answer.prompt_tokens
        for share in PROMPTS:
            after = max(128, int(before * share) // 16 * 16)
            if after < before:
                yield _one(at.at("answer", "prompt_tokens"), before, after)


def _passages(at: Scene) -> Iterator[Change]:
    before = at.retrieval.hits
    for after in (2, 3):
        if after < before:
            yield _one(at.at("retrieval", "hits"), before, after)


def _rerank_depth(at: Scene) -> Iterator[Change]:
    if at.in_use(Role.RERANKER):
        before = at.retrieval.rerank_depth
        for share in DEPTHS:
            after = max(at.retrieval.hits, int(before * share))
            if after < before:
                yield _one(at.at("retrieval", "rerank_depth"), before, after)


def _no_reranker(at: Scene) -> Iterator[Change]:
    before = at.in_use(Role.RERANKER)
    if before and "reranker" not in at.config.collections.get(at.name, _NONE).model_fields_set:
        yield _one(("defaults", "reranker"), before, None)


_NONE = CollectionOptions()


def _rewrite_by_rules(at: Scene) -> Iterator[Change]:
    """Only a rewriting that a `capable` generator makes costs time."""
    name = at.in_use(Role.GENERATOR)
    if name and at.writes and at.config.models[name].capable and at.answer.rewrite == "auto":
        yield _one(at.at("answer", "rewrite"), "auto", "rules")


def _batches(at: Scene) -> Iterator[Change]:
    for role in (Role.EMBEDDER, Role.RERANKER):
        name = at.in_use(role)
        if name:
            before = at.config.models[name].batch_tokens
            for after in (1024, 2048, 16384):
                if after != before:
                    yield _of_model(at, name, "batch_tokens", before, after)


def _threads(at: Scene) -> Iterator[Change]:
    for role in (Role.GENERATOR, Role.RERANKER):
        name = at.in_use(role)
        if not name or (role is Role.GENERATOR and not at.writes):
            continue
        model = at.config.models[name]
        if model.engine in ("llamacpp", "onnx"):
            before = model.threads or cores()
            for after in dict.fromkeys((max(1, cores() // 2), cores())):
                if after != before:
                    yield _of_model(at, name, "threads", before, after)


def _precision(at: Scene) -> Iterator[Change]:
    """Of the reranker alone: another precision of an embedder gives other vectors, and those of the
    collection would have to be made anew."""
    name = at.in_use(Role.RERANKER)
    if name:
        model = at.config.models[name]
        if model.engine == "onnx" and model.precision != "int8":
            yield _of_model(at, name, "precision", model.precision, "int8")


def others(at: Scene) -> Iterator[tuple[Role, str]]:
    """The models that may take the place of one in use. Another embedder is none: the vectors of
    the collection would have to be made anew."""
    for role in (Role.GENERATOR, Role.RERANKER):
        before = at.in_use(role)
        if before and (role is not Role.GENERATOR or at.writes):
            for name in at.models:
                if name != before and at.config.models[name].role is role:
                    yield role, name


def _other_model(at: Scene) -> Iterator[Change]:
    for role, name in others(at):
        yield _one(at.model(role), at.in_use(role), name)


def _attention(at: Scene) -> Iterator[Change]:
    name = at.in_use(Role.GENERATOR)
    if name and at.writes and at.config.models[name].engine == "llamacpp":
        before = at.config.models[name].attention
        for after in ("flash", "plain"):
            if after != before:
                yield _of_model(at, name, "attention", before, after)


LEVERS = (
    Lever("token cap", "long answers are cut", _token_cap),
    Lever("stop rule", "answers that need several sentences", _stop_rule),
    Lever("context size", "what stands in later passages is not read", _prompt),
    Lever("passages", "what stands in later passages is not found", _passages),
    Lever("rerank depth", "good passages of low rank stay there", _rerank_depth),
    Lever("no reranker", "the order of passages", _no_reranker),
    Lever("rewrite by rules", "questions in other words than the documents", _rewrite_by_rules),
    Lever("batch size", "nothing but time", _batches),
    Lever("threads", "nothing but time", _threads),
    Lever("precision", "the order of passages", _precision),
    Lever("model or engine", "everything that the model does", _other_model),
    Lever("attention", "last digits, so now and then what a small model writes", _attention),
)
"""In the order in which they are tried."""
