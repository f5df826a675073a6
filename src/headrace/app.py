"""The composition root: the only file that knows every part."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from headrace.config.load import config_version
from headrace.config.options import Config
from headrace.errors import StorageError
from headrace.ingest.jobs import Jobs
from headrace.pipeline.services import Services
from headrace.retrieval.collections import Collections
from headrace.serving.embedding_cache import CachedModels, QueryVectors
from headrace.serving.hosting import Host, model_host
from headrace.serving.measured import MeasuredModels


@contextlib.asynccontextmanager
async def application(config: Config, host: Host | None = None) -> AsyncIterator[Services]:
    """A running Headrace without its door: the collections, the jobs, and the models of `host`,
    by default those of a host of its own. Leaving it ends every job, and that host. Raises
    `StorageError` if the data folder cannot be made."""
    folder = config.data_dir / "collections"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the data folder {config.data_dir} cannot be used: {error.strerror}; set `data_dir` "
            "in the configuration or HEADRACE_DATA_DIR to a folder that you may write to"
        ) from error
    async with contextlib.AsyncExitStack() as stack:
        collections = stack.enter_context(contextlib.closing(Collections(folder)))
        if host is None:
            host = await stack.enter_async_context(model_host(config))
        measured = MeasuredModels(host.models, host.metrics)
        vectors = QueryVectors()
        vectors.configure(config.cache)
        models = CachedModels(measured, host.metrics, vectors)
        jobs = await stack.enter_async_context(Jobs(config, collections, models))
        yield Services(
            config=config,
            config_version=config_version(config),
            models=models,
            collections=collections,
            jobs=jobs,
            metrics=host.metrics,
            control=host.control,
            vectors=vectors,
        )
