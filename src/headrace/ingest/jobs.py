"""Ingestion jobs: run at once for the command line, or in the background for uploads.

Background jobs run one after the other, because they would only share the embedder; the task that
runs them belongs to `async with jobs:`. Leaving it interrupts the one that runs, which `resume`
(or running the same paths again) completes.

Several processes may do this over one data folder: a job runs in the process that took it, any of
them can tell of it, and any can cancel it, by a word in the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import msgspec

from headrace.config.options import Config
from headrace.errors import BadRequest, Busy, HeadraceError, Overloaded, StorageError
from headrace.ingest.compressing import compress
from headrace.ingest.discover import Candidate, discover
from headrace.ingest.flow import Order, ingest
from headrace.ingest.journal import Journal, now
from headrace.ingest.outcomes import Job, JobState, Progress, Report, Upload
from headrace.ingest.tally import Tally
from headrace.ingest.threads import in_thread
from headrace.ingest.uploads import Uploads, sources
from headrace.retrieval.collections import Collections, checked_name
from headrace.serving.models import Models

MAX_QUEUED = 16
"""Background jobs that may wait; each holds its uploads on the disk."""

_JOURNAL_SECONDS = 0.5
_WORD_SECONDS = 1.0
"""How often a process looks whether another one wants a job of its own cancelled."""
_ELSEWHERE_SECONDS = 10.0
"""How long another process may take to cancel a job."""
_BUSY_SECONDS = 1.0
"""How often a background job tries a collection that somebody else writes to."""


class Jobs:
    """An async context manager. `run` needs no entering."""

    def __init__(self, config: Config, collections: Collections, models: Models) -> None:
        self._config = config
        self._collections = collections
        self._models = models
        self._journal = Journal(config.data_dir / "jobs.sqlite")
        self._uploads = Uploads(config.data_dir / "uploads")
        self._queue: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._background: asyncio.Task[None] | None = None
        self._running: tuple[Job, asyncio.Task[Report], Tally] | None = None
        self._cancelled: set[str] = set()

    async def __aenter__(self) -> Jobs:
        with contextlib.suppress(StorageError):  # reading works in a folder that is read-only
            await in_thread(self._clean)
        self._background = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._background is not None:
            self._background.cancel()
            await asyncio.wait([self._background])
            if not self._background.cancelled():
                self._background.result()
        try:
            for job in self._queue:
                await in_thread(self._journal.update, _ended(job, JobState.INTERRUPTED))
        finally:
            self._journal.close()

    def configure(self, config: Config) -> None:
        """Jobs that begin from now on go by `config`, the running one by what it began with."""
        self._config = config

    # For the command line -----------------------------------------------------------------------

    async def run(
        self,
        collection: str,
        paths: Sequence[Path],
        *,
        prune: bool = False,
        labels: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Report:
        """Ingest files and folders, here and now. `prune` also removes the documents whose file
        was below the paths and is gone. `progress` is called in the event loop, often.

        Raises `BadRequest` if no path exists, `Busy`, `ConfigError`, `StorageError`, or what the
        embedder raises; what was done until then stays, and the index is consistent."""
        job = self._new(
            collection, [str(path.absolute()) for path in paths], labels, metadata, prune
        )
        job = msgspec.structs.replace(job, state=JobState.RUNNING, started=now())
        await in_thread(self._journal.add, job)
        try:
            recorder = _Recorder(job, self._journal, progress)
            return await self._execute(job, recorder, JobState.CANCELLED)
        finally:
            if self._background is None:
                self._journal.close()

    # For HTTP -----------------------------------------------------------------------------------

    async def submit(
        self,
        collection: str,
        files: Sequence[Upload],
        *,
        labels: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Job:
        """Queue the ingestion of uploads. Their files are moved into the data folder; a document
        of the same name is replaced. Raises `BadRequest` for a name that no file can have,
        `Overloaded` if `MAX_QUEUED` jobs wait."""
        if not files:
            raise BadRequest("no file was uploaded", field="files")
        self.check_room()
        job = self._new(collection, sources(files), labels, metadata, False)
        await in_thread(self._journal.add, job)
        try:
            await in_thread(self._uploads.take, job.id, files)
        except StorageError as error:
            with contextlib.suppress(StorageError):
                await in_thread(self._journal.update, _ended(job, JobState.FAILED, error.message))
            raise
        self._enqueue(job)
        return job

    async def get(self, job_id: str) -> Job:
        """With what became of each file so far. Raises `UnknownItem`."""
        return self._live(await in_thread(self._journal.get, job_id))

    async def list(self, collection: str | None = None) -> list[Job]:
        """Newest first, without the outcomes of files."""
        jobs = await in_thread(self._journal.list, collection)
        return [self._live(job, files=False) for job in jobs]

    async def cancel(self, job_id: str) -> Job:
        """Stop a background job, of whatever process, and wait until it has stopped. What it has
        stored stays. A job that has ended is left as it is. Raises `UnknownItem`; `BadRequest` if
        another process does not stop it, such as `headrace ingest`."""
        job = await in_thread(self._journal.get, job_id)
        if job.state.ended:
            return job
        if self._running and self._running[0].id == job_id:
            self._cancelled.add(job_id)
            self._running[1].cancel()
            await asyncio.wait([self._running[1]])
        elif any(queued.id == job_id for queued in self._queue):
            self._queue = deque(queued for queued in self._queue if queued.id != job_id)
            await in_thread(self._journal.update, _ended(job, JobState.CANCELLED))
            await in_thread(self._uploads.drop, job_id)
        else:
            await self._cancel_elsewhere(job_id)
        return await self.get(job_id)

    async def _cancel_elsewhere(self, job_id: str) -> None:
        await in_thread(self._journal.ask_to_cancel, job_id)
        try:
            async with asyncio.timeout(_ELSEWHERE_SECONDS):
                while True:
                    job = await in_thread(self._journal.get, job_id)
                    if job.state.ended:
                        return
                    await asyncio.sleep(_WORD_SECONDS / 4)
        except TimeoutError as error:
            raise BadRequest(
                f"job {job_id!r} runs in another process, which does not stop it; stop it there",
                field="job",
            ) from error
        finally:
            await in_thread(self._journal.withdraw, job_id)

    async def resume(self, job_id: str) -> Job:
        """Queue a job again that failed or was interrupted or cancelled; what it has done is not
        done twice. Raises `UnknownItem`, `BadRequest`, `Overloaded`."""
        job = await in_thread(self._journal.get, job_id)
        if job.state not in (JobState.FAILED, JobState.CANCELLED, JobState.INTERRUPTED):
            raise BadRequest(f"job {job_id!r} is {job.state}; there is nothing to resume")
        if job.uploaded and not self._uploads.present(job_id):
            raise BadRequest(f"the files of job {job_id!r} are gone; upload them again")
        self.check_room()
        job = msgspec.structs.replace(
            job, state=JobState.QUEUED, started="", finished="", error="", report=None
        )
        await in_thread(self._journal.forget_files, job_id)
        await in_thread(self._journal.update, job)
        self._enqueue(job)
        return job

    # Within -------------------------------------------------------------------------------------

    def _new(
        self,
        collection: str,
        paths: Sequence[str],
        labels: Sequence[str] | None,
        metadata: Mapping[str, str] | None,
        prune: bool,
    ) -> Job:
        return Job(
            id=uuid4().hex[:16],
            collection=checked_name(collection),
            state=JobState.QUEUED,
            paths=tuple(paths),
            prune=prune,
            labels=tuple(labels) if labels else None,
            metadata=dict(metadata or {}),
            created=now(),
        )

    def check_room(self) -> None:
        if self._background is None:
            raise BadRequest("background jobs need `async with jobs:`")
        if len(self._queue) >= MAX_QUEUED:
            raise Overloaded(
                f"{MAX_QUEUED} ingestion jobs are waiting; try again later", retry_after=10.0
            )

    def _enqueue(self, job: Job) -> None:
        self._queue.append(job)
        self._arrived.set()

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            job = msgspec.structs.replace(
                self._queue.popleft(), state=JobState.RUNNING, started=now()
            )
            recorder = _Recorder(job, self._journal, None)
            task = asyncio.create_task(
                self._execute(job, recorder, JobState.INTERRUPTED, patient=True)
            )
            self._running = (job, task, recorder.tally)
            try:
                await self._attend(task)
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait([task])
                raise
            finally:
                self._running = None
                await self._settle(job, task)

    async def _attend(self, task: asyncio.Task[Report]) -> None:
        """While a job runs, and perhaps others wait: hear who wants one of them cancelled."""
        while True:
            await asyncio.wait([task], timeout=_WORD_SECONDS)
            if task.done():
                return
            with contextlib.suppress(StorageError):  # the job itself will say so
                for job_id in await in_thread(self._journal.cancellations):
                    await self.cancel(job_id)

    async def _settle(self, job: Job, task: asyncio.Task[Report]) -> None:
        """See that the journal knows the end of a job that could not write it down itself."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, HeadraceError) or not (error or task.cancelled()):
            return
        state = JobState.FAILED if error else JobState.INTERRUPTED
        with contextlib.suppress(StorageError):
            stored = await in_thread(self._journal.get, job.id)
            if not stored.state.ended:
                ended = _ended(stored, state, f"{type(error).__name__}: {error}" if error else "")
                await in_thread(self._journal.update, ended)

    async def _execute(
        self, job: Job, recorder: _Recorder, on_cancel: JobState, *, patient: bool = False
    ) -> Report:
        """Run the job and keep its journal; the state after a cancellation is `on_cancel`,
        unless `cancel` was the cause. A `patient` one waits for who else writes to the
        collection: jobs of other processes, which `cancel` ends too."""
        try:
            async with recorder:
                order = await in_thread(self._order, job)
                await self._ingest(job, order, recorder.tally, patient=patient)
        except asyncio.CancelledError:
            by_call = job.id in self._cancelled
            self._cancelled.discard(job.id)
            await recorder.end(JobState.CANCELLED if by_call else on_cancel)
            raise
        except HeadraceError as error:
            with contextlib.suppress(StorageError):  # the disk may be the very cause
                await recorder.end(JobState.FAILED, error.message)
            raise
        await recorder.end(JobState.DONE)
        await in_thread(self._uploads.drop, job.id)
        return recorder.tally.report

    async def _ingest(self, job: Job, order: Order, tally: Tally, *, patient: bool) -> None:
        while True:
            try:
                await ingest(self._collections, self._models, job.collection, order, tally)
                if self._config.collection(job.collection).compress_passages:
                    rerankers = self._config.rerankers(job.collection)
                    await compress(self._collections, self._models, job.collection, rerankers)
            except Busy as error:
                if not patient or error.pid is None:  # None: not the collection's writer
                    raise
            else:
                return
            await asyncio.sleep(_BUSY_SECONDS)

    def _clean(self) -> None:
        """Uploads of jobs that are done or forgotten are of no more use."""
        jobs = self._journal.list()
        self._uploads.sweep({job.id for job in jobs if job.state is not JobState.DONE})

    def _order(self, job: Job) -> Order:
        options = self._config.collection(job.collection)
        assert options.embedder is not None
        candidates: list[Candidate]
        if job.uploaded:
            candidates = self._uploads.candidates(job.id, job.paths)
            roots = []
        else:
            paths = [Path(path) for path in job.paths]
            candidates = discover(paths, follow_links=self._config.ingest.follow_links)
            roots = [path.absolute() for path in paths if path.exists()] if job.prune else []
        return Order(
            candidates=candidates,
            prune=roots,
            embedder=options.embedder,
            chunker=options.chunker,
            labels=job.labels,
            default_labels=options.labels,
            metadata=job.metadata,
            options=self._config.ingest,
        )

    def _live(self, job: Job, *, files: bool = True) -> Job:
        """The job with the numbers of this moment, if it runs here."""
        if self._running is None or self._running[0].id != job.id or job.state.ended:
            return job
        tally = self._running[2]
        report = tally.report
        if not files:
            report = msgspec.structs.replace(report, files=())
        return msgspec.structs.replace(job, progress=tally.progress, report=report)


