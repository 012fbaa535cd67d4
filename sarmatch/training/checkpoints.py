"""What a run keeps on disk: its training state, and what it was made with."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sarmatch.atomic_io import write
from sarmatch.paths import ROOT

PACKAGES = ("torch", "timm", "numpy", "accelerate", "scikit-image", "POT", "torch-geometric")


Parts = dict[str, torch.nn.Module | torch.optim.Optimizer]


def save_training_state(path: Path, parts: Parts, **progress: Any) -> None:
    """Modules, optimisers and progress in one safetensors file: no pickle, so loading it runs no code.

    `progress` is kept as JSON in the file's header.
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
    write(path, lambda p: save_file(tensors, p, metadata={"progress": json.dumps(progress)}))


def load_training_state(path: Path, parts: Parts) -> dict[str, Any]:
    """Restore what `save_training_state` wrote into the same parts; returns the progress."""
    with safe_open(path, "pt") as file:
        progress = json.loads(file.metadata()["progress"])
    tensors = load_file(path)
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
    return progress


def describe_environment() -> dict[str, str]:
    """Versions, machine and commit that a number was made with."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {device}",
        "threads": str(torch.get_num_threads()),
        "commit": commit or "unknown",
        **{name: metadata.version(name) for name in PACKAGES},
    }
