"""What is in a data set's folder, and what is wrong with it, before a scene is built or a model trained.

Every image is opened with GDAL (rasterio), read once by windows, so that a file larger than memory can be checked, and
hashed. Nothing is written, not even to the cache. The last word have the reader and the splits, as in a run: they are
asked for the scene and its patches, and their error is quoted.
"""

import hashlib
import html
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from sarmatch.datasets import mosaic
from sarmatch.datasets.images import DENSEST
from sarmatch.datasets.rasters import (
    BadImageError,
    open_raster,
    orientation,
    reading,
    require_file,
    shown,
    sidecar_of,
    stored_type,
)
from sarmatch.datasets.reader import COLUMNS, Reader
from sarmatch.datasets.registry import READERS, folder_of, reader_of
from sarmatch.patches.ready import require_splits
from sarmatch.progress import progress
from sarmatch.scenes.scene import Scene

FACTS = (
    *("height", "width", "bands", "dtype", "low", "high", "mean", "nodata", "crs", "pixel_size"),
    *("bytes", "sha", "problem"),
)
"""Columns of `DataCheck.files` after those of the reader's table."""

WINDOW_PIXELS = 2**22
"""Values read at a time, over all bands."""

#: Values outside of which an image of that scale (see `sarmatch.scenes.scene.SCALES`) makes no sense.
PLAUSIBLE = {
    "reflectance": (-1.0, 10.0),
    "amplitude": (0.0, math.inf),
    "intensity": (0.0, math.inf),
    "decibel": (-150.0, 100.0),
}

CANNOT_LOAD = "the set cannot be loaded"
CANNOT_RUN = "the set can be loaded, but a run refuses it"
LEFT_OUT = "left out, for it has no partner"


@dataclass(frozen=True, eq=False)
class DataCheck:
    """What `check_data` found; prints as a page, and shows as tables in a notebook.

    Parameters
    ----------
    folder
        As given.
    reader, about
        Name of the layout that was recognised, and one line on it; empty where none was.
    files
        One row per file of the reader's table: its columns (`path`, `modality`, `key`, `split`, `area`, `group`), then
        `height` and `width` in pixels, `bands`, `dtype`, `low`, `high` and `mean` of the values that are data,
        `nodata` (share of pixels that are not: a value is NaN or infinite, or all are the file's nodata value), `crs`
        and `pixel_size` (in its units) where the file says so, `bytes`, `sha` (BLAKE2b of the content), and `problem`,
        a sentence, or empty.
    summary
        One row per modality, area and split.
    problems
        Sentences, most important first: file, value and consequence.
    notes
        What is worth knowing and no fault.
    usable
        Whether `load_scene` works on the folder as it is, and its scene can be split for a run (`require_splits`).
    """

    folder: Path
    reader: str
    about: str
    files: pd.DataFrame
    summary: pd.DataFrame
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    usable: bool

    def _facts(self) -> dict[str, str]:
        count = self.files["modality"].value_counts()
        kinds = ", ".join(f"{n} {modality}" for modality, n in count.items())
        return {
            "folder": str(self.folder),
            "layout": f"{self.reader}: {self.about}" if self.reader else "not recognised",
            "files": f"{kinds}, {self.files['bytes'].sum() / 1e6:.1f} MB" if kinds else "none",
            "usable": "yes" if self.usable else "NO",
        }

    def _lists(self) -> dict[str, tuple[str, ...]]:
        return {f"problems: {len(self.problems) or 'none'}": self.problems, "notes": self.notes}

    def __str__(self) -> str:
        lines = [f"{name:8} {value}" for name, value in self._facts().items()]
        if len(self.summary):
            lines += ["", self.summary.to_string(index=False, float_format="{:.4g}".format)]
        for title, sentences in self._lists().items():
            shown = [f"  - {s}".replace("\n", "\n    ") for s in sentences[:30]]
            more = [f"  and {len(sentences) - 30} more, in .problems and .files"] if len(sentences) > 30 else []
            lines += ["", title, *shown, *more] if sentences or title != "notes" else []
        # A file name need not be text in any encoding.
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode()

    def _repr_html_(self) -> str:
        facts = pd.Series(self._facts()).to_frame().to_html(header=False)
        lists = [
            f"<p>{title}</p><ul>{''.join(f'<li>{html.escape(s)}</li>' for s in sentences)}</ul>"
            for title, sentences in self._lists().items()
        ]
        summary = self.summary.to_html(index=False, float_format="{:.4g}".format) if len(self.summary) else ""
        return "".join([facts, summary, *lists]).encode("utf-8", "backslashreplace").decode()


