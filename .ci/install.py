"""Create the virtual environment and install sarmatch into it (standard library only).

Usage: python3 .ci/install.py VENV

uv installs in seconds what pip installs in minutes; where uv is not to be had, pip does the same work.
Versions come from `constraints.txt`, so that two machines get the same set.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pip_setting(python: Path, name: str) -> str | None:
    """One value of pip's own configuration, which uv does not read."""
    answer = subprocess.run(
        [python, "-m", "pip", "config", "get", f"global.{name}"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def has_nvidia_driver() -> bool:
    """Whether an NVIDIA driver answers on this machine."""
    tool = shutil.which("nvidia-smi")
    return tool is not None and subprocess.run([tool, "-L"], capture_output=True, check=False).returncode == 0


def main() -> None:
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        sys.exit(f"sarmatch needs Python 3.11 or 3.12, this is {sys.version.split()[0]}; try: make PYTHON=python3.12")
    venv = Path(sys.argv[1])
    python = venv.absolute() / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)

    target = f"{ROOT}[{'gpu' if has_nvidia_driver() else 'cpu'},notebooks,voila,dev]"
    what = ["install", "-q", "-c", ROOT / "constraints.txt", "-e", target]
    environment = os.environ.copy()
    links = pip_setting(python, "find-links")
    if links and Path(links).is_dir():
        environment["UV_FIND_LINKS"] = links
    index = pip_setting(python, "index-url")
    if index:
        environment["UV_DEFAULT_INDEX"] = index

    pip = [python, "-m", "pip"]
    quiet = ["--disable-pip-version-check", "-q"]
    print(f"installing {target.removeprefix(str(ROOT))} and its dependencies, one to three minutes", flush=True)
    has_uv = subprocess.run([*pip, "install", *quiet, "uv"], check=False).returncode == 0
    if has_uv and subprocess.run([*pip[:2], "uv", "pip", *what], env=environment, check=False).returncode == 0:
        return
    subprocess.run([*pip, *what, "--disable-pip-version-check"], check=True)


if __name__ == "__main__":
    main()
