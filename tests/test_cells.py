"""Cells of a reading: resumed, shared by processes, the same bytes whoever made them."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from closerlook.errors import StoreError, UsageError
from closerlook.landscape.cells import Cells, clear, joining

NAMES = [f"cell-{number}" for number in range(12)]


def squares(number: int) -> dict[str, np.ndarray]:
    return {"value": np.array([number**2])}


def values(found: Any) -> list[int]:
    return [int(arrays["value"][0]) for arrays in found]


EXPECTED = [number**2 for number in range(12)]


def test_without_a_folder_everything_stays_in_memory() -> None:
    assert values(Cells(None, {}).fill(NAMES, squares)) == EXPECTED


def test_a_stopped_reading_goes_on_where_it_was(tmp_path: Path) -> None:
    made: list[int] = []

    def until(stop: int) -> Any:
        def make(number: int) -> dict[str, np.ndarray]:
            if number == stop:
                raise KeyboardInterrupt
            made.append(number)
            return squares(number)

        return make

    with pytest.raises(KeyboardInterrupt):
        Cells(tmp_path, {"a": 1}).fill(NAMES, until(5))
    assert values(Cells(tmp_path, {"a": 1}).fill(NAMES, until(-1))) == EXPECTED
    assert sorted(made) == list(range(12))


def test_another_reading_is_refused(tmp_path: Path) -> None:
    Cells(tmp_path, {"points": 3, "policy": "keep"})
    with pytest.raises(UsageError, match="holds a reading with other points; give this one a folder of its own"):
        Cells(tmp_path, {"points": 4, "policy": "keep"})


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"not an archive at all"])
def test_a_damaged_cell_is_made_again(tmp_path: Path, damage: bytes) -> None:
    cells = Cells(tmp_path, {})
    cells.fill(NAMES, squares)
    whole = (tmp_path / "cell-3.npz").read_bytes()
    (tmp_path / "cell-3.npz").write_bytes(damage)
    assert values(cells.fill(NAMES, squares)) == EXPECTED
    assert (tmp_path / "cell-3.npz").read_bytes() == whole


def test_a_folder_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    cells = Cells(folder, {})

    def make(number: int) -> dict[str, np.ndarray]:
        (folder / "reading.json").unlink(missing_ok=True)
        return squares(number)

    with pytest.raises(StoreError, match="was removed while it was read"):
        cells.fill(NAMES, make)


def test_a_helper_begins_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    with joining(), pytest.raises(StoreError, match=r"no reading in .* to help with"):
        Cells(folder, {})
    assert not folder.exists()
    begun = Cells(folder, {})
    begun.fill(NAMES, squares)
    with joining():
        late = Cells(folder, {})
    clear(folder)
    assert not folder.exists()
    folder.mkdir()  # as it is for a moment while it is being removed
    with pytest.raises(StoreError, match="was removed while it was read"):
        late.fill(NAMES, squares)
    assert [path.name for path in folder.iterdir()] == ["LOCK"]


def _work(folder: Path, log: Path, slow: float) -> None:
    def make(number: int) -> dict[str, np.ndarray]:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {number}\n")
        time.sleep(slow)
        return squares(number)

    Cells(folder, {}).fill(NAMES, make)


def test_processes_share_the_cells_and_each_is_made_once(tmp_path: Path) -> None:
    context, log = multiprocessing.get_context("fork"), tmp_path / "log"
    workers = [context.Process(target=_work, args=(tmp_path / "shared", log, 0.05)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    lines = [line.split() for line in log.read_text().splitlines()]
    assert sorted(int(number) for _, number in lines) == list(range(12))
    assert len({process for process, _ in lines}) > 1
    Cells(tmp_path / "alone", {}).fill(NAMES, squares)
    for name in NAMES:
        assert (tmp_path / f"shared/{name}.npz").read_bytes() == (tmp_path / f"alone/{name}.npz").read_bytes()


def test_a_killed_process_leaves_its_cell_to_the_others(tmp_path: Path) -> None:
    context, log = multiprocessing.get_context("fork"), tmp_path / "log"
    first = context.Process(target=_work, args=(tmp_path / "shared", log, 60))
    first.start()
    while not log.exists() or not log.read_text():
        time.sleep(0.01)
    second = context.Process(target=_work, args=(tmp_path / "shared", log, 0))
    second.start()
    while len(log.read_text().splitlines()) < 12:  # all but the one that the first holds
        time.sleep(0.01)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    second.join(20)
    first.join()
    assert second.exitcode == 0
    assert values(Cells(tmp_path / "shared", {}).fill(NAMES, squares)) == EXPECTED