class Finding(NamedTuple):
    """Something wrong with one file."""

    row: int  # label in the table of files
    what: str
    fatal: bool  # whether it can keep the set from loading
    then: str  # what follows where it does not


def check_data(path: str | Path) -> DataCheck:
    """Look through a data set's folder: what it is, what it holds, what is wrong with it. Reads all, writes nothing.

    Parameters
    ----------
    path
        Folder that `sm.load_scene` shall load. Never an error: what is no folder, or in no known layout, is said.

    Examples
    --------
    >>> check_data("no/such/folder").usable
    False
    """
    folder = Path(path)
    reader, table, files = None, None, pd.DataFrame(columns=[*COLUMNS, *FACTS])
    try:
        folder = folder_of(path)
        reader = reader_of(folder)
        table = reader.files(folder).reset_index(drop=True)
    except Exception as error:  # a check outlives whatever a reader stumbles over
        said = _sentence(error)
        if reader is None:
            return _report(folder, None, files, [said], _inside(folder))
    if table is None or table.empty:
        beside, links = _walk(folder, files)
        said = f"{CANNOT_LOAD}: {said if table is None else f'{folder}: no image found'}"
        return _report(folder, reader, files, [said, *links], beside)

    files = pd.concat([table[list(COLUMNS)], _inspect_all(list(table["path"]))], axis=1)
    beside, links = _walk(folder, files)
    found = [*_broken(files), *_mismatched(reader, files)]
    scene, refusal, warned = _try(reader, folder, table)
    problems: list = []
    sentences: dict[int, list[str]] = {row: [] for row in files.index}
    if refusal is not None:
        fatal = {f.row for f in found if f.fatal}
        for row in (r for r, p in files["path"].items() if str(p) in refusal and r not in fatal):
            sentences[row].append(_line_about(files["path"][row], refusal))
            fatal.add(row)
        if fatal and len(fatal) < len(table):
            scene = _try(reader, folder, table.drop(index=fatal))[0]
        rescued = f" (without the {len(fatal)} file(s) at fault it could)" if scene else ""
        problems.append(f"{CANNOT_LOAD}{rescued}: {refusal}")
    elif scene is not None:
        try:
            require_splits(scene)
        except Exception as error:  # as above
            refusal = _sentence(error)
            problems.append(f"{CANNOT_RUN}: {refusal}")
    unloadable = refusal is not None and not problems[0].startswith(CANNOT_RUN)
    found += _suspicious(files, scene)
    alone = {f.row for f in found if f.then == LEFT_OUT}
    for row, what, keeps_from_loading, then in found:
        if keeps_from_loading and (row in alone or unloadable):
            then = LEFT_OUT if row in alone else CANNOT_LOAD
        sentences[row].append(what)
        problems.append(f"{files['path'][row]}: {what}; {then}")
    files["problem"] = ["; ".join(said) for said in sentences.values()]
    return _report(folder, reader, files, [*problems, *links], [*_notes(files), *warned, *beside], refusal is None)


def _report(
    folder: Path,
    reader: Reader | None,
    files: pd.DataFrame,
    problems: list[str],
    notes: list[str],
    usable: bool = False,
) -> DataCheck:
    name, about = (reader.name, reader.about) if reader else ("", "")
    return DataCheck(folder, name, about, files, _summary(files), tuple(problems), tuple(notes), usable)


def _try(reader: Reader, folder: Path, table: pd.DataFrame) -> tuple[Scene | None, str | None, list[str]]:
    """The reader's scene, or its error, and its warnings."""
    token = mosaic.KEEP.set(False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            scene, error = reader.scene(folder, table), None
        except Exception as raised:  # as above
            scene, error = None, _sentence(raised)
        finally:
            mosaic.KEEP.reset(token)
    return scene, error, list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)))


def _sentence(error: Exception) -> str:
    """What a reader says by itself; other errors, which it should not raise, with their type."""
    return str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"


def _line_about(path: Path, error: str) -> str:
    line = next((line for line in error.splitlines() if str(path) in line), error)
    return line.partition(f"{path}: ")[2] or line.strip()


# One file


def _inspect_all(paths: list[Path]) -> pd.DataFrame:
    """`FACTS` of all files, several at a time."""
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            facts = list(progress(pool.map(_inspect, paths), total=len(paths), desc="checking", unit="file"))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # an interrupt shall not wait for the rest of the files
            raise
    table = pd.DataFrame(facts, columns=list(FACTS))
    numbers = ["height", "width", "bands", "low", "high", "mean", "nodata", "pixel_size"]
    return table.assign(**table[numbers].apply(pd.to_numeric))


