"""Opens image files with GDAL, and is the only module that does: what lies in somebody's folder is not trusted.

GDAL would open a file by its content whatever its name, follow a virtual raster to other files and into the network,
and take overviews, masks and places from files beside it. Here the first bytes decide on one of a few drivers that read
nothing but the file itself, and what a file beside it may say (its place, its nodata value) is read by this module.

Two kinds of images are opened as what they mean: complex SAR as its magnitude, and a palette as its colours.
"""

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import rasterio
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError

#: First bytes of a file and the GDAL driver that may open it. Others may not: a VRT, say, would open further files.
DRIVERS = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"BM": "BMP",
}

#: The same formats by Pillow's names: of others it would, say, hand an EPS to Ghostscript.
PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")

#: Options of GDAL under which files are opened and read.
GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # nothing lies beside a file: no overviews, masks or other sidecars
    # Without these GDAL reads a truncated PNG or a damaged JPEG without complaint: the rest is stray memory or grey.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
}

#: What Pillow raises on forged files; the last two without a word about which file it was.
UNREADABLE = (
    UnidentifiedImageError,
    RasterioError,
    OSError,
    SyntaxError,
    Image.DecompressionBombError,
    ValueError,
    TypeError,
)

ORIENTATION = 274  # tag of EXIF and TIFF: 1 is upright
WORLD_FILES = {"PNG": ("pgw", "pngw"), "JPEG": ("jgw", "jpgw", "jpegw"), "GTiff": ("tfw", "tifw"), "BMP": ("bpw",)}
MOST_SIDECAR_BYTES = 2**20
OWN_COLOURS = {ColorInterp.cyan, ColorInterp.hue, ColorInterp.Y}  # the first bands of CMYK, HSL and YCbCr


class BadImageError(ValueError):
    """An image file that cannot be used; the message names it."""


def require_file(path: Path) -> None:
    """Refuse what is no regular file: a pipe would block for ever, a link may lead nowhere.

    Raises
    ------
    BadImageError
        Where it does not exist, is not a file, or is empty, and where its name is not text in UTF-8.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise BadImageError(f"{shown(path)}: its name is not UTF-8, expected a name that is") from None
    if not path.is_file():
        raise BadImageError(f"{path}: {'is not a file' if path.exists() else 'does not exist'}")
    if not path.stat().st_size:
        raise BadImageError(f"{path}: is empty (0 bytes)")


def shown(path: Path | str) -> str:
    """A path as it can be printed: a file name need not be text in any encoding."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def driver_of(path: Path) -> str:
    """The driver that may open a file, by its first bytes.

    Raises
    ------
    BadImageError
        Where it is no readable file (see `require_file`) or of no known format.
    """
    require_file(path)
    with path.open("rb") as stream:
        start = stream.read(16)
    driver = next((d for magic, d in DRIVERS.items() if start.startswith(magic)), None)
    if driver is None:
        raise BadImageError(f"{path}: is not an image of a known format: it begins with {start!r}")
    return driver


def open_raster(path: Path) -> rasterio.DatasetReader:
    """Open an image; read it under `reading()`, for GDAL looks at its options when it reads too.

    Complex values are opened as their magnitude (float32) and a palette as its colours (one band where all are grey);
    then `driver` is `VRT`, and the tag `SARMATCH_TYPE` says what the file holds.

    Raises
    ------
    BadImageError
        Where it cannot be opened, points to other files, or its colours are not red, green and blue.
    """
    driver = driver_of(path)
    if os.path.lexists(f"{path}.msk"):
        raise BadImageError(
            f"{path}: its mask is a file of its own, {path.name}.msk, which is not read; expected the mask inside the "
            "image, or a nodata value"
        )
    try:
        with reading():
            file = rasterio.open(os.path.abspath(path), driver=driver)
            try:
                return _meant(file, path)
            except BaseException:
                file.close()
                raise
    except (RasterioError, OSError) as error:
        raise BadImageError(f"{path}: not readable as an image ({_cause(error)})") from error


