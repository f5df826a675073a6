"""A pool whose models go where an operator sends them, and nowhere else: no worker, no device."""

from __future__ import annotations

from headrace.config.options import Config
from headrace.errors import ConfigError, UnknownModel
from headrace.serving.arbiter_types import Place
from headrace.serving.status import Decision, DeviceStatus, ModelStatus


class StillPool:
    """Implements `headrace.serving.status.Operated`. A model with a `size_hint` does not fit."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.configured: list[Config] = []
        self.resets: list[str] = []
        self._places: dict[str, Place] = {}
        self._decisions: list[Decision] = []

    async def configure(self, config: Config) -> None:
        for name, model in config.models.items():
            if model.size_hint is not None:
                raise ConfigError(f"model {name!r} needs {model.size_hint} and 0 bytes are free")
        self.config = config
        self.configured.append(config)

    def states(self) -> list[ModelStatus]:
        return [
            ModelStatus(
                name=name,
                role=model.role,
                engine=model.engine,
                place=self._places.get(name, Place.GONE),
                seat="cpu",
                held={},
                active=0,
                waiting=0,
                waiting_seconds=0.0,
                workers=(),
                restarts=self.resets.count(name),
            )
            for name, model in self.config.models.items()
        ]

    def devices(self) -> list[DeviceStatus]:
        return [DeviceStatus("host", 0, 0, 0)]

    def decisions(self) -> list[Decision]:
        return self._decisions

    async def order(self, model: str, place: Place) -> None:
        self._check(model)
        self._places[model] = place
        self._decisions.append(Decision(1.0, model, place.value, "an operator said so"))

    async def reset(self, model: str) -> None:
        self._check(model)
        self.resets.append(model)

    def _check(self, model: str) -> None:
        if model not in self.config.models:
            raise UnknownModel(model, self.config.models)
