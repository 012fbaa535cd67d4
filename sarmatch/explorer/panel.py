"""The explorer's view: core ipywidgets around `sarmatch.explorer.state`, which does all the work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial

import ipywidgets as widgets
from matplotlib.figure import Figure

from sarmatch.explorer import pages
from sarmatch.explorer.finders import ALONE
from sarmatch.explorer.sources import MAX_BYTES, Disturbance, Source
from sarmatch.explorer.state import COUNT, LONGEST, Answer, Explorer, Settings
from sarmatch.explorer.still import still
from sarmatch.scenes import Scene
from sarmatch.training import Run

PAGE = 8  # queries that are shown at once
LOOKS = [("none", 0.0), ("16 looks", 16.0), ("8 looks", 8.0), ("4 looks", 4.0), ("2 looks", 2.0), ("1 look", 1.0)]
NARROW = {"description_width": "initial"}


class Cards(widgets.HBox):
    """A fixed number of pictures with a button each, made once and filled again and again.

    Parameters
    ----------
    count
        Of cards.
    words
        On the buttons.
    on_click
        Called with the number of the card.
    """

    def __init__(self, count: int, words: str, on_click: Callable[[int], None], height: str) -> None:
        self.pictures = [widgets.HTML() for _ in range(count)]
        self.buttons = [widgets.Button(description=words, layout={"width": "100px"}) for _ in range(count)]
        for i, button in enumerate(self.buttons):
            button.on_click(lambda _, i=i: on_click(i))
        cards = [
            widgets.VBox(pair, layout={"align_items": "center", "flex": "0 0 auto"})
            for pair in zip(self.pictures, self.buttons, strict=True)
        ]
        super().__init__(cards, layout={"flex_flow": "row wrap", "height": height, "overflow": "auto"})

    def show(self, cards: list[str], words: list[str] | None = None) -> None:
        """Fill the first cards with HTML, and hide the others."""
        for i, (picture, button) in enumerate(zip(self.pictures, self.buttons, strict=True)):
            here = i < len(cards)
            picture.value = cards[i] if here else ""
            button.layout.display = None if here else "none"
            if here and words is not None:
                button.description = words[i]


class ExplorerPanel(widgets.VBox):
    """All widgets of the explorer.

    Parameters
    ----------
    state
        What answers.
    """

    def __init__(self, state: Explorer) -> None:
        self.state, self.source = state, state.queries[0]
        self.answer: Answer | None = None
        self._quiet, self._draw, self._page = False, 0, 0
        self._background = lru_cache(maxsize=8)(partial(pages.map_background, state.scene))
        self._make_controls()
        self.query, self.map, self.status, self.help = (widgets.HTML() for _ in range(4))
        self.listed = Cards(PAGE, "", self._choose, "150px")
        self.results = Cards(LONGEST, "ask with it", self._ask_with, "340px")
        self._connect()
        row = partial(widgets.HBox, layout={"flex_flow": "row wrap"})
        super().__init__(
            [
                row([self.method, self.refiner, self.k, self.locate, self.reset, self.help_button]),
                self.help,
                row([self.looks, self.east, self.north, self.rotation]),
                row([self.search, self.failures, widgets.HBox([self.before, self.after]), self.upload]),
                self.listed,
                self.status,
                row([self.query, self.map]),
                self.results,
            ]
        )
        self._list()
        self._answer()

    def _make_controls(self) -> None:
        state = self.state
        named = [(state.words(name), name) for name in state.methods]
        self.method = widgets.Dropdown(options=named, description="search with", style=NARROW)
        self.refiner = widgets.Dropdown(options=self._refiners(), description="then", style=NARROW)
        slider = partial(widgets.FloatSlider, value=0.0, continuous_update=False, style=NARROW)
        self.k = widgets.IntSlider(10, 1, LONGEST, description="K", continuous_update=False)
        self.looks = widgets.SelectionSlider(
            options=LOOKS, description="extra speckle", continuous_update=False, style=NARROW
        )
        reach, flat = state.side_m or 1.0, state.side_m is None
        self.east = slider(min=-reach, max=reach, step=reach / 40, description="offset east (m)", disabled=flat)
        self.north = slider(min=-reach, max=reach, step=reach / 40, description="offset north (m)", disabled=flat)
        self.rotation = slider(min=-180, max=180, step=1, description="turned by (degrees)")
        self.locate = widgets.Button(description="locate", icon="search", tooltip="search again, with new speckle")
        self.reset = widgets.Button(description="reset", icon="undo")
        self.help_button = widgets.ToggleButton(description="help", icon="question")
        self.search = widgets.Text(placeholder="number, area or strip", description="queries", continuous_update=False)
        self.failures = widgets.Checkbox(description="failures only", indent=False, layout={"width": "auto"})
        self.before = widgets.Button(icon="arrow-left", tooltip="queries before", layout={"width": "40px"})
        self.after = widgets.Button(icon="arrow-right", tooltip="queries after", layout={"width": "40px"})
        self.upload = widgets.FileUpload(accept=".png,.jpg,.jpeg,.tif,.tiff,.bmp", multiple=False)

    def _connect(self) -> None:
        self.method.observe(self._on_method, "value")
        for control in (self.refiner, self.k, self.looks, self.east, self.north, self.rotation):
            control.observe(lambda _: self._answer(), "value")
        for control in (self.search, self.failures):
            control.observe(lambda _: self._first_page(), "value")
        self.refiner.observe(lambda _: self._list_failures(), "value")
        self.upload.observe(self._on_upload, "value")
        self.help_button.observe(self._on_help, "value")
        self.locate.on_click(self._again)
        self.reset.on_click(self._reset)
        self.before.on_click(lambda _: self._turn(-1))
        self.after.on_click(lambda _: self._turn(1))

    @property
    def settings(self) -> Settings:
        """What the widgets say."""
        disturbance = Disturbance(
            self.looks.value, self.east.value, self.north.value, self.rotation.value, seed=self._draw
        )
        return Settings(self.method.value, self.refiner.value, self.k.value, disturbance)

    def ask(self, source: Source) -> None:
        """Search for another query, undisturbed."""
        self.source = source
        with self._silent():
            for control in (self.looks, self.east, self.north, self.rotation):
                control.value = 0.0
        self._answer()

    def still(self) -> Figure:
        """What is shown now as a figure: an export has it in the place of the panel, which needs a kernel."""
        return still(self.state, self.answer, self._method_words())

    def _method_words(self) -> str:
        words = self.state.words(self.method.value)
        return words if self.refiner.value == ALONE else f"{words}, then {self.state.words(self.refiner.value)}"

    def _refiners(self) -> list[tuple[str, str]]:
        return [(self.state.words(name), name) for name in self.state.refiners(self.method.value)]

    @contextmanager
    def _silent(self) -> Iterator[None]:
        """Widgets that are set by us do not each search."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _on_method(self, _: dict) -> None:
        self.status.value = pages.message("made ready ...", "#444")
        with self._silent():
            kept = self.refiner.value
            self.refiner.options = options = self._refiners()
            self.refiner.value = kept if kept in dict(options).values() else ALONE
        self._answer()
        self._list_failures()

    def _answer(self) -> None:
        if self._quiet:
            return
        try:
            self.answer = self.state.answer(self.source, self.settings)
        except ValueError as error:
            self.status.value = pages.message(str(error))
            return
        self._show(self.answer)

    def _show(self, answer: Answer) -> None:
        self.status.value = pages.headline(answer, self._method_words())
        self.query.value = pages.card(answer.image, answer.source.label, side=pages.QUERY_SIDE)
        if self.state.scene.has_coordinates:
            self.map.value = pages.map_page(self.state.scene, answer, self._background(answer.area))
        windows = [self.state.window_of(answer.candidates, i) for i in range(len(answer.places))]
        images = [self.state.tile_image(*window) for window in windows]
        self.results.show(list(map(pages.card, images, pages.results(answer), answer.places)))

    def _list(self) -> None:
        """Show a page of queries."""
        try:
            numbers = self.state.listed(self.search.value, self.settings if self.failures.value else None)
        except ValueError as error:
            self.status.value = pages.message(str(error))
            return
        last = max(0, (len(numbers) - 1) // PAGE)
        self._page = min(max(self._page, 0), last)
        self._shown = numbers[self._page * PAGE :][:PAGE]
        cards = [pages.card(self.state.query_image(i), self.state.queries[i].label) for i in self._shown]
        self.listed.show(cards, [f"query {i}" for i in self._shown])
        self.before.disabled, self.after.disabled = self._page == 0, self._page == last

    def _first_page(self) -> None:
        self._page = 0
        if not self._quiet:
            self._list()

    def _list_failures(self) -> None:
        """Failures of another method are others."""
        if self.failures.value:
            self._first_page()

    def _on_help(self, change: dict) -> None:
        self.help.value = pages.HELP if change["new"] else ""

    def _turn(self, by: int) -> None:
        self._page += by
        self._list()

    def _choose(self, i: int) -> None:
        self.ask(self.state.queries[self._shown[i]])

    def _ask_with(self, i: int) -> None:
        try:
            source = self.state.query_at(self.answer, i)
        except ValueError as error:
            self.status.value = pages.message(str(error))
            return
        self.ask(source)

    def _on_upload(self, change: dict) -> None:
        for file in change["new"]:
            if file["size"] > MAX_BYTES:
                self.status.value = pages.message(f"{file['name']}: larger than {MAX_BYTES:,} bytes")
                continue
            try:
                source = self.state.upload(file["name"], bytes(file["content"]))
            except ValueError as error:
                self.status.value = pages.message(str(error))
                continue
            self.ask(source)

    def _again(self, _: widgets.Button) -> None:
        self._draw += 1
        self._answer()

    def _reset(self, _: widgets.Button) -> None:
        with self._silent():
            self.method.value = self.state.methods[0]
            self.refiner.value, self.k.value, self._draw = ALONE, 10, 0
            self.search.value, self.failures.value = "", False
        self._first_page()
        self.ask(self.state.queries[0])


def explore(
    run: Run,
    scene: Scene | None = None,
    protocol: str | None = None,
    kind: str = "arbitrary",
    count: int = COUNT,
) -> ExplorerPanel:
    """A panel to look at a finished run with: its queries, its answers, and where they lie.

    Parameters
    ----------
    run
        What `sarmatch.load_run` gives; of dense search or of one vector per tile.
    scene
        That of the run by default.
    protocol, kind, count
        Which of the test queries there are to choose from, and how many.

    Returns
    -------
    A widget for JupyterLab, VS Code or a voila page. Answers take less than half a second on a CPU; at unknown heading
    they do by a quicker search than the library's own, see `sarmatch.explorer.finders.QUICK`.

    Raises
    ------
    ValueError
        Where the scene holds no such query.
    """
    return ExplorerPanel(Explorer(run, scene, protocol, kind, count))
