"""Is reading the bottleneck? Pairs per second that the loader gives, beside what the encoder can eat, in one run.

Usage: python benchmarks/pipeline.py

For each kind of data: the loader alone, the encoder's training step alone, and both. A ratio above 1 says that reading
is not the bottleneck. Folders of images and GeoTIFFs are written to a temporary place from a simulated town.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import torch
from PIL import Image
from rasterio import Affine

import sarmatch as sm
from sarmatch.losses import EmbeddedBatch
from sarmatch.patches import TrainingPairs, guard_band, pair_overlap, training_regions
from sarmatch.scenes import Scene

PAIRS, BATCH, SIDE = 1024, 128, 2000


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Median duration after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def images(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Optical `uint8 (3, SIDE, SIDE)` and SAR intensity `float32 (1, SIDE, SIDE)` of a corner of the town `north`."""
    area = scene.area("north")
    optical = (area.map.read(0, 0, SIDE, SIDE) * 255).astype(np.uint8)
    return optical, area.strip("n1").read(0, 0, SIDE, SIDE)


def write_pairs(folder: Path, optical: np.ndarray, sar: np.ndarray) -> Path:
    """A folder of PNG pairs of 256 px."""
    grey = (np.clip((10 * np.log10(sar[0]) + 25) / 30, 0, 1) * 255).astype(np.uint8)
    for name in ("opt", "sar"):
        (folder / name).mkdir(parents=True)
    for i, (r, c) in enumerate((r, c) for r in range(0, SIDE - 255, 256) for c in range(0, SIDE - 255, 256)):
        window = (slice(r, r + 256), slice(c, c + 256))
        Image.fromarray(optical.transpose(1, 2, 0)[window]).save(folder / "opt" / f"{i:03d}.png")
        Image.fromarray(grey[window]).save(folder / "sar" / f"{i:03d}.png")
    return folder


def write_geotiff(folder: Path, optical: np.ndarray, sar: np.ndarray) -> Path:
    """A map and a strip as GeoTIFF at 0.5 m in UTM zone 32."""
    (folder / "strips").mkdir(parents=True)
    for name, image in (("map.tif", optical), ("strips/s1.tif", sar)):
        profile = {"count": len(image), "height": SIDE, "width": SIDE, "dtype": image.dtype, "tiled": True}
        place = {"crs": "EPSG:32632", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)}
        with rasterio.open(folder / name, "w", driver="GTiff", compress="deflate", **profile, **place) as file:
            file.write(image)
    return folder


def rates(scene: Scene) -> dict[str, float]:
    """Pairs per second of the loader, the encoder of the demo, and both."""
    config = sm.recipe("demo", profile="quick")
    rectangles = training_regions(scene, ("cross_area",), guard_band(scene, scene.patch_size))
    pairs = TrainingPairs(scene, rectangles, scene.patch_size, config.image_size, PAIRS, config.offset, seed=0)
    loader = torch.utils.data.DataLoader(pairs, batch_size=BATCH)
    encoder, loss = sm.create_encoder(config.encoder, config.image_size), sm.create_loss(config.loss)
    batch = next(iter(loader))

    def step(batch: dict[str, torch.Tensor]) -> None:
        overlap = pair_overlap(batch["place"], scene.patch_size)
        loss(EmbeddedBatch(*encoder(batch["query"], batch["reference"]), overlap=overlap)).backward()

    found = {
        "loader": PAIRS / seconds(lambda: list(loader)),
        "encoder": BATCH / seconds(lambda: step(batch)),
        "both": PAIRS / seconds(lambda: [step(b) for b in loader]),
    }
    return found | {"loader / encoder": found["loader"] / found["encoder"]}


def main() -> None:
    simulated = sm.load_scene("easy", "quick")
    optical, sar = images(simulated)
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "simulated": simulated,
            "PNG pairs": sm.load_scene(write_pairs(Path(folder) / "pairs", optical, sar)),
            "GeoTIFF": sm.load_scene(write_geotiff(Path(folder) / "tif", optical, sar)),
        }
        table = pd.DataFrame({name: rates(scene) for name, scene in kinds.items()}).T
    print(f"pairs per second, {torch.get_num_threads()} threads, patches of {BATCH} at once")
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
