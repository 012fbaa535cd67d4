"""What the explorer knows and answers, without a widget: queries, methods, answers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sarmatch.explorer.finders import ALONE, Finder, HeatMap, finders
from sarmatch.explorer.sources import Asked, Disturbance, Source, asked, uploaded
from sarmatch.figures import method_words, to_display
from sarmatch.scenes import Raster, Scene
from sarmatch.search import Candidates
from sarmatch.training import Run
from sarmatch.training.runs import task

LONGEST = 50  # results that are shown
COUNT = 60  # queries to choose from


@dataclass(frozen=True)
class Settings:
    """How a query is answered.

    Attributes
    ----------
    method, refiner : str
        Names in `Explorer.methods` and `Explorer.refiners`.
    k : int
        Length of the list that the refiner is given and that is shown.
    disturbance : Disturbance
        What is done to the query first.
    """

    method: str
    refiner: str = ALONE
    k: int = 10
    disturbance: Disturbance = field(default_factory=Disturbance)


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found for one query.

    Attributes
    ----------
    source : Source
        The window that was asked with, its offset included.
    image : float32 (S, S)
        The query as it was asked, for display.
    candidates : Candidates
        One list, best first.
    places : tuple of str
        What each candidate is: a key of `sarmatch.figures.PLACES`, `candidate` where nobody knows.
    errors : float64 (K,) or None
        Metres from the true place; None where there is no true place or there are no metres.
    area : str
        Of the map that is shown: where the query lies, else where the first candidate does.
    heat : HeatMap or None
        Scores of all its places.
    true : float64 (2,) or None
        Where the query lies, local metres.
    seconds : float
        That the answer took.
    """

    source: Source
    image: NDArray[np.float32]
    candidates: Candidates
    places: tuple[str, ...]
    errors: NDArray[np.float64] | None
    area: str
    heat: HeatMap | None
    true: NDArray[np.float64] | None
    seconds: float


