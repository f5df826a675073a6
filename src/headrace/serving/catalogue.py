"""What the configuration says of models, in the terms of the pool: pure translation."""

from __future__ import annotations

import msgspec

from headrace.config.fields import size_bytes
from headrace.config.model_options import ModelOptions
from headrace.config.options import Config
from headrace.engines.base import ModelSpec
from headrace.serving.arbiter_types import Setting, Sizes
from headrace.types import Role

_NOT_THE_ENGINES = frozenset(
    {
        "device",
        "size_hint",
        "give_back",
        "standby",
        "pin",
        "min_batch_for_gpu",
        "languages",
        "near_cosine",
        "near_cosine_across",
        "max_pending",
    }
)
"""Options that no worker needs to know: a change of them replaces none."""


class Served(msgspec.Struct, frozen=True):
    """One model of the configuration. Two whose `spec` is equal can share workers."""

    spec: ModelSpec
    setting: Setting
    max_pending: int
    size_hint: int = 0  # bytes; 0 where there is none


def catalogue(config: Config) -> dict[str, Served]:
    """By model name."""
    return {name: _served(config, name, model) for name, model in config.models.items()}


def model_specs(config: Config) -> dict[str, ModelSpec]:
    """What each engine is told, by model name."""
    return {name: served.spec for name, served in catalogue(config).items()}


def limits(config: Config) -> Sizes:
    """Bytes by device of the ledger, for those that the configuration limits."""
    return {
        name: size_bytes(device.limit)
        for name, device in config.devices.items()
        if device.limit is not None
    }


def _served(config: Config, name: str, model: ModelOptions) -> Served:
    spec = ModelSpec(
        name=name,
        role=model.role,
        engine=model.engine,
        source=model.source,
        cache_dir=str(config.cache_dir),
        options=model.model_dump(mode="json", exclude=set(_NOT_THE_ENGINES)),
    )
    setting = Setting(
        device=_seat(model),
        give_back=model.give_back,
        min_batch_for_gpu=model.min_batch_for_gpu,
        standby=model.standby,
        pin=model.pin,
        encoder=model.role is not Role.GENERATOR,
    )
    hint = size_bytes(model.size_hint) if model.size_hint else 0
    return Served(spec, setting, model.max_pending, hint)


def _seat(model: ModelOptions) -> str:
    """`cuda` alone is the first GPU. Replicas on devices of their own are placed by the user, and
    booked on the first."""
    device = model.devices[0] if model.devices else model.device
    return "cuda:0" if device == "cuda" else device