def _inspect(path: Path) -> dict[str, object]:
    """`FACTS` of one file, as far as they can be had; `problem` says what stopped it."""
    facts: dict[str, object] = dict.fromkeys(("dtype", "crs", "sha", "problem"), "") | {"bytes": 0}
    try:
        require_file(path)
        facts["bytes"] = path.stat().st_size
        with path.open("rb") as stream:
            facts["sha"] = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        with reading(), open_raster(path) as image:
            facts |= _header(image, orientation(path) >= 5)
            too_large = _too_large(image, facts["bytes"])
            return facts | ({"problem": too_large} if too_large else _values(image, sidecar_of(path).nodata))
    except BadImageError as error:
        said = str(error).removeprefix(f"{shown(path)}: ")
        return facts | {"problem": said.replace("not readable as an image", "cannot be read", 1)}
    except (OSError, ValueError, RasterioError) as error:
        cause = error.__cause__ if isinstance(error, RasterioError) and error.__cause__ else error
        return facts | {"problem": f"cannot be read ({' '.join(str(cause).split())})"}


def _header(image: rasterio.DatasetReader, turned: bool) -> dict[str, object]:
    a, d = image.transform.a, image.transform.d
    return {
        "height": image.width if turned else image.height,
        "width": image.height if turned else image.width,
        "bands": image.count,
        "dtype": stored_type(image) if image.driver == "VRT" else "/".join(dict.fromkeys(image.dtypes)),
        "crs": image.crs.to_string() if image.crs else "",
        "pixel_size": math.nan if image.transform.is_identity else math.hypot(a, d),
    }


def _too_large(image: rasterio.DatasetReader, size: int) -> str:
    """Why a file must not be decoded: it would fill the memory, or the time of day."""
    pixels, limit = image.height * image.width, 2 * (Image.MAX_IMAGE_PIXELS or math.inf)
    if pixels <= limit:
        return ""
    raw = pixels * sum(np.dtype(t).itemsize for t in image.dtypes)
    if image.driver in ("GTiff", "VRT") and raw <= DENSEST * size:
        return ""  # a large map, which is read by windows
    return f"its header claims {image.height} x {image.width} px in {size} bytes, which is not decoded"


def _values(image: rasterio.DatasetReader, beside: float | None) -> dict[str, object]:
    """Range and mean of the data, the share of pixels without, and what is wrong with either."""
    low, high, total, count, data, pixels = math.inf, -math.inf, 0.0, 0, 0, image.height * image.width
    for window in _windows(image):
        part = image.read(window=window)
        valid = _is_data(part, beside if image.nodata is None else image.nodata)
        values = part if valid.all() else part[:, valid]
        data += int(np.count_nonzero(valid))
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            with np.errstate(over="ignore"):
                total, count = total + float(values.sum(dtype=np.float64)), count + values.size
    problem = ""
    if not data:
        problem, low, high = "no pixel holds data", math.nan, math.nan
    elif low == high:
        problem = f"every pixel is {low:g}, a constant image"
    mean = total / count if count else math.nan
    return {"low": low, "high": high, "mean": mean, "nodata": 1 - data / pixels, "problem": problem}


def _is_data(part: np.ndarray, nodata: float | None) -> NDArray[np.bool_]:
    """Pixels `(H, W)` of `(C, H, W)` that hold data: a colour may hold the nodata value in some of its bands."""
    valid = np.isfinite(part).all(0) if part.dtype.kind == "f" else np.ones(part.shape[1:], bool)
    return valid if nodata is None or math.isnan(nodata) else valid & (part != nodata).any(0)


