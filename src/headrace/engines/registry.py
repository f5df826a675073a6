"""Where engines are found: one line each, imported when first used and only in a worker."""

from __future__ import annotations

from importlib import import_module

from headrace.engines.base import Engine
from headrace.errors import ConfigError

ENGINES = {
    "echo": "headrace.engines.echo:EchoEngine",
    "llamacpp": "headrace.engines.llamacpp:LlamaCppEngine",
    "onnx": "headrace.engines.onnx:OnnxEngine",
    "openai": "headrace.engines.openai:OpenAIEngine",
}


def create(name: str) -> Engine:
    """A new, unloaded engine. Raises `ConfigError` for a name that is not in the table."""
    if name not in ENGINES:
        raise ConfigError(f"there is no engine {name!r}; known: {', '.join(sorted(ENGINES))}")
    module, _, attribute = ENGINES[name].partition(":")
    factory = getattr(import_module(module), attribute)
    engine: Engine = factory()
    return engine
