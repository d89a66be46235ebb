"""Where steps run: this process, or a pool of single-threaded processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

import torch

from closerlook.launch.memory import keep_freed_memory


class InThisProcess(Executor):
    """Runs what is submitted at once, here."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _Workers(ProcessPoolExecutor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        # Processes are started here and inherit the mask: an interrupt is for their parent, which then stops them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def pool(jobs: int) -> Iterator[Executor]:
    """An executor for `jobs` steps at a time; one job runs in this process.

    An exception, an interrupt too, ends what is still running at once: a step goes on from there the next time.
    """
    if jobs == 1:
        yield InThisProcess()
        return
    others = set(multiprocessing.active_children())
    executor = _Workers(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare)
    try:
        yield executor
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _prepare() -> None:
    """One thread, and an end with the parent: a killed study must not leave workers behind."""
    torch.set_num_threads(1)
    keep_freed_memory()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