def _windows(image: rasterio.DatasetReader) -> Iterator[Window]:
    """Windows of about `WINDOW_PIXELS` values that cover an image, of whole blocks where these are smaller."""
    budget, (block_h, block_w) = max(1, WINDOW_PIXELS // image.count), image.block_shapes[0]

    def whole(side: int, block: int) -> int:
        return max(1, side // block * block or side)

    cols = min(image.width, max(block_w, whole(math.isqrt(budget), block_w)), budget)
    rows = min(image.height, whole(max(1, budget // cols), block_h))
    for row in range(0, image.height, rows):
        for col in range(0, image.width, cols):
            yield Window(col, row, min(cols, image.width - col), min(rows, image.height - row))


# The set


def _broken(files: pd.DataFrame) -> Iterator[Finding]:
    """What was wrong with a file by itself."""
    for row, problem in files.loc[files["problem"] != "", "problem"].items():
        flat = problem.startswith(("every pixel", "no pixel"))
        then = "nothing can be matched there" if flat else "what is read of it fails or is wrong"
        yield Finding(row, problem, True, then)


def _mismatched(reader: Reader, files: pd.DataFrame) -> Iterator[Finding]:
    """What is wrong between an optical file and its SAR partner."""
    pairs = _paired(reader, files)
    if pairs is not None:
        yield from _unlike_partners(pairs)
        yield from _doubled(files)
        yield from _without_partner(files)


def _suspicious(files: pd.DataFrame, scene: Scene | None) -> Iterator[Finding]:
    """What a set loads with, and should not have."""
    yield from _leaking_groups(files)
    yield from _same_content(files, scene)
    yield from _other_types(files)
    yield from _implausible(files, scene)


def _paired(reader: Reader, files: pd.DataFrame) -> pd.DataFrame | None:
    """Optical and SAR files side by side where their keys say so; `None` where a map and its strips have own names."""
    sides = [files[files["modality"] == m].reset_index(names="row") for m in ("optical", "sar")]
    pairs = sides[0].merge(sides[1], on=["area", "key"], suffixes=("_optical", "_sar"))
    shared = len(pairs) / max(1, len(sides[0]))
    return pairs if shared > 0.5 or (shared and not reader.has_coordinates) else None


def _unlike_partners(pairs: pd.DataFrame) -> Iterator[Finding]:
    known = pairs.dropna(subset=["height_optical", "height_sar"])
    unlike = (known["height_optical"] != known["height_sar"]) | (known["width_optical"] != known["width_sar"])
    for p in known[unlike].itertuples():
        own, other = _size(p.height_sar, p.width_sar), _size(p.height_optical, p.width_optical)
        what = f"is {own}, but its optical partner {p.path_optical} is {other}"
        yield Finding(p.row_sar, what, True, "both are read as they are")


def _size(height: float, width: float) -> str:
    return f"{height:.0f} x {width:.0f} px"


def _doubled(files: pd.DataFrame) -> Iterator[Finding]:
    for (modality, _, key), same in files.groupby(["modality", "area", "key"]):
        for row in same.index[1:]:
            what = f"is a second {modality} file for {key!r}, beside {same['path'].iloc[0]}"
            yield Finding(row, what, True, "only one of the two is used")


def _without_partner(files: pd.DataFrame) -> Iterator[Finding]:
    sides = files.groupby(["area", "key"])["modality"].transform("nunique")
    for row, modality in files.loc[sides == 1, "modality"].items():
        other = "SAR" if modality == "optical" else "optical"
        yield Finding(row, f"there is no {other} file for {files['key'][row]!r}", False, LEFT_OUT)


def _leaking_groups(files: pd.DataFrame) -> Iterator[Finding]:
    known = files[(files["group"] != "") & (files["split"] != "")]
    for group, same in known.groupby("group"):
        if same["split"].nunique() > 1:
            other = same[same["split"] != same["split"].iloc[0]].iloc[0]
            what = (
                f"is in {same['split'].iloc[0]!r}, and {other['path']} of its group {group!r} in {other['split']!r}, "
                "though files of one group may share ground"
            )
            yield Finding(same.index[0], what, False, "a leak between splits: numbers will be too good")


def _same_content(files: pd.DataFrame, scene: Scene | None) -> Iterator[Finding]:
    """Files with the same bytes; where the data set names no split, the one that the scene gives counts."""
    roles = {s.name: r for a in scene.areas for s, r in zip(a.strips, a.roles, strict=True)} if scene else {}
    split = {f.Index: f.split or roles.get(f.key, "") for f in files.itertuples()}
    sound = files[(files["sha"] != "") & files["high"].notna() & (files["low"] != files["high"])]
    for _, same in sound.groupby("sha", sort=False):
        first = same.iloc[0]
        for row, file in same.iloc[1:].iterrows():
            if file["modality"] != first["modality"]:
                then = "an optical and a SAR image cannot be the same"
            elif split[row] != split[same.index[0]]:
                then = f"a leak between {split[same.index[0]]!r} and {split[row]!r}: numbers will be too good"
            elif file["area"] != first["area"]:
                then = "a leak between two areas, where one is kept for the test"
            else:
                then = "counted twice"
            yield Finding(row, f"has the same content as {first['path']}", False, then)


def _other_types(files: pd.DataFrame) -> Iterator[Finding]:
    for modality, same in files[files["dtype"] != ""].groupby("modality"):
        usual = same["dtype"].mode()[0]
        share = f"{(same['dtype'] == usual).sum()} of {len(same)} {modality} files are {usual}"
        for row, dtype in same.loc[same["dtype"] != usual, "dtype"].items():
            yield Finding(row, f"is {dtype}, while {share}", False, "its values mean something else")


def _implausible(files: pd.DataFrame, scene: Scene | None) -> Iterator[Finding]:
    """Values that the scale does not allow; without a scene that of SAR is unknown. Readers may convert integers."""
    sar = {s.scale for a in scene.areas for s in a.strips} if scene else set()
    scales = {"optical": "reflectance"} | ({"sar": sar.pop()} if len(sar) == 1 else {})
    for row, file in files[files["dtype"].str.startswith("float")].iterrows():
        scale = scales.get(file["modality"])
        low, high = PLAUSIBLE.get(scale, (-math.inf, math.inf))
        if file["low"] < low or file["high"] > high:
            what = f"values lie in {file['low']:g} to {file['high']:g}, expected {low:g} to {high:g} of a {scale}"
            yield Finding(row, what, False, "its numbers are not what the set says they are")


def _notes(files: pd.DataFrame) -> Iterator[str]:
    sizes = [_size(h, w) if h > 0 else "" for h, w in zip(files["height"], files["width"], strict=True)]
    bands = [f"{n:.0f}" if n > 0 else "" for n in files["bands"]]
    pixel_size = [f"{p:g}" if p > 0 else "" for p in files["pixel_size"]]
    for what, values in {"size": sizes, "bands": bands, "crs": files["crs"], "pixel size": pixel_size}.items():
        for modality, same in pd.Series(list(values), files.index).groupby(files["modality"]):
            count = same[same != ""].value_counts()
            if len(count) > 1:
                shown = ", ".join(f"{value} ({n} files)" for value, n in count.iloc[:4].items())
                yield f"{modality} images differ in {what}: {shown}{', ...' if len(count) > 4 else ''}"
    holes = files[(files["nodata"] > 0) & (files["nodata"] < 1)]
    if len(holes):
        worst = holes.loc[holes["nodata"].idxmax()]
        yield (
            f"{len(holes)} of {len(files)} files have pixels without data, at most {worst['nodata']:.1%} "
            f"({worst['path']}); no patch is cut there"
        )


def _summary(files: pd.DataFrame) -> pd.DataFrame:
    """Counts, sizes and ranges by modality, area and split."""

    def span(values: pd.Series, show: Callable[[float], str] = "{:g}".format) -> str:
        ends = [show(v) for v in (values.min(), values.max()) if v == v]
        return " to ".join(dict.fromkeys(ends)) or "-"

    return pd.DataFrame(
        {
            **dict(zip(("modality", "area", "split"), group, strict=True)),
            "files": len(part),
            "height": span(part["height"]),
            "width": span(part["width"]),
            "bands": span(part["bands"]),
            "dtype": ", ".join(sorted(set(part["dtype"]) - {""})) or "-",
            "values": span(pd.concat([part["low"], part["high"]])),
            "mean": part["mean"].mean(),
            "nodata": part["nodata"].mean(),
            "MB": part["bytes"].sum() / 1e6,
            "problems": (part["problem"] != "").mean(),
        }
        for group, part in files.groupby(["modality", "area", "split"])
    )


# The folder


def _walk(folder: Path, files: pd.DataFrame) -> tuple[list[str], list[str]]:
    """What lies beside the reader's files, counted by suffix, and links that lead out of the folder."""
    listed, root = {os.fspath(p) for p in files["path"]}, os.path.realpath(folder)
    beside: Counter[str] = Counter()
    links = []
    for place, folders, names in os.walk(folder):
        for path in (os.path.join(place, n) for n in sorted([*folders, *names])):
            if os.path.islink(path) and not os.path.realpath(path).startswith(root + os.sep):
                links.append(f"{path}: is a link to {os.path.realpath(path)}, outside of the folder; breaks with it")
        beside.update(Path(n).suffix.lower() or "without suffix" for n in names if os.path.join(place, n) not in listed)
    what = "beside the images above the folder holds" if listed else "the folder holds"
    return ([f"{what} {_counts(beside)}"] if beside else []), links


def _counts(suffixes: Counter) -> str:
    most = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n} {suffix}" for suffix, n in most[:8]) + (", ..." if most[8:] else "") or "nothing"


def _inside(folder: Path) -> list[str]:
    """What lies in a folder that no reader knows, and which of its folders one does: a parent is easily mistaken."""
    try:
        inside = sorted(folder.iterdir())
        kinds = Counter("folders" if p.is_dir() else p.suffix.lower() or "without suffix" for p in inside)
        known = [(p, next((r.name for r in READERS if r.recognises(p)), "")) for p in inside if p.is_dir()]
    except OSError:
        return []
    return [f"{folder} holds {_counts(kinds)}", *(f"{p} is recognised as {name}" for p, name in known if name)]
