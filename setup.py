"""A wheel carries what `sarmatch locate` takes by default (`sarmatch.paths.shipped`); all else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = [
    *(f"data/dense/{name}" for name in ("config.json", "metrics.json", "model.safetensors")),
    "data/results/localization/calibration.json",
]


class BuildWithShipped(build_py):
    """Lays the shipped files into the package; an editable install finds them where they are."""

    def run(self) -> None:
        """Build the package, and copy them beside it."""
        super().run()
        for name in [] if self.editable_mode else SHIPPED:
            to = Path(self.build_lib, "sarmatch", "shipped", name)
            self.mkpath(str(to.parent))
            self.copy_file(name, str(to))

    def get_source_files(self) -> list[str]:
        """What a source archive has to hold."""
        return [*super().get_source_files(), *SHIPPED]


setup(cmdclass={"build_py": BuildWithShipped})
