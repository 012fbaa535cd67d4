"""What a run keeps on disk: weights, its training state, and what it was made with."""

import copy
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file
from torch import nn

from sarmatch.atomic_io import write
from sarmatch.paths import ROOT

STATE = "training.safetensors"
WEIGHTS = "model.safetensors"
REFINER = "refiner.safetensors"
OFFSET_HEAD = "offset_head.safetensors"
HISTORY = "history.csv"
LEARNED = (WEIGHTS, REFINER, OFFSET_HEAD, HISTORY)  # all that a training leaves beside its state
ENVIRONMENT = "environment.json"
WRITTEN = ("data/results/*.csv", f"data/results/*{ENVIRONMENT}")  # what comparisons write
VERSION = 2  # of the training state; 1 had no number, no sampler and no schedule
PACKAGES = ("torch", "timm", "numpy", "accelerate", "scikit-image", "POT", "torch-geometric")

Parts = dict[str, torch.nn.Module | torch.optim.Optimizer]


def save_weights(encoder: nn.Module, path: Path) -> None:
    """Weights as safetensors: no pickle, so loading them runs no code. What two branches share is kept once.

    Equal weights give equal bytes: not so `safetensors.torch.save_model`, whose header is in an order of chance.
    """
    kept: dict[tuple, tuple[str, torch.Tensor]] = {}
    for name, value in sorted(_contiguous(encoder).state_dict().items()):
        kept.setdefault((value.data_ptr(), value.shape) if value.numel() else (name,), (name, value))
    save_file(dict(kept.values()), path)


def load_weights(encoder: nn.Module, path: Path) -> None:
    """Weights from safetensors, with an error that names the file where they do not fit.

    Raises
    ------
    FileNotFoundError
        Where there are none.
    ValueError
        Where the file is no safetensors, its weights are of another encoder, or one is not finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no weights here; the run was not trained to the end of its first epoch")
    try:
        filled = _contiguous(encoder)
        missing, unexpected = load_model(filled, path, strict=False)
        unknown = set(unexpected) - filled.state_dict().keys()  # older files hold some shared tensors twice
        if missing or unknown:
            raise RuntimeError(f"missing: {sorted(missing)}, unknown: {sorted(unknown)}")
        broken = [name for name, value in filled.state_dict().items() if not torch.isfinite(value).all()]
        if broken:
            raise ValueError(f"{path}: weights are not finite: {broken[0]}")
        encoder.load_state_dict(filled.state_dict())
    except SafetensorError as error:
        raise ValueError(f"{path}: not readable as safetensors ({error})") from error
    except RuntimeError as error:
        raise ValueError(f"{path}: these weights are of another encoder than the config names ({error})") from error


def _contiguous(module: nn.Module) -> nn.Module:
    """A copy whose tensors are laid out as safetensors needs them to see which are shared."""
    return copy.deepcopy(module).to(memory_format=torch.contiguous_format)


def save_training_state(path: Path, parts: Parts, **progress: Any) -> None:
    """Modules, optimisers and progress in one safetensors file: no pickle, so loading it runs no code.

    `progress` is kept as JSON in the file's header, with the version of this layout.
    """
    tensors: dict[str, torch.Tensor] = {}
    for part, thing in parts.items():
        if isinstance(thing, torch.nn.Module):
            tensors |= {f"{part}/{name}": value for name, value in thing.state_dict().items()}
        else:
            for index, state in thing.state_dict()["state"].items():
                kept = {k: v for k, v in state.items() if v is not None}
                tensors |= {f"{part}/{index}/{name}": torch.as_tensor(value) for name, value in kept.items()}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write(path, lambda p: save_file(tensors, p, metadata={"progress": json.dumps({"version": VERSION} | progress)}))


def load_training_state(path: Path, parts: Parts) -> dict[str, Any]:
    """Restore what `save_training_state` wrote into the same parts; returns the progress.

    Raises
    ------
    ValueError
        Where the file is damaged, or was written by another version of the layout or for other parts.
    """
    try:
        with safe_open(path, "pt") as file:
            progress = json.loads(file.metadata()["progress"])
        tensors = load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: a damaged training state ({error}); delete it to train anew") from error
    version = progress.pop("version", 1)
    if version != VERSION:
        raise ValueError(f"{path}: a training state of version {version}, expected {VERSION}; delete it to train anew")
    try:
        _restore(parts, tensors)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: a training state of other parts ({error}); delete it to train anew") from error
    return progress


def _restore(parts: Parts, tensors: dict[str, torch.Tensor]) -> None:
    for part, thing in parts.items():
        own = {k.removeprefix(f"{part}/"): v for k, v in tensors.items() if k.startswith(f"{part}/")}
        if isinstance(thing, torch.nn.Module):
            thing.load_state_dict(own)
            continue
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in own.items():
            index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
        thing.load_state_dict({"state": state, "param_groups": thing.state_dict()["param_groups"]})


def commit_of(root: Path, ignored: Sequence[str] = ()) -> str:
    """The short hash of a folder's commit, `HASH-dirty` where tracked files have changed since, but for `ignored` ones;
    `unknown` where it is under no version control."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", *(f":(exclude){path}" for path in ignored)
    )
    found = git("describe", "--always")
    return f"{found}-dirty" if found and changed else found or "unknown"


def describe_environment() -> dict[str, str]:
    """Versions, machine and commit that a number was made with.

    Of the commit records are no part: one comparison that is recorded leaves the next one the code that it was.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {device}",
        "threads": str(torch.get_num_threads()),
        "commit": commit_of(ROOT, WRITTEN),
        **{name: metadata.version(name) for name in PACKAGES},
    }
