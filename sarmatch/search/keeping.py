"""What is made once and kept on disk: alone, or by the processes of an `accelerate launch` together."""

import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sarmatch.atomic_io import write
from sarmatch.encoders import Encoder, device_of


class Whole(Protocol):
    """What can be kept as one file."""

    def save(self, path: Path) -> None:
        """Keep it."""
        ...


T = TypeVar("T")
W = TypeVar("W", bound=Whole)
Part = dict[str, Tensor]
LARGE = 1 << 28  # bytes from which on what is put together is put together on disk
TYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "bool": "BOOL"}  # as safetensors calls them


def processes() -> PartialState:
    """The processes that a launcher has started, and which of them this one is."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))  # which it doesn't look at itself


def kept(path: Path, load: Callable[[Path], T]) -> T | None:
    """What an earlier call has kept in a file; None where it kept nothing, or where it is damaged, with a warning."""
    if not path.exists():
        return None
    try:
        if not path.is_file():
            raise ValueError(f"{path}: not a file")
        return load(path)
    except ValueError as error:
        warnings.warn(f"{path}: damaged, and built anew ({error})", stacklevel=3)
        return None


def kept_or_made(
    path: Path, load: Callable[[Path], W], make: Callable[[Path], W], share: Callable[[Path], object]
) -> W:
    """What an earlier call has kept, else what is made now and kept for the next call.

    Parts of it that are made are kept too, in a folder beside the file, until the whole is: who was interrupted goes on
    with them. Of several processes each makes its share of the parts, the main one puts them together and keeps the
    whole, and the others wait and read it; so all of them have to call this, and see the same folder.

    Parameters
    ----------
    path
        The file.
    load
        Reads it; a ValueError says that it is damaged.
    make
        Makes the whole; given a folder, it takes from there the parts that it finds and keeps there what it makes.
    share
        Makes this process's share of the parts in that folder; called where there are several processes.

    Notes
    -----
    A file that cannot be written is a warning, since this call does not need it.
    """
    state, parts = processes(), path.with_suffix(".parts")
    found = kept(path, load)
    if found is None and state.num_processes > 1:
        share(parts)
    state.wait_for_everyone()  # also who has found it: another one may not have
    with state.main_process_first():
        if found is None and not state.is_main_process:
            found = kept(path, load)
        if found is None:
            found = make(parts)
            if state.is_main_process:
                _keep_if_possible(path, found.save, parts)
    state.wait_for_everyone()
    if state.is_main_process:
        shutil.rmtree(parts, ignore_errors=True)
    return found


def kept_part(path: Path, make: Callable[[], Part]) -> Part:
    """A part that is kept, else one that is made now and kept if there is room."""
    part = kept(path, _load_part)
    if part is None:
        part = make()
        with suppress(OSError):  # of the whole it will be said that it cannot be kept
            write(path, lambda p: save_tensors(p, part))
    return part


@contextmanager
def on_own_device(encoder: Encoder) -> Iterator[None]:
    """An encoder on the device of this process where there are several, and afterwards where it was."""
    state, before = processes(), device_of(encoder)
    if state.num_processes > 1:
        encoder.to(state.device)
    try:
        yield
    finally:
        encoder.to(before)


def exchanged(own: Part, folder: Path) -> Iterator[tuple[str, Tensor]]:
    """What all processes have made, by its name, handed over by files in a folder that all of them see."""
    state = processes()
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    place = Path(
        *broadcast_object_list([tempfile.mkdtemp(dir=folder, suffix=".parts") if state.is_main_process else ""])
    )
    try:
        save_tensors(place / str(state.process_index), own)
        state.wait_for_everyone()
        for number in range(state.num_processes):
            with safe_open(place / str(number), "pt") as file:
                yield from ((name, file.get_tensor(name)) for name in sorted(file.keys()))
        state.wait_for_everyone()
    finally:
        if state.is_main_process:
            shutil.rmtree(place, ignore_errors=True)


def zeros(shape: Sequence[int], dtype: torch.dtype, folder: Path | None) -> Tensor:
    """Zeros in memory; large ones in a file without a name in a folder, which is gone when nobody needs it any more."""
    size = math.prod(shape) * dtype.itemsize
    if folder is None or size < LARGE:
        return torch.zeros(*shape, dtype=dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a disk that is full later would end the process
                os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_numpy(
                np.memmap(file, torch.zeros(0, dtype=dtype).numpy().dtype, "r+", shape=tuple(shape))
            )
    except OSError:  # no room there
        return torch.zeros(*shape, dtype=dtype)


def save_tensors(path: Path, tensors: Mapping[str, Tensor | NDArray], about: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file one tensor after the other, always the same bytes.

    The library's own function copies all of them first, and writes `about` in an order of chance.
    """
    header: dict[str, Any] = {"__metadata__": dict(about or {})}
    arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))  # aligned, as the format wants it
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": TYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(array.data)


def _load_part(path: Path) -> Part:
    try:
        return load_file(path)
    except Exception as error:
        raise ValueError(f"{path}: not readable as a part of a map ({error})") from error


def _keep_if_possible(path: Path, save: Callable[[Path], object], parts: Path) -> None:
    """Keep a file for the next call, in the room of its parts where there is no other.

    A warning says where it cannot be kept, for this call needs it no more.
    """
    try:
        try:
            save(path)
        except OSError:
            shutil.rmtree(parts, ignore_errors=True)
            save(path)
    except OSError as error:
        warnings.warn(f"{path}: cannot be kept, and is built anew by the next call ({error})", stacklevel=4)
