"""SIGTERM and Ctrl-C during training: the step is finished and saved first; a second one ends at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Interruption:
    """Whether somebody asked training to stop: with a signal, or with the file `stop`."""

    def __init__(self, stop: Path | None = None) -> None:
        self.asked, self._stop = False, stop

    def look(self) -> bool:
        """Whether it is asked by now."""
        self.asked = self.asked or (self._stop is not None and self._stop.exists())
        return self.asked

    def _note(self, _signal: int, _frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    @contextmanager
    def listening(self) -> Iterator["Interruption"]:
        """Takes both signals inside (in the main thread, where alone they can be taken)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
