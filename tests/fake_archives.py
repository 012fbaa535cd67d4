"""Tiny fake data in the layouts of pair-only sets, of SN6-CMPC and of the cross-view sets."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

PIXEL = 0.5
CITIES = {
    "NewYork": (40.70, -73.99),
    "Seattle": (47.60, -122.33),
    "Chicago": (41.88, -87.62),
    "SanFrancisco": (37.77, -122.42),
}


def blobs(seed: int, size: int, channels: int) -> np.ndarray:
    """A random image, `uint8 (size, size[, channels])`."""
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 236, (size // 4 + 1, size // 4 + 1, channels), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    image = image[:size, :size]
    return image[..., 0] if channels == 1 else image


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pair(optical: Path, sar: Path, seed: int, size: int = 32) -> None:
    save(optical, blobs(seed, size, 3))
    save(sar, blobs(seed, size, 1))


def write_osdataset(folder: Path) -> Path:
    for split, numbers in (("train", range(1, 7)), ("val", range(1, 3)), ("test", range(1, 4))):
        for n in numbers:
            pair(folder / split / f"opt{n}.png", folder / split / f"sar{n}.png", n)
    return folder


def write_qxs(folder: Path, numbers=(1, 2, 474, 475, 476, 499, 500, 501, 1001, 1002)) -> Path:
    for n in numbers:
        pair(folder / "opt_256_oc_0.2" / f"{n}.png", folder / "sar_256_oc_0.2" / f"{n}.png", n)
    return folder


def write_sen12(folder: Path, by_cover: bool = False) -> Path:
    for scene in (3, 7, 12, 19, 25):
        for patch in (2, 30):
            names = [f"ROIs1970_fall_{s}_{scene}_p{patch}.png" for s in ("s2", "s1")]
            places = (
                ("v_2/urban/s2", "v_2/urban/s1")
                if by_cover
                else (f"ROIs1970_fall/s2_{scene}", f"ROIs1970_fall/s1_{scene}")
            )
            pair(*(folder / p / n for p, n in zip(places, names, strict=True)), 100 * scene + patch)
    return folder


def write_sar2opt(folder: Path) -> Path:
    for split, count in (("train", 10), ("test", 4)):
        for n in range(count):
            pair(folder / f"{split}B" / f"{n}.jpg", folder / f"{split}A" / f"{n}.jpg", n)
    return folder


def write_cmpc(folder: Path, apart: bool = True, shift: float = 60.0) -> Path:
    """A grid of 3 x 3 tiles per split and SAR patches at an offset; `near_id` names the true best tile."""
    for s, split in enumerate(("train", "test")):
        east = 5000.0 * s if apart else 0.0
        tiles = {}
        for n in range(9):
            x, y = 600_000 + east + 100 * (n % 3), 5_750_000 - 100 * (n // 3)
            tiles[f"{n}"] = (x, y)
            _cmpc_patch(folder, split, "opt", f"{n}", x, y)
        for n in range(4):
            x, y = 600_000 + east + 100 * (n % 2) + shift, 5_750_000 - 100 * (n // 2) - shift
            by = sorted(tiles, key=lambda t, x=x, y=y: max(abs(tiles[t][0] - x), abs(tiles[t][1] - y)))
            _cmpc_patch(folder, split, "sar", f"q{n}", x, y, by[:4])
    return folder


def _cmpc_patch(folder: Path, split: str, kind: str, name: str, x: float, y: float, near=None) -> None:
    save(folder / split / "imgs" / kind / f"{name}.png", blobs(hash((x, y)) % 2**31, 200, 3))
    note = {"id": name, "file_path": f"imgs/{kind}/{name}.png", "pos": {"x": x, "y": y}}
    path = folder / split / "annotations" / kind / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(note | ({"near_id": near} if near else {})))


def write_vigor(folder: Path, pitch_px: int = 320) -> tuple[Path, dict[str, np.ndarray]]:
    """A grid of 3 x 3 tiles per city, two panoramas each; also where the panoramas truly are (latitude, longitude)."""
    truth = {}
    for city, (lat, lon) in CITIES.items():
        per_px = 360 / (256 * 2**20)  # degrees of longitude per Mercator pixel
        step_lon, step_lat = pitch_px * per_px, pitch_px * per_px * np.cos(np.radians(lat))
        centres = [(lat - step_lat * (n // 3), lon + step_lon * (n % 3)) for n in range(9)]
        names = [f"satellite_{a:.12f}_{b:.12f}.png" for a, b in centres]
        for i, name in enumerate(names):
            save(folder / city / "satellite" / name, blobs(i, 64, 3))
        lines, places = [], []
        for n, (r, c) in enumerate(((0.3, 0.4), (1.2, 0.9))):  # in tiles, from the first tile's centre
            place = (lat - r * step_lat, lon + c * step_lon)
            places.append(place)
            order = sorted(range(9), key=lambda i, r=r, c=c: max(abs(i // 3 - r), abs(i % 3 - c)))[:4]
            words = [f"pano{n},{place[0]:.6f},{place[1]:.6f},.jpg"]
            for i in order:
                north, east = (r - i // 3) * pitch_px, (i % 3 - c) * pitch_px  # tile minus panorama
                words += [names[i], f"{north:.3f}", f"{east:.3f}"]
            lines.append(" ".join(words))
            save(folder / city / "panorama" / words[0], blobs(n, 32, 3))
        splits = folder / "splits" / city
        splits.mkdir(parents=True)
        (splits / "satellite_list.txt").write_text("\n".join(names) + "\n")
        (splits / "pano_label_balanced.txt").write_text("\n".join(lines) + "\n")
        (splits / "same_area_balanced_train.txt").write_text(lines[0] + "\n")
        (splits / "same_area_balanced_test.txt").write_text(lines[1] + "\n")
        truth[city] = np.array(places)
    return folder, truth


def write_cvusa(folder: Path) -> Path:
    (folder / "splits").mkdir(parents=True)
    for name, numbers in (("train", range(5)), ("val", range(5, 8))):
        rows = []
        for n in numbers:
            save(folder / "bingmap" / "19" / f"{n:07d}.jpg", blobs(n, 40, 3))
            save(folder / "streetview" / "panos" / f"{n:07d}.jpg", blobs(n, 24, 3))
            rows.append(f"bingmap/19/{n:07d}.jpg,streetview/panos/{n:07d}.jpg,streetview/annotations/{n:07d}.png")
        (folder / "splits" / f"{name}-19zl.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_cvact(folder: Path) -> Path:
    names = [f"id{n}" for n in range(6)]
    for n, name in enumerate(names):
        save(folder / "ANU_data_small" / "streetview" / f"{name}_grdView.jpg", blobs(n, 24, 3))
        save(folder / "ANU_data_small" / "satview_polish" / f"{name}_satView_polish.jpg", blobs(n, 40, 3))
    content = {
        "panoIds": np.array(names, dtype=object)[:, None],
        "trainSet": {"trainInd": np.array([[1], [2], [3], [4]])},
        "valSet": {"valInd": np.array([[5], [6]])},
    }
    savemat(folder / "ACT_data.mat", content)
    return folder