def write_geotiff(path: Path, bands: NDArray, tags: Mapping[str, str] | None = None, **about: Any) -> None:
    """Write bands `(C, H, W)` as a GeoTIFF of their type.

    Parameters
    ----------
    path
        The file.
    bands
        Any numbers that GDAL has a type for.
    tags
        Kept beside the pixels.
    about
        Of rasterio: `crs`, `transform`, `nodata`, `compress` and the like. A file without a place is no mistake.
    """
    count, height, width = bands.shape
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with reading(), rasterio.open(path, "w", driver="GTiff", **shape, **about) as file:
        file.write(bands)
        file.update_tags(**tags or {})


@contextmanager
def reading() -> Iterator[None]:
    """GDAL's options, and no warning where a file has no place on the ground: a pair needs none."""
    with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _cause(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, RasterioError) and error.__cause__ else error
    return " ".join(str(cause).split())


def _meant(file: rasterio.DatasetReader, path: Path) -> rasterio.DatasetReader:
    """The file itself, or a view of it as what its numbers mean."""
    if file.tags(ns="OVERVIEWS"):
        raise BadImageError(f"{path}: names a file of overviews outside of itself: {file.tags(ns='OVERVIEWS')}")
    if file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        raise BadImageError(f"{path}: is stored as a negative (0 is white), expected 0 to be black")
    colours = file.colorinterp
    if OWN_COLOURS & set(colours) or "CMYK" in file.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE", ""):
        raise BadImageError(f"{path}: its bands are {[c.name for c in colours]}, expected red, green, blue or grey")
    if any(t.startswith("complex") for t in file.dtypes):
        bands = [_MAGNITUDE.format(band=i + 1, path=escape(os.path.abspath(path))) for i in range(file.count)]
    elif ColorInterp.palette in colours:
        bands = _coloured(file, path)
    else:
        return file
    place = [f"<SRS>{escape(file.crs.to_wkt())}</SRS>"] if file.crs else []
    if not file.transform.is_identity:
        place.append(f"<GeoTransform>{', '.join(map(repr, file.transform.to_gdal()))}</GeoTransform>")
    head = f'<VRTDataset rasterXSize="{file.width}" rasterYSize="{file.height}">'
    note = f'<Metadata><MDI key="SARMATCH_TYPE">{file.dtypes[0]}</MDI></Metadata>'
    file.close()
    return rasterio.open("".join([head, *place, note, *bands, "</VRTDataset>"]))


_SOURCE = '<SourceFilename relativeToVRT="0">{path}</SourceFilename><SourceBand>{band}</SourceBand>'
_MAGNITUDE = (
    '<VRTRasterBand dataType="Float32" band="{band}" subClass="VRTDerivedRasterBand">'
    "<PixelFunctionType>mod</PixelFunctionType><SourceTransferType>CFloat32</SourceTransferType>"
    f"<SimpleSource>{_SOURCE}</SimpleSource></VRTRasterBand>"
)


def _coloured(file: rasterio.DatasetReader, path: Path) -> list[str]:
    """Bands of a view of a palette image: its colours, or its greys."""
    if file.count != 1 or file.nodata is not None:
        raise BadImageError(
            f"{path}: has a palette beside {file.count - 1} other bands and nodata {file.nodata}, expected an image "
            "of colours"
        )
    colours = file.colormap(1).values()
    if any(alpha != 255 for *_, alpha in colours):
        raise BadImageError(f"{path}: its palette has transparent colours, expected an image of colours")
    names = ("Gray",) if all(r == g == b for r, g, b, _ in colours) else ("Red", "Green", "Blue")
    source = _SOURCE.format(path=escape(os.path.abspath(path)), band=1)
    return [
        f'<VRTRasterBand dataType="Byte" band="{i}"><ColorInterp>{name}</ColorInterp><ComplexSource>{source}'
        f"<ColorTableComponent>{i}</ColorTableComponent></ComplexSource></VRTRasterBand>"
        for i, name in enumerate(names, start=1)
    ]


