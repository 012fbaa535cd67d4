"""Progress, one kind for all: bars for who waits at a terminal or in a notebook, lines for who reads a log."""

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

SILENCE = 8.0  # seconds after which a line says what goes on


class Bar(tqdm):
    """A bar of tqdm that counts where it shows nothing as well, so that a line can say how far it is."""

    active: list["Bar"] = []  # those at work, the innermost last

    def __init__(self, over: Iterable | None, **options: Any) -> None:
        super().__init__(over, **options)
        self.label = options.get("desc", "")
        Bar.active.append(self)

    def __iter__(self) -> Iterator:
        if not self.disable:
            yield from super().__iter__()
            return
        try:
            for thing in self.iterable:
                yield thing
                self.n += 1
        finally:
            self.close()

    def update(self, n: float | None = 1) -> bool | None:
        """Count."""
        if self.disable:
            self.n += n or 0
        return super().update(n)

    def close(self) -> None:
        """End it."""
        super().close()
        if self in Bar.active:
            Bar.active.remove(self)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other  # tqdm compares places on the screen


def progress(over: Iterable | None = None, **options: Any) -> Bar:
    """`tqdm` over an iterable, or by hand with `total`.

    It is silent where nobody looks: where output goes to a file, and where the environment variable `TQDM_DISABLE` is
    set, as it is when a notebook is executed to be kept. A command then says it in `lines_of_progress`. Of several
    processes the main one speaks.

    Parameters
    ----------
    over, options
        As for `tqdm`; the bar goes away when it is done unless `leave` is set.
    """
    unheard = bool(os.environ.get("TQDM_DISABLE")) or not _speaks()
    silent = True if unheard else None  # none: tqdm looks whether there is a terminal
    return Bar(over, **{"leave": False, "disable": silent, **options})


@contextmanager
def lines_of_progress(silence: float = SILENCE) -> Iterator[None]:
    """Print a line on what goes on every so many seconds, to the error stream, unless a bar shows it already."""
    if not _speaks():
        yield
        return
    done, began, stream = threading.Event(), time.monotonic(), sys.stderr

    def say() -> None:
        while not done.wait(silence):
            bars = list(Bar.active)
            if not any(not bar.disable for bar in bars):
                print(_line(bars, time.monotonic() - began), file=stream, flush=True)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _speaks() -> bool:
    """Whether this is the main process of those that a launcher has started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _line(bars: list[Bar], seconds: float) -> str:
    """How far the bars are, and for how long it has been going on."""
    far = [f"{b.label}: {b.n:,} of {b.total:,}" if b.total else f"{b.label}: {b.n:,}" for b in bars]
    return f"{seconds:,.0f} s  " + ("; ".join(far) or "at work")