class _Recorder:
    """Takes a job's numbers to the journal, not more often than people look."""

    def __init__(
        self, job: Job, journal: Journal, progress: Callable[[Progress], None] | None
    ) -> None:
        self.tally = Tally(self._changed)
        self._job = job
        self._journal = journal
        self._progress = progress
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        await self._store(self._job)
        self._task = asyncio.create_task(self._keep())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and kind is None:
            self._task.result()  # the journal failed; say so

    async def end(self, state: JobState, error: str = "") -> None:
        job = msgspec.structs.replace(self._job, report=self.tally.report)
        await self._store(_ended(job, state, error))

    def _changed(self) -> None:
        self._news.set()
        if self._progress is not None:
            self._progress(self.tally.progress)

    async def _keep(self) -> None:
        last = 0.0
        while True:
            await self._news.wait()
            await asyncio.sleep(max(0.0, last + _JOURNAL_SECONDS - time.monotonic()))
            self._news.clear()
            last = time.monotonic()
            await self._store(self._job)

    async def _store(self, job: Job) -> None:
        job = msgspec.structs.replace(job, progress=self.tally.progress)
        await in_thread(self._journal.update, job, self.tally.new_files())


def _ended(job: Job, state: JobState, error: str = "") -> Job:
    return msgspec.structs.replace(job, state=state, error=error, finished=now())
