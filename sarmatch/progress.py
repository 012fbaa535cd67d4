"""Progress bars, one kind for all: with rate and time left, for who waits at a terminal or in a notebook."""

import os
from collections.abc import Iterable

from tqdm.auto import tqdm


def progress(over: Iterable | None = None, **options) -> tqdm:
    """`tqdm` over an iterable, or by hand with `total`.

    It is silent where nobody looks: where output goes to a file, and where the environment variable `TQDM_DISABLE` is
    set, as it is when a notebook is executed to be kept.

    Parameters
    ----------
    over, options
        As for `tqdm`; the bar goes away when it is done unless `leave` is set.
    """
    silent = True if os.environ.get("TQDM_DISABLE") else None  # none: tqdm looks whether there is a terminal
    return tqdm(over, **{"leave": False, "disable": silent, **options})
