"""Where steps run: this process, or a pool of single-threaded processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

import torch


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
    context = multiprocessing.get_context("spawn")
    heard, stop = context.Pipe(duplex=False)
    executor = _Workers(jobs, mp_context=context, initializer=_prepare, initargs=(heard,))
    try:
        yield executor
    except BaseException:
        stop.send_bytes(b"stop")
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        heard.close()
        stop.close()


def _prepare(stop: Connection) -> None:
    """One thread, and an end with the parent or when it says so: a killed study must not leave workers behind."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel, stop), daemon=True).start()


def _end_with(*signs: int | Connection) -> None:
    connection.wait(signs)
    os._exit(1)
