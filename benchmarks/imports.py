"""CPU seconds of an import and of `sarmatch --help`, beside `import torch`: python benchmarks/imports.py [runs]."""

import resource
import statistics
import subprocess
import sys

COMMANDS = {
    "import torch": ["-c", "import torch"],
    "import sarmatch": ["-c", "import sarmatch"],
    "import sarmatch, torch": ["-c", "import sarmatch, torch"],
    "sarmatch --help": ["-m", "sarmatch.cli", "--help"],
    "a loss": ["-c", "import sarmatch as sm; sm.create_loss('infonce')"],
    "a scene's reader": ["-c", "import sarmatch as sm; sm.load_scene"],
    "a run": ["-c", "import sarmatch as sm; sm.load_run"],
    "every name": ["-c", "import sarmatch as sm; [getattr(sm, name) for name in dir(sm)]"],
}


def cpu_seconds(command: list[str]) -> float:
    """User and system time of one fresh process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(runs: int = 5) -> None:
    """One unmeasured round warms the disk; the rounds take turns, so that all commands see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_ in range(runs + 1):
        for name, command in COMMANDS.items():
            seconds = cpu_seconds(command)
            if round_:
                times[name].append(seconds)
    torch = statistics.median(times["import torch"])
    print(f"{'CPU seconds, ' + str(runs) + ' runs':24} {'median':>7} {'least':>7} {'most':>7} {'/ torch':>8}")
    for name, each in times.items():
        median = statistics.median(each)
        print(f"{name:24} {median:7.2f} {min(each):7.2f} {max(each):7.2f} {median / torch:8.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