class Explorer:
    """A finished run, asked query by query.

    Parameters
    ----------
    run
        What `sarmatch.load_run` gives.
    scene
        That of the run by default.
    protocol, kind
        Which of its test queries; the last of its protocols, where an area is unseen, and arbitrary ones.
    count, seed
        How many queries there are to choose from, and the seed that they are drawn with.

    Attributes
    ----------
    queries : list of Source
        To choose from, labelled by number, area and strip.
    methods : tuple of str
        Names of what a query can be searched with; `words` says them.

    Raises
    ------
    ValueError
        Where the scene holds no such query.
    """

    def __init__(
        self,
        run: Run,
        scene: Scene | None = None,
        protocol: str | None = None,
        kind: str = "arbitrary",
        count: int = COUNT,
        seed: int | None = None,
    ) -> None:
        self.run, self.scene = run, run.scene() if scene is None else scene
        protocol = protocol or run.config.protocols[-1]
        table, self.tiles = task(run.config, self.scene, protocol, kind, count=count, seed=seed)
        self.size = int(self.tiles["size"].iloc[0])
        self.queries = [self._source(i, row) for i, row in enumerate(table.head(count).itertuples(index=False))]
        self._made: dict[str, Finder] = {}
        self._make = finders(run, self.scene, self.tiles)
        self.methods = tuple(self._make)
        self.tile_image = lru_cache(maxsize=4096)(self._tile_image)
        self.failures = lru_cache(maxsize=64)(self._failures)

    def _source(self, number: int, row) -> Source:
        label = f"{number}: {row.area}, {row.strip}"
        raster = self.scene.strip(row.area, row.strip)
        return Source(label, raster, row.row, row.col, row.size, row.area, (row.positive, *row.semi))

    @property
    def side_m(self) -> float | None:
        """Side of a tile in metres; None where the scene has no coordinates."""
        return None if self.scene.pixel_size is None else self.size * self.scene.pixel_size

    def finder(self, method: str) -> Finder:
        """A method, made when it is first asked for."""
        if method not in self._make:
            raise ValueError(f"no method is called {method!r}; there are {self.methods}")
        if method not in self._made:
            self._made[method] = made = self._make[method]()
            first = asked(self.queries[0], Disturbance())
            made.find([first], 1)  # what it makes of the map once is made now, and not while somebody waits
            made.heat(first, self.queries[0].area)
        return self._made[method]

    def refiners(self, method: str) -> tuple[str, ...]:
        """Names of what can follow a method, the search alone first."""
        return tuple(self.finder(method).refiners)

    @staticmethod
    def words(name: str) -> str:
        """What a method or a refiner is called."""
        return method_words(name)

    def listed(self, text: str = "", failures_of: Settings | None = None) -> list[int]:
        """Numbers of the queries whose label holds a text, of those that a method fails on where one is given."""
        keep = [i for i, query in enumerate(self.queries) if text.strip().lower() in query.label.lower()]
        if failures_of is None:
            return keep
        missed = self.failures(failures_of.method, failures_of.refiner, failures_of.k)
        return [i for i in keep if missed[i]]

    def _failures(self, method: str, refiner: str, k: int) -> NDArray[np.bool_]:
        """Of which queries, as they are, the first candidate is not the true tile: bool `(Q,)`."""
        found = self.finder(method).find([asked(q, Disturbance()) for q in self.queries], k, refiner)
        return np.array([self._places(q, found.rows([i]).first(1))[0] != "true" for i, q in enumerate(self.queries)])

    def answer(self, source: Source, settings: Settings) -> Answer:
        """Search for a query, and say of every candidate what it is.

        Raises
        ------
        ValueError
            Where the query cannot be cut so far from its place, or a name is not known.
        """
        began = time.perf_counter()
        finder = self.finder(settings.method)
        if settings.refiner not in finder.refiners:
            raise ValueError(
                f"no refiner of {settings.method!r} is called {settings.refiner!r}; there are {tuple(finder.refiners)}"
            )
        source = source.moved(settings.disturbance, self.scene.pixel_size)
        query = asked(source, settings.disturbance)
        found = finder.find([query], settings.k, settings.refiner)
        found = found.rows(slice(None)) if found.valid.all() else found.first(int(found.valid.sum()))
        true = self.place_of(source)
        errors = None if true is None else np.hypot(*(found.xy[0] - true).T)
        area = source.area or found.areas[found.area[0, 0]]
        heat = finder.heat(query, area)
        seconds = time.perf_counter() - began
        image = self.display(query)
        return Answer(source, image, found, self._places(source, found), errors, area, heat, true, seconds)

    def place_of(self, source: Source) -> NDArray[np.float64] | None:
        """Where a query is centred, local metres `(2,)`; None where nobody knows, or there are no metres."""
        if not source.area or not self.scene.has_coordinates:
            return None
        half = source.size / 2
        return self.scene.metres(source.area, np.array([source.row + half]), np.array([source.col + half]))[0]

    def _places(self, source: Source, found: Candidates) -> tuple[str, ...]:
        """What each candidate of a list is to its query.

        With metres: `true` where the true place lies within the square of a tile about it, `overlaps` where the two
        squares touch. Without: by the tiles that the query is known to lie on.
        """
        true, k = self.place_of(source), found.scores.shape[1]
        if true is not None:
            apart = np.abs(found.xy[0] - true).max(-1) / self.side_m
            apart[np.array(found.areas)[found.area[0]] != source.area] = np.inf
            return tuple("true" if a <= 0.5 else "overlaps" if a < 1 else "wrong" for a in apart)
        if not source.tiles or found.tile is None:
            return ("candidate",) * k
        first, *others = source.tiles
        return tuple("true" if t == first else "overlaps" if t in others else "wrong" for t in found.tile[0])

    def window_of(self, found: Candidates, i: int) -> tuple[str, int, int]:
        """Area, row and column of the window of the map that the `i`-th candidate stands for."""
        if found.places is None:
            tile = self.tiles.iloc[found.tile[0, i]]
            return str(tile["area"]), int(tile["row"]), int(tile["col"])
        area = found.areas[found.area[0, i]]
        (x, y), (x0, y0) = found.xy[0, i], self.scene.area(area).origin
        px = self.scene.pixel_size
        return area, round((y0 - y) / px - self.size / 2), round((x - x0) / px - self.size / 2)

    def _tile_image(self, area: str, row: int, col: int) -> NDArray[np.float32]:
        """The map at a window, for display `(S, S, 3)`; white beyond its edge."""
        raster: Raster = self.scene.area(area).map
        return to_display(np.nan_to_num(raster.read(row, col, self.size, self.size, fill=1.0), nan=1.0), raster.scale)

    def display(self, query: Asked) -> NDArray[np.float32]:
        """A query as it is shown, `(S, S)`."""
        return to_display(query.pixels, query.scale)

    def query_image(self, number: int) -> NDArray[np.float32]:
        """A query of the list as it is shown."""
        return self.display(asked(self.queries[number], Disturbance()))

    def query_at(self, answer: Answer, i: int) -> Source:
        """The SAR image at the `i`-th candidate, to ask with next: of the same strip where that covers it.

        Raises
        ------
        ValueError
            Where no strip covers it.
        """
        area, row, col = self.window_of(answer.candidates, i)
        strips: Sequence[Raster] = sorted(
            self.scene.area(area).strips, key=lambda strip: strip.name != answer.source.raster.name
        )
        for strip in strips:
            if strip.covers(row, col, self.size).all():
                same = (self.tiles["area"] == area) & (self.tiles["row"] == row) & (self.tiles["col"] == col)
                label = f"result {i + 1} of {answer.source.label.partition(' < ')[0]}"
                return Source(
                    f"{label} < {area}, {strip.name}", strip, row, col, self.size, area, tuple(np.flatnonzero(same))
                )
        raise ValueError(f"result {i + 1}: no SAR strip covers this place, so there is nothing to ask with")

    def upload(self, name: str, content: bytes) -> Source:
        """The middle of somebody's own image, see `sarmatch.explorer.sources.uploaded`."""
        return uploaded(name, content, self.scene, self.run.config.sar_bands, self.size)
