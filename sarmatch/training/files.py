"""What a run keeps on disk: its training state, and what it was made with."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sarmatch.files import write
from sarmatch.home import ROOT

PACKAGES = ("torch", "timm", "numpy", "accelerate", "scikit-image", "POT", "torch-geometric")


def save_training_state(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, **progress: Any) -> None:
    """Weights, optimiser state and progress in one safetensors file: no pickle, so loading it runs no code.

    `progress` is kept as JSON in the file's header.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write(path, lambda p: save_file(tensors, p, metadata={"progress": json.dumps(progress)}))


def load_training_state(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore what `save_training_state` wrote into `model` and `optimizer`; returns the progress."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        progress = json.loads(file.metadata()["progress"])
    tensors = load_file(path)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
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
