"""Exact resume: what a run needs to go on, and the journal that is cut back to it."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from closerlook import files
from closerlook.errors import MismatchError, StateError, StoreError

INTERVAL = float(os.environ.get("CLOSERLOOK_CHECKPOINT_SECONDS", "20"))


class Journal:
    """Rows as JSON lines, written while they come, cut back at resume to a step and whether the run ended there.

    With `rare` rows there is no file before the first one.
    """

    def __init__(self, path: Path | None, upto: int, diverged: bool = False, rare: bool = False) -> None:
        self.rows: list[dict[str, Any]] = []
        self._path = path
        if path is not None:
            # The row of a divergence carries the number of the last step taken: it may come after the state's.
            rows = [row for row in _complete_rows(path) if diverged or "diverged" not in row]
            self.rows = [row for row in rows if row["step"] <= upto]
        if path is not None and rare and not self.rows:
            path.unlink(missing_ok=True)
        elif path is not None:
            files.write_bytes(path, "".join(f"{_line(row)}\n" for row in self.rows).encode())

    @property
    def digest(self) -> str:
        """Hash of the rows: a state goes on only with the rows that were there when it was written."""
        return files.digest("".join(map(_line, self.rows)))

    def add(self, row: dict[str, Any]) -> None:
        """Append one row; it carries its step."""
        self.rows.append(row)
        if self._path is not None:
            files.append_line(self._path, _line(row))

    def sync(self) -> None:
        """Wait until the rows are on the disk: a state must not outlive the rows before it."""
        if self._path is not None and self._path.exists():
            files.sync(self._path)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def _complete_rows(path: Path) -> list[dict[str, Any]]:
    """The rows up to the first that is none: a kill can leave half a line at the end, which is written again."""
    rows = list[dict[str, Any]]()
    for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else ():
        try:
            row = json.loads(line)
            rows.append({**row, "step": int(row["step"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            break  # damaged from outside: the digest in the state tells
    return rows


class StateFile:
    """The state from which a run goes on, written every few seconds and at the end."""

    def __init__(self, path: Path | None, seconds: float | None = None) -> None:
        self.path = path
        self._seconds = INTERVAL if seconds is None else seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to write again."""
        return self.path is not None and time.monotonic() - self._last >= self._seconds

    def write(self, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
        """Replace the state."""
        if self.path is not None:
            files.write_tensors(self.path, tensors, note)
            self._last = time.monotonic()

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last state, or None at the start.

        Raises
        ------
        StateError
            It is damaged.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            return files.read_tensors(self.path)
        except StoreError as error:
            raise self.unusable(str(error)) from error

    def unusable(self, reason: str) -> StateError:
        """The error of a state from which the run cannot go on."""
        return StateError(f"{self.path}: {reason}; delete it, and the same call starts from the beginning")


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors; its settings come from the recipe, not from the file."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, entries in state.items()
        for name, value in entries.items()
        if value is not None
    }


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put saved tensors back, in each parameter's own memory format: another one would change the bits."""
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, saved in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, entry = rest.partition(".")
            if int(index) >= len(parameters):
                raise MismatchError("the saved optimizer trained more parameters; train the same ones, or start anew")
            like = parameters[int(index)]
            same = saved.shape == like.shape
            value = torch.empty_like(like, dtype=saved.dtype).copy_(saved) if same else saved.clone()
            state.setdefault(int(index), {})[entry] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
