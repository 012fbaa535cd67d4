"""Tiny georeferenced fake data: one smooth piece of ground, cut and warped into the layouts that are read."""

import csv
import json
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject

UTM = "EPSG:32632"
WEST, NORTH = 500_000.0, 5_000_000.0  # on the central meridian, 45 degrees north


def field(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Brightness of the ground from 0 to 1 at metres of UTM; waves of 40 m and more, so that 1 m of shift shows."""
    u, v = x - WEST, NORTH - y
    waves = np.sin(u / 13 + np.sin(v / 29)) * np.cos(v / 11) + 0.7 * np.sin((u + 2 * v) / 23 + u * v / 9e3)
    return np.clip(0.5 + 0.25 * waves, 0.02, 0.98)


def on_grid(transform: Affine, shape: tuple[int, int]) -> np.ndarray:
    """The ground at the pixel centres of a grid in UTM."""
    col, row = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    return field(*(transform @ (col, row)))


def write_tiff(
    path: Path, bands: np.ndarray, transform: Affine, crs: str | None = UTM, nodata=None, names=(), tags=None
):
    """Write `(C, H, W)` as a GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = bands.shape
    options = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.open(path, "w", transform=transform, crs=crs, nodata=nodata, **options) as file:
        file.write(bands)
        for i, name in enumerate(names, start=1):
            file.set_band_description(i, name)
        file.update_tags(**(tags or {}))
    return path


def optical(transform: Affine, shape: tuple[int, int], dtype: str = "uint8") -> np.ndarray:
    """Three bands of the ground."""
    top = {"uint8": 255, "uint16": 3000, "float32": 1}[dtype]
    return np.stack([on_grid(transform, shape) * k * top for k in (1.0, 0.8, 0.6)]).astype(dtype)


def sar(transform: Affine, shape: tuple[int, int], bands: int = 1) -> np.ndarray:
    """Intensity of the ground, `float32`: dark ground is -20 dB and bright ground 0 dB."""
    power = 10 ** (2 * on_grid(transform, shape) - 2)
    return np.stack([power / 2**k for k in range(bands)]).astype(np.float32)


def warped(bands: np.ndarray, transform: Affine, crs: str, to_crs: str) -> tuple[np.ndarray, Affine]:
    """An image in another coordinate reference system."""
    from rasterio.warp import calculate_default_transform

    _, height, width = bands.shape
    bounds = rasterio.transform.array_bounds(height, width, transform)
    to, w, h = calculate_default_transform(crs, to_crs, width, height, *bounds)
    out = np.zeros((len(bands), h, w), bands.dtype)
    places = {"src_transform": transform, "src_crs": crs, "dst_transform": to, "dst_crs": to_crs}
    reproject(bands, out, resampling=Resampling.bilinear, **places)
    return out, to


def write_own(
    folder: Path, *, size: int = 240, pixel: float = 1.0, crs: str = UTM, strips: int = 3, dtype="uint8"
) -> Path:
    """A map of `size` px and some strips over its full height, as the layout of one's own data."""
    place = Affine(pixel, 0, WEST, 0, -pixel, NORTH)
    image, where = optical(place, (size, size), dtype), place
    if crs != UTM:
        image, where = warped(image, place, UTM, crs)
    write_tiff(folder / "map.tif", image, where, crs, nodata=0 if crs != UTM else None)
    width = size // strips + 20
    for i in range(strips):
        left = min(i * (size // strips), size - width)
        part = place @ Affine.translation(left, 0)
        write_tiff(folder / "strips" / f"s{i}.tif", sar(part, (size, width)), part, nodata=np.nan)
    return folder


def turned(centre: tuple[float, float], pixel: float, heading_deg: float, shape: tuple[int, int]) -> Affine:
    """A grid about a centre whose rows are turned clockwise by a heading."""
    return (
        Affine.translation(*centre)
        @ Affine.rotation(-heading_deg)
        @ Affine.scale(pixel, -pixel)
        @ Affine.translation(-shape[1] / 2, -shape[0] / 2)
    )


def write_positions(folder: Path, rows: list[dict]) -> None:
    """`positions.csv` of a strips folder."""
    with (folder / "positions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_spacenet6(folder: Path, tiles: int = 2) -> Path:
    """Two strips of `tiles` tiles of 120 px each at 0.5 m, with empty corners, and the orientations file."""
    root = folder / "train" / "AOI_11_Rotterdam"
    stamps = [
        ("20190804111224", "20190804111453"),
        ("20190804120223", "20190804120456"),
        ("20190804135212", "20190804135441"),
    ]
    number = 0
    for s, (start, end) in enumerate(stamps):
        for t in range(tiles):
            place = Affine(0.5, 0, WEST + 60 * t, 0, -0.5, NORTH - 20 * s)
            rgb, power = optical(place, (120, 120)), sar(place, (120, 120), 4)
            rgb[:, :16, :16], power[:, :16, :16] = 0, 0
            for product, image in (("PS-RGB", rgb), ("SAR-Intensity", power)):
                name = f"SN6_Train_AOI_11_Rotterdam_{product}_{start}_{end}_tile_{number}.tif"
                write_tiff(root / product / name, image, place)
            number += 1
    (root / "SummaryData").mkdir(parents=True)
    lines = [f"{start}_{end} {i % 2}" for i, (start, end) in enumerate(stamps)]
    (root / "SummaryData" / "SAR_orientations.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_spacenet6_strips(folder: Path) -> Path:
    """The expanded layout: whole strips, with the incidence angle in the image description, beside PS-RGB tiles."""
    write_spacenet6(folder)
    place = Affine(0.5, 0, WEST, 0, -0.5, NORTH)
    for s, angle in enumerate((34.5, 36.0)):
        note = json.dumps({"collect": {"image": {"center_pixel": {"incidence_angle": angle}}}})
        name = f"SN6_AOI_11_Rotterdam_SAR-MAG-POL_2019080411122{s}_2019080411145{s}.tif"
        image = np.sqrt(sar(place, (200, 240), 4))
        write_tiff(
            folder / "AOIs/AOI_11_Rotterdam/SAR-MAG-POL" / name, image, place, tags={"TIFFTAG_IMAGEDESCRIPTION": note}
        )
    return folder


def write_sen12ms(folder: Path, scenes: int = 2) -> Path:
    """Scenes of 2 x 2 patches of 64 px that overlap by half, at 10 m."""
    for s in range(scenes):
        for p in range(4):
            place = Affine(10, 0, WEST + 20_000 * s + 320 * (p % 2), 0, -10, NORTH - 320 * (p // 2))
            level = on_grid(place @ Affine.scale(0.1), (64, 64))
            s2 = np.stack([level * (k + 1) * 200 for k in range(13)]).astype(np.uint16)
            s1 = np.stack([20 * level - 20, 20 * level - 26]).astype(np.float32)
            for kind, image in (("s1", s1), ("s2", s2)):
                name = f"ROIs1158_spring_{kind}_{s + 1}_p{p + 30}.tif"
                write_tiff(folder / "ROIs1158_spring" / f"{kind}_{s + 1}" / name, image, place)
    return folder


def write_bright(folder: Path) -> Path:
    """Two events with two tiles each."""
    for e, event in enumerate(("bata-explosion", "haiti-earthquake")):
        for t in range(2):
            place = Affine(0.5, 0, WEST + 5_000 * e + 64 * t, 0, -0.5, NORTH)
            name = f"{event}_{t:08d}"
            write_tiff(folder / "pre-event" / f"{name}_pre_disaster.tif", optical(place, (128, 128)), place)
            image = (sar(place, (128, 128)) ** 0.5 * 255).astype(np.uint8)
            write_tiff(folder / "post-event" / f"{name}_post_disaster.tif", image, place)
    return folder


def write_dfc2023(folder: Path, georeferenced: bool = True) -> Path:
    """Two cities with two images each, named by latitude and longitude."""
    root = folder / "track2" / "images"
    for city, latitude in (("Brasilia", -15.8652), ("Berlin", 52.52)):
        for i in range(2):
            longitude = 13.4 + 0.002 * i
            name = f"GF2_{city}_{latitude}_{longitude}.tif"
            place = Affine(0.5, 0, WEST + 64 * i, 0, -0.5, NORTH)
            rgb, radar = optical(place, (128, 128)), sar(place, (128, 128))
            step = 0.5 / 111_320
            where = Affine(step / np.cos(np.radians(latitude)), 0, longitude, 0, -step, latitude)
            for kind, image in (("rgb", rgb), ("sar", radar)):
                crs = "EPSG:4326" if georeferenced else None
                write_tiff(root / kind / name, image, where if georeferenced else Affine.identity(), crs)
    return folder


def same_crs(a: str, b: str) -> bool:
    return CRS.from_user_input(a) == CRS.from_user_input(b)
