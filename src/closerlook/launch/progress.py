"""Progress on stderr: a bar on a terminal, a line per step in a log, both with an estimate of what remains."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

from closerlook.launch.graph import Event

_TELLING = 0.02  # share of the work below which the time so far says nothing about the rest


class Progress:
    """Called with every step that came to its end."""

    def __init__(self, count: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._count, self._ended = count, 0
        self._started = time.monotonic()
        self._reused = 0.0
        self._bar = None
        if self._stream.isatty():
            form = "{l_bar}{bar}| {postfix}"
            self._bar = tqdm(total=1.0, file=self._stream, bar_format=form, leave=True)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        self._ended += 1
        if event.outcome == "reused":
            self._reused = event.share
        text = f"[{self._ended}/{self._count}] {event.run} {event.outcome}{self._remaining(event)}"
        if event.message:
            text += f": {event.message}"
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(event.share - self._bar.n)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()

    def _remaining(self, event: Event) -> str:
        worked = event.share - self._reused
        if event.outcome == "reused" or worked < _TELLING or event.share >= 1:
            return ""
        rest = (time.monotonic() - self._started) * (1 - event.share) / worked
        return f", about {rest / 60:.0f} min remain" if rest > 90 else f", about {rest:.0f} s remain"
