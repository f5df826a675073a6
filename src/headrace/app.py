"""The composition root: the only file that knows every part."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from headrace.config.load import config_version
from headrace.config.options import Config
from headrace.engines.base import ModelSpec
from headrace.errors import StorageError
from headrace.ingest.jobs import Jobs
from headrace.pipeline.services import Services
from headrace.retrieval.collections import Collections
from headrace.serving.measured import MeasuredModels
from headrace.serving.pool import Pool
from headrace.telemetry import Metrics


def model_specs(config: Config) -> dict[str, ModelSpec]:
    """What each engine is told, by model name."""
    return {
        name: ModelSpec(
            name=name,
            role=model.role,
            engine=model.engine,
            source=model.source,
            cache_dir=str(config.cache_dir),
            options=model.model_dump(mode="json"),
        )
        for name, model in config.models.items()
    }


@contextlib.asynccontextmanager
async def application(config: Config) -> AsyncIterator[Services]:
    """A running Headrace without its door: the models' workers, the collections, the jobs.
    Leaving it ends every job and every worker. Raises `StorageError` if the data folder cannot
    be made."""
    folder = config.data_dir / "collections"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the data folder {config.data_dir} cannot be used: {error.strerror}; set `data_dir` "
            "in the configuration or HEADRACE_DATA_DIR to a folder that you may write to"
        ) from error
    metrics = Metrics()
    with contextlib.closing(Collections(folder)) as collections:
        async with Pool(model_specs(config)) as pool:
            models = MeasuredModels(pool, metrics)
            async with Jobs(config, collections, models) as jobs:
                yield Services(
                    config=config,
                    config_version=config_version(config),
                    models=models,
                    collections=collections,
                    jobs=jobs,
                    metrics=metrics,
                )