def stored_type(file: rasterio.DatasetReader) -> str:
    """Type of the pixels as the file stores them; that of a complex image starts with `complex`."""
    return file.tags().get("SARMATCH_TYPE", file.dtypes[0]) if file.driver == "VRT" else file.dtypes[0]


def has_palette(file: rasterio.DatasetReader) -> bool:
    """Whether an opened image is a palette shown as its colours."""
    return file.driver == "VRT" and not stored_type(file).startswith("complex")


def orientation(path: Path) -> int:
    """How an image is to be turned before it is looked at, as EXIF and TIFF count it; 1 where it is upright."""
    require_file(path)
    try:
        with warnings.catch_warnings(), Image.open(path, formats=PILLOW_FORMATS) as image:
            warnings.simplefilter("ignore")
            if image.format == "PNG" and "exif" not in image.info and b"eXIf" not in _tail(path):
                return 1  # else Pillow decodes the image to look behind it
            return int(image.getexif().get(ORIENTATION, 1))
    except UNREADABLE:
        return 1  # Pillow reads only a part of the TIFFs that there are


def _tail(path: Path, size: int = 2**16) -> bytes:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - size))
        return stream.read()


class Sidecar(NamedTuple):
    """What a file beside an image says of it."""

    crs: CRS | None = None
    transform: Affine | None = None
    nodata: float | None = None


def sidecar_of(path: Path) -> Sidecar:
    """CRS, transform and nodata value that `IMAGE.aux.xml` or a world file give; only the transform is in both.

    Raises
    ------
    BadImageError
        Where there is one that cannot be read; it is named.
    """
    world = world_file(path)
    if world is not None:
        _require_beside(world, path)
    transform = None if world is None else _world_transform(world)
    beside = path.with_name(f"{path.name}.aux.xml")
    if not beside.is_file():
        return Sidecar(transform=transform)
    try:
        _require_beside(beside, path)
        text = _small_text(beside)
        if "<!DOCTYPE" in text:
            raise ValueError("it declares entities")
        root = ElementTree.fromstring(text)
        srs, place, nodata = (root.findtext(t) for t in ("SRS", "GeoTransform", "PAMRasterBand/NoDataValue"))
        return Sidecar(
            CRS.from_wkt(srs) if srs else None,
            transform or (Affine.from_gdal(*map(float, place.split(","))) if place else None),
            float(nodata) if nodata else None,
        )
    except (ValueError, TypeError, ElementTree.ParseError, CRSError, OSError) as error:
        raise BadImageError(f"{beside}: not readable as what is known of {path.name} ({error})") from error


def world_file(path: Path) -> Path | None:
    """The world file beside an image, where there is one."""
    suffixes = [*(s for group in WORLD_FILES.values() for s in group), "wld"]
    beside = (path.with_suffix(f".{s}") for s in suffixes)
    return next((p for p in beside if p.is_file()), None)


def _require_beside(sidecar: Path, path: Path) -> None:
    """Refuse a link that leads out of the folder of the image."""
    if sidecar.resolve().parent not in (path.parent.resolve(), path.resolve().parent):
        raise BadImageError(f"{sidecar}: is a link to {sidecar.resolve()}, expected a file beside {path.name}")


def _world_transform(path: Path) -> Affine:
    """Six numbers of a world file; they place the centre of the first pixel."""
    try:
        a, d, b, e, c, f = (float(word) for word in re.split(r"\s+", _small_text(path).strip()))
    except (ValueError, OSError) as error:
        raise BadImageError(f"{path}: expected the six numbers of a world file ({error})") from error
    return Affine(a, b, c, d, e, f) @ Affine.translation(-0.5, -0.5)


def _small_text(path: Path) -> str:
    if path.stat().st_size > MOST_SIDECAR_BYTES:
        raise ValueError(f"it has {path.stat().st_size} bytes, expected at most {MOST_SIDECAR_BYTES}")
    return path.read_text(encoding="utf-8-sig")
