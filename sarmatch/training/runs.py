"""From a config to a run folder: scene, training, evaluation, report."""

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from sarmatch.atomic_io import check_writable, read_json, write, write_json
from sarmatch.datasets import load_scene
from sarmatch.encoders import Encoder, create_encoder, embed, image_sizes
from sarmatch.evaluation import (
    block_ids,
    bootstrap_mean,
    candidate_report,
    chance_errors,
    discrepancy,
    error_summary,
    list_ranks,
    localization_errors,
    ranks,
    recall_at_k,
    retrieval_report,
    tiles_of_places,
)
from sarmatch.losses import OffsetRegression, create_loss
from sarmatch.patches import PatchImages, ScenePixels, positions, protocols_of, queries, search_task
from sarmatch.paths import runs_dir
from sarmatch.refinement import LabelledLists, LearnedRefiner, RefinementContext, label_lists
from sarmatch.scenes import NoCoordinatesError, Scene
from sarmatch.search import (
    Candidates,
    CoarseToFine,
    DenseSearch,
    Gallery,
    TurnedSearch,
    VectorSearch,
    build_gallery,
    build_maps,
    create_search,
    galleries_dir,
)
from sarmatch.training.checkpoints import (
    ENVIRONMENT,
    HISTORY,
    OFFSET_HEAD,
    REFINER,
    WEIGHTS,
    describe_environment,
    load_weights,
)
from sarmatch.training.config import Config, load_config
from sarmatch.training.data import training_ground
from sarmatch.training.dense import tile_bounds
from sarmatch.training.loop import Report, print_epoch, train
from sarmatch.training.objectives import objective_of
from sarmatch.training.prepare import (
    baseline_of,
    check_ground,
    check_names,
    check_parts,
    searched_with,
    take_over_training,
    trained_by,
    use_training,
)
from sarmatch.training.schedule import joined
from sarmatch.training.vectors import MEASURED, VectorValidation, moved
from sarmatch.training.views import Views, check_views, pixel_sizes, views_of

MEASURES = ("recall@1", "recall@5", "recall@10", "recall@1%", "hit_rate", "median_m")
TOP = 10  # candidates kept per query in a run's results
POOLED = "pooled"  # the method of a dense encoder that is searched with by the vectors of its head
WHITENED = "{} + whitened"  # the method of an encoder of vectors that are compared whitened
WHITENED_FROM = 100  # tiles of a gallery; the axes of a smaller one are too uncertain to gain by them
CENTRE_PATCHES = 500  # whose mean is the centre of a modality
LIST_LENGTH = 30  # candidates that a refiner is given
METRICS = "metrics.json"
VALIDATION = "validation.json"
DISCREPANCY = "discrepancy.json"
QUERY_MEAN = "query_mean.json"
WHITENING = "whitening.json"
FEWEST = 20  # places from which on halves of them have a distance to speak of
SUBSAMPLES = 20  # of the null of the distance between the modalities


@dataclass(frozen=True)
class Run:
    """A finished experiment on disk.

    Attributes
    ----------
    path : Path
        The run folder.
    config : Config
        What was run.
    """

    path: Path
    config: Config

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per protocol, kind and method: the columns of `retrieval_report`."""
        path = self.path / METRICS
        table = _read_records(path)
        for column in ("protocol", "kind", "method", "queries", "gallery", "recall@1"):
            if column not in table or table[column].isna().any():
                raise ValueError(f"{path}: a row has no {column!r}; delete the file and run the config again")
        if not pd.api.types.is_numeric_dtype(table["recall@1"]) or not table["recall@1"].between(0, 1).all():
            raise ValueError(f"{path}: recall@1 is {list(table['recall@1'])}, expected numbers from 0 to 1")
        return table

    @cached_property
    def validation(self) -> pd.DataFrame:
        """The columns of `metrics` on validation areas, for the tasks in which the baseline is better on test areas.

        By it the better of the two is chosen: a choice on the test areas would not be honest. Empty where the encoder
        is the better one everywhere, or the run is older than this table.
        """
        path = self.path / VALIDATION
        return _read_records(path) if path.is_file() else pd.DataFrame()

    @cached_property
    def discrepancy(self) -> dict[str, float]:
        """How far the modalities are apart on validation areas under the weights that were kept.

        `wasserstein_1`, its `ratio` to the null, and the ends `ratio_low`, `ratio_high` of the ratio's band: see
        `sarmatch.discrepancy`. Empty for a run that is older than this record or has too few queries for a null.
        """
        path = self.path / DISCREPANCY
        return read_json(path, dict) if path.is_file() else {}

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch: loss and validation recall."""
        path = self.path / HISTORY
        try:
            table = pd.read_csv(path)
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not readable as a table ({error})") from error
        whole = len(table) == self.config.epochs and not table.isna().any(axis=None)
        if not whole or not {"epoch", "loss", self.config.select} <= set(table):
            raise ValueError(f"{path}: expected {self.config.epochs} epochs with loss and {self.config.select}")
        return table

    @property
    def kept(self) -> pd.Series:
        """The row of `history` of the epoch whose weights were kept: the best of those that all losses had joined."""
        known = [joined(self.config, epoch) for epoch in range(len(self.history))]
        return self.history.loc[self.history.loc[known, self.config.select].idxmax()]

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder with the weights of the best epoch, ready to embed."""
        config = self.config
        options = {k: v for k, v in config.encoder_options.items() if k != "pretrained"}  # its own weights follow
        encoder = create_encoder(config.encoder, config.image_size, config.sar_bands, **options)
        if encoder.trainable:
            load_weights(encoder, self.path / WEIGHTS)
        return encoder.eval()

    @cached_property
    def baseline(self) -> Encoder:
        """The training-free encoder that stands beside ours, in its place where it is the better one."""
        return baseline_of(self.config)

    @cached_property
    def query_mean(self) -> np.ndarray:
        """Mean embedding `(D,)` of SAR patches of the areas it was trained on: where that modality is centred.

        Measured when the run was made and kept in its folder; for a run that is older than this record it is measured
        now, on the ground that it was trained on.

        Raises
        ------
        ValueError
            Where the file holds something else than a number per dimension.
        """
        path = self.path / QUERY_MEAN
        if not path.is_file():
            return query_mean(self.encoder, map_of(self.config), self.config)
        mean, dim = read_json(path, list), self.encoder.feature_dim
        if len(mean) != dim or not all(isinstance(number, float) and isfinite(number) for number in mean):
            raise ValueError(f"{path}: expected {dim} finite numbers, a mean embedding; delete it to measure it anew")
        return np.array(mean, np.float32)

    @cached_property
    def whitening(self) -> dict[str, Any]:
        """What validation queries find by embeddings as they are and whitened: by it one of the two is chosen.

        The columns of `choose_whitening`. Empty for a run that is older than this record, of dense search, or of a
        cross-view set.

        Raises
        ------
        ValueError
            Where the file does not hold the two numbers.
        """
        path = self.path / WHITENING
        found = read_json(path, dict) if path.is_file() else {}
        if found and not all(isinstance(found.get(name), float) for name in ("plain", "whitened")):
            raise ValueError(
                f"{path}: expected numbers `plain` and `whitened`; `sarmatch whitening` measures them anew"
            )
        return found

    def whitens(self, scene: Scene | Views, tiles: pd.DataFrame) -> bool:
        """Whether vectors are compared whitened among these tiles: where that finds more on validation areas.

        A run that does not know it whitens.
        """
        known = self.whitening
        return whitens(scene, tiles) and (not known or known["whitened"] > known["plain"])

    @cached_property
    def refiner(self) -> LearnedRefiner:
        """The refiner that was trained along with the encoder.

        Raises
        ------
        FileNotFoundError
            Where the run trained none.
        """
        if not (self.path / REFINER).is_file():
            raise FileNotFoundError(
                f"{self.path.name}: this run trained no refiner; its config has {self.config.refiner!r}"
            )
        return LearnedRefiner.load(self.path / REFINER)

    @cached_property
    def offset_head(self) -> OffsetRegression | None:
        """What was trained along with the encoder to say where in its tile a query lies; None where nothing was.

        Raises
        ------
        FileNotFoundError
            Where the run trained one before such heads were kept.
        """
        if "offset_regression" not in self.config.auxiliary:
            return None
        path = self.path / OFFSET_HEAD
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no offset head here, which older versions did not keep; train it anew")
        head = create_loss("offset_regression", self.encoder.feature_dim)
        load_weights(head, path)
        return head.eval()

    @property
    def summary(self) -> pd.DataFrame:
        """The numbers to read first, each beside the training-free floor, chance, and the ceiling of the grid.

        Index `protocol`, `kind`, `gallery`, `measure`; a column per method, then `chance` and `ceiling`: what a perfect
        search would reach by answering with the centre of the right tile.
        """
        rows = []
        for (protocol, kind), group in self.metrics.groupby(["protocol", "kind"], sort=False):
            methods = group.set_index("method")
            first = methods.iloc[0]
            for measure in (m for m in MEASURES if m in methods):
                metres = measure == "median_m"
                rows.append(
                    {
                        "protocol": protocol,
                        "kind": kind,
                        "gallery": int(first["gallery"]),
                        "measure": measure,
                        **methods[measure],
                        "chance": first[f"chance_{measure}" if metres else f"{measure}_chance"],
                        "ceiling": first[f"ceiling_{measure}"] if metres else 1.0,
                    }
                )
        return pd.DataFrame(rows).set_index(["protocol", "kind", "gallery", "measure"])

    def task(self, scene: Scene, protocol: str, kind: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The test queries of this run, and the tiles they are searched among."""
        return task(self.config, scene, protocol, kind)

    def scene(self) -> Scene | Views:
        """The scene it ran on."""
        return scene_of(self.config)

    def embed(self, scene: Scene, asked: pd.DataFrame, tiles: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings `float32 (Q, D)` of queries and `(N, D)` of tiles, L2-normalised, in table order."""
        return embed_tables(self.encoder, scene, asked, tiles, self.config)

    def find(
        self, scene: Scene, asked: pd.DataFrame, tiles: pd.DataFrame, k: int = TOP, whiten: bool | None = None
    ) -> Candidates:
        """The `k` best places `(Q, k)` for every query: tiles, or anywhere on their ground by dense search.

        A tile's place is its centre or, where the run trained an offset head, where this says that the query lies.

        Parameters
        ----------
        whiten
            Whether vectors are compared whitened (see `RefinementContext.whitened`). By default where that found more
            on the run's validation areas, but never among less than 100 tiles, whose axes are too uncertain, nor on a
            cross-view set.

        Raises
        ------
        ValueError
            Where a run of dense search, which compares no vectors, or a cross-view set is to be whitened.
        """
        if self.config.search == "dense":
            if whiten:
                raise ValueError(f"{self.path}: search is 'dense', and only vectors can be whitened")
            return dense_search(self.encoder, scene, tiles).search(
                images_of(scene, asked, self.config, self.encoder), k
            )
        whiten = self.whitens(scene, tiles) if whiten is None else whiten
        centre = self.query_mean if whiten else None
        compared, read = compared_and_read(self.encoder, scene, asked, tiles, self.config, self.offset_head)
        return moved_by(self.offset_head, scene, tiles, nearest(scene, tiles, *compared, k, centre), *read)

    def gallery(self, scene: Scene, tiles: pd.DataFrame) -> Gallery:
        """What the map has become under the encoder; made once and kept among the caches."""
        return build_gallery(
            self.encoder, scene, tiles, image_sizes(self.encoder)["optical"], self.config.batch_size, galleries_dir()
        )

    def context(self, scene: Scene, asked: pd.DataFrame, tiles: pd.DataFrame) -> RefinementContext:
        """All a refiner may look at: the gallery, embeddings of the queries, and pixels where it requires them."""
        query = embed(self.encoder, images_of(scene, asked, self.config, self.encoder), "query")
        pixels = ScenePixels(scene, asked, int(tiles["size"].iloc[0]))
        return RefinementContext(self.gallery(scene, tiles), query, self.query_mean, pixels)

    def lists(
        self,
        protocol: str,
        kind: str,
        split: str = "test",
        k: int = LIST_LENGTH,
        count: int | None = None,
        seed: int | None = None,
        scene: Scene | None = None,
    ) -> tuple[LabelledLists, pd.DataFrame, pd.DataFrame]:
        """Labelled candidate lists of a split, with the tables of their queries and tiles.

        Raises
        ------
        ValueError
            For a run of dense search: its lists hold places, and refiners want tiles with a vector each. For a run on a
            cross-view set, whose tiles are no map.
        """
        if self.config.search != "vector":
            raise ValueError(f"{self.path}: search is {self.config.search!r}, and only 'vector' makes lists of tiles")
        scene = scene or map_of(self.config)
        asked, tiles = task(self.config, scene, protocol, kind, split, count, seed)
        context = self.context(scene, asked, tiles)
        return label_lists(search(context, k), context, positions(asked)), asked, tiles

    def untrained(self) -> Encoder:
        """The same encoder before its first step: its own normalisation of the input, and weights from the seed."""
        torch.manual_seed(self.config.seed)
        config = self.config
        encoder = create_encoder(config.encoder, config.image_size, config.sar_bands, **config.encoder_options)
        measured = {k: v for k, v in self.encoder.state_dict().items() if "normalise" in k}
        encoder.load_state_dict({**encoder.state_dict(), **measured})
        return encoder.eval()

    def results(self, protocol: str, kind: str) -> pd.DataFrame:
        """One row per test query: its window, the true tile, rank, and the first tiles found with their scores."""
        return _read_records(self.path / f"results_{protocol}_{kind}.json")

    @property
    def report(self) -> Path:
        """The page with pictures."""
        return self.path / "report.html"


def run(config: Config, folder: Path | None = None, report: Report = print_epoch, trained: Path | None = None) -> Run:
    """Train and evaluate a config; goes on where an earlier run of the same config was cut off.

    A first stage is a run of its own, beside this one, and made before it.

    What differs in its evaluation alone from another run beside it, `baseline` or `test_queries`, takes its training.

    Parameters
    ----------
    config
        The experiment.
    folder
        Run folder; `runs/NAME-KEY` by default, so that the same config meets its own folder again.
    report
        Called after every epoch with the history so far, see `sarmatch.training.loop.train`.
    trained
        Folder of a run that has learned what this config asks for, a recorded one for example: nothing is trained.

    Returns
    -------
    The run, with `config.json`, `metrics.json`, `environment.json`, `history.csv`, `model.safetensors` in its folder.

    Raises
    ------
    ValueError
        Where the folder holds a run of another config, or something that the run will need is not there or does not
        fit; all is looked at before it trains.
    OSError
        Where the folder cannot be written to, with its path.
    FloatingPointError
        See `sarmatch.training.loop.train`.
    """
    folder = folder or run_folder(config)
    known, finished = folder / "config.json", folder / METRICS
    if known.is_file():
        held = load_config(known)
        corrected = held.training_key == config.training_key and not finished.is_file()
        if held.key != config.key and not corrected:
            raise ValueError(f"{folder}: holds a run of another config; give every config a folder of its own")
    if finished.is_file():
        return load_run(folder)
    check_writable(folder)
    scene = checked_scene(config)
    environment = describe_environment()
    if trained is not None:
        use_training(config, folder, trained)
    other = trained or take_over_training(config, folder)
    if other is not None:
        print(f"takes the training of {other.name}, from which it differs in what is evaluated alone", flush=True)
        environment = trained_by(other, environment)
    write_json(known, config.model_dump())
    write_json(folder / ENVIRONMENT, environment)

    if trained is None:
        before = config.before and run(
            config.before, folder.parent / f"{config.before.name}-{config.before.key}", report
        )
        encoder = train(config, scene, folder, report, before and before.path / WEIGHTS)
    else:
        encoder = Run(folder, config).encoder
    write_json(folder / DISCREPANCY, validation_discrepancy(config, scene, encoder))
    rows = tested_rows(config, scene, folder, encoder, Run(folder, config).offset_head)
    write_json(finished, rows + refined_rows(Run(folder, config), scene))
    return load_run(folder)


def run_folder(config: Config) -> Path:
    """Where the run of a config is kept by default."""
    return runs_dir() / f"{config.name}-{config.key}"


def validation_discrepancy(config: Config, scene: Scene, encoder: Encoder) -> dict[str, float]:
    """What `Run.discrepancy` holds: the distance of the modalities on validation areas, beside its null."""
    query, reference = (
        objective_of(config, scene).validation(config, scene, encoder).features(encoder, config.batch_size)
    )
    if len(query) < FEWEST or not query.std(0).any() or not reference.std(0).any():
        return {}
    found = discrepancy(query[:MEASURED], reference[:MEASURED], repeats=SUBSAMPLES, seed=config.seed)
    low, high = found.band
    return {found.metric: found.value, "ratio": found.ratio, "ratio_low": low, "ratio_high": high}


def checked_scene(config: Config) -> Scene | Views:
    """The scene of a config, after a look at all that a run of it will need.

    Raises
    ------
    ValueError
        Names the field, the file or the scene, and what is wrong.
    """
    check_parts(config)
    scene = scene_of(config)
    if isinstance(scene, Views):
        check_views(config, scene)
        return scene
    missing = set(config.protocols) - set(protocols_of(scene))
    if missing:
        raise ValueError(
            f"scene {scene.name!r} cannot be split by {sorted(missing)}; it has protocols {protocols_of(scene)}"
        )
    if config.refiner != "none" and not scene.has_coordinates:
        raise ValueError(
            f"scene {scene.name!r} has no coordinates, and refiner {config.refiner!r} needs places in metres"
        )
    check_ground(config, scene)
    for protocol, kind in product(config.protocols, config.kinds):
        check_names(task(config, scene, protocol, kind)[0])
    return scene


def tested_rows(
    config: Config, scene: Scene, folder: Path, encoder: Encoder, head: OffsetRegression | None = None
) -> list[dict[str, Any]]:
    """Rows of `metrics` of the encoder, whose answers its offset head moves, and of the baseline.

    The encoder's results are written beside them, and for a search by vectors its mean embedding of queries and whether
    to whiten, see `choose_whitening`.

    An encoder of dense search with a head has a row `pooled` as well: tiles by the vectors of the same network.
    A method that compares vectors has a row `METHOD + whitened` where the gallery has tiles enough.

    Where the baseline is the better one, both are compared on validation areas too: see `Run.validation`.
    """
    methods = {config.encoder: (encoder, head), config.baseline: (baseline_of(config), None)}
    pools = searched_with(config, encoder) == "dense" and hasattr(encoder, "feature_dim")
    centre = lru_cache(maxsize=None)(lambda name: query_mean(methods[name][0], scene, config))
    if config.search == "vector" and not isinstance(scene, Views):
        write_json(folder / QUERY_MEAN, centre(config.encoder).tolist())
        write_json(folder / WHITENING, choose_whitening(config, scene, encoder, centre(config.encoder)))
    rows, validation = [], []
    for protocol, kind in product(config.protocols, config.kinds):
        names = {"protocol": protocol, "kind": kind}
        tested = {
            name: evaluate(model, scene, config, protocol, kind, head=own) for name, (model, own) in methods.items()
        }
        if pools:
            tested[POOLED] = evaluate(encoder, scene, config, protocol, kind, search="vector")
        for name, (model, own) in methods.items():
            if searched_with(config, model) == "vector" and whitens(scene, task(config, scene, protocol, kind)[1]):
                more = {"head": own, "centre": centre(name)}
                tested[WHITENED.format(name)] = evaluate(model, scene, config, protocol, kind, **more)
        rows += [{**names, "method": name, "data": scene.label, **numbers} for name, (numbers, _) in tested.items()]
        results = tested[config.encoder][1]
        save = partial(results.to_json, orient="records", double_precision=6)
        write(folder / f"results_{protocol}_{kind}.json", save)
        if tested[config.baseline][0]["recall@1"] > tested[config.encoder][0]["recall@1"]:
            for name, (model, own) in methods.items():
                numbers, _ = evaluate(model, scene, config, protocol, kind, "val", head=own)
                validation.append({**names, "method": name, "data": scene.label, **numbers})
    if validation:
        write_json(folder / VALIDATION, validation)
    return rows


def refined_rows(run: Run, scene: Scene) -> list[dict[str, float | str]]:
    """What the refiner trained along makes of the first candidates of its encoder; nothing where there is none.

    A row per protocol and kind: `method` is `ENCODER + REFINER`, the numbers are those of `candidate_report`, with
    95 % intervals of recall over spatial blocks.
    """
    if run.config.refiner == "none":
        return []
    rows = []
    for protocol in run.config.protocols:
        for kind in run.config.kinds:
            lists, asked, tiles = run.lists(protocol, kind, scene=scene)
            refined = run.refiner.refine(lists.candidates, lists.context)
            positive, side = asked["positive"].to_numpy(), lists.context.tile_m
            report = candidate_report(refined, positive, tiles, side, positions(asked))
            rank = list_ranks(tiles_of_places(refined, tiles, side), refined.scores, positive, len(tiles))
            names = {"method": f"{run.config.encoder} + {run.config.refiner}", "data": scene.label}
            rows.append(
                {"protocol": protocol, "kind": kind, **names, **report, **intervals(rank, blocks(scene, asked))}
            )
    return rows


def baseline_rows(config: Config) -> pd.DataFrame:
    """What the training-free encoder reaches on the task of a config: how hard the scene is.

    Returns
    -------
    One row per protocol and kind: `scene`, `protocol`, `kind`, `method`, `data` and the numbers of `retrieval_report`.
    """
    scene = scene_of(config)
    encoder = baseline_of(config)
    rows = []
    for protocol in config.protocols:
        for kind in config.kinds:
            report, _ = evaluate(encoder, scene, config, protocol, kind)
            names = {"scene": scene.name, "protocol": protocol, "kind": kind, "method": config.baseline}
            rows.append({**names, "data": scene.label, **report})
    return pd.DataFrame(rows)


def scene_of(config: Config) -> Scene | Views:
    """The scene of a config with the SAR bands it asks for, or the cross-view set whose folder it names."""
    if (views := views_of(config)) is not None:
        return views
    first = config.bands == "first"
    scene = load_scene(config.scene, config.profile, None if first else config.bands)
    return scene if not first else scene.select(scene.areas[0].strips[0].bands[:1])


def map_of(config: Config) -> Scene:
    """The scene of a config where it has a map.

    Raises
    ------
    ValueError
        Where it names a cross-view set.
    """
    scene = scene_of(config)
    if isinstance(scene, Views):
        raise ValueError(f"{scene.folder}: a cross-view set has tiles and no map, which this needs")
    return scene


def search(context: RefinementContext, k: int) -> Candidates:
    """The first `k` tiles of every query, all of them where the gallery holds less."""
    return VectorSearch(context.gallery).search(context.query, min(k, len(context.gallery)))


def task(
    config: Config,
    scene: Scene,
    protocol: str,
    kind: str,
    split: str = "test",
    count: int | None = None,
    seed: int | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Queries of a split as the config draws them, or another `count` or `seed`, and the tiles they are among."""
    if isinstance(scene, Views):
        return scene.task(split, count or config.test_queries, config.seed + 2 if seed is None else seed)
    return search_task(
        scene,
        kind,
        config.patch_size,
        split,
        protocol=protocol,
        stride=config.stride,
        count=count or config.test_queries,
        seed=config.seed + 2 if seed is None else seed,
    )


def evaluate(
    encoder: Encoder,
    scene: Scene,
    config: Config,
    protocol: str,
    kind: str,
    split: str = "test",
    search: str | None = None,
    head: OffsetRegression | None = None,
    centre: np.ndarray | None = None,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Search all queries of a split among their gallery: with `vector` or `dense`, by default as the config says.

    With the `centre` `(D,)` of the queries' modality, see `query_mean`, vectors are compared whitened.

    With an offset head an answer of vector search is no longer the centre of the first tile, but where in it the head
    says that the query lies. Which tiles are found, and so all of recall, stays as it is.

    Returns
    -------
    report
        See `sarmatch.evaluation.retrieval_report`; with an offset head errors are those of moved answers, and
        `centre_...` says what they would be without it.
    results
        The query table with `rank`, `found` and `score` (lists of the first ten tiles), and `error_m` of the first one
        where the scene has coordinates; with an offset head, or of dense search, their places `found_xy`.
    """
    asked, tiles = task(config, scene, protocol, kind, split)
    if (search or searched_with(config, encoder)) == "dense":
        return _evaluate_dense(encoder, scene, config, asked, tiles)
    (query, reference), read = compared_and_read(encoder, scene, asked, tiles, config, head)
    query_xy, tile_xy = positions(asked), positions(tiles)
    searched = (query, reference) if centre is None else whitened(tiles, query, reference, centre)
    scores = searched[0] @ searched[1].T
    metres = {}
    if scene.has_coordinates:
        side = int(tiles["size"].iloc[0]) * scene.pixel_size
        metres = {"query_xy": query_xy, "reference_xy": tile_xy, "tile_m": side}
    report = retrieval_report(scores, asked["positive"].to_numpy(), list(asked["semi"]), **metres)
    found = ranks(scores, asked["positive"].to_numpy())
    report |= intervals(found, blocks(scene, asked))
    candidates = moved_by(head, scene, tiles, nearest(scene, tiles, query, reference, TOP, centre), *read)
    results = asked.assign(
        rank=found,
        found=candidates.tile.tolist(),
        score=candidates.scores.tolist(),
    )
    if scene.has_coordinates:
        results["error_m"] = localization_errors(candidates.xy[:, 0], query_xy)
        if head is not None:
            results["found_xy"] = candidates.xy.tolist()
            errors = error_summary(results["error_m"].to_numpy(), tile_m=metres["tile_m"])
            report |= {f"centre_{name}": report[name] for name in errors} | errors
    return report, results


def nearest(
    scene: Scene | Views,
    tiles: pd.DataFrame,
    query: np.ndarray,
    reference: np.ndarray,
    k: int,
    centre: np.ndarray | None = None,
) -> Candidates:
    """The first `k` tiles of every query by vectors `(Q, D)` and `(N, D)`, all of them where there are less.

    With the `centre` of the queries' modality vectors are compared whitened.
    """
    asked, held = (query, reference) if centre is None else whitened(tiles, query, reference, centre)
    return VectorSearch(Gallery(tiles, held)).search(asked, min(k, len(tiles)))


def moved_by(
    head: OffsetRegression | None,
    scene: Scene | Views,
    tiles: pd.DataFrame,
    found: Candidates,
    query: np.ndarray,
    reference: np.ndarray,
) -> Candidates:
    """Candidates at the places that an offset head predicts of vectors before their normalisation, where both exist."""
    if head is None or not scene.has_coordinates:
        return found
    return moved(found, query, reference, tile_widths(scene, tiles), head)


def choose_whitening(config: Config, scene: Scene, encoder: Encoder, centre: np.ndarray) -> dict[str, Any]:
    """What the queries that chose the epoch find by vectors as they are, and whitened; test areas are not looked at.

    Returns
    -------
    `measure`, which is that of `config.select`, its value `plain` and `whitened`, the `queries` and `tiles` that it is
    of, and the `commit`.
    """
    validation = VectorValidation(config, scene, encoder)
    query, reference = validation.embedded(encoder, config.batch_size)
    pairs = {"plain": (query, reference), "whitened": whitened(validation.tiles, query, reference, centre)}
    positive, k = validation.queries["positive"].to_numpy(), int(config.select.partition("@")[2])
    found = {name: float(recall_at_k(ranks(one @ other.T, positive), k)) for name, (one, other) in pairs.items()}
    counts = {"queries": len(query), "tiles": len(reference), "commit": describe_environment()["commit"]}
    return {"measure": config.select, **found, **counts}


def whitens(scene: Scene | Views, tiles: pd.DataFrame) -> bool:
    """Whether vectors of these tiles can be whitened to advantage: there are enough of them, and they are of a map."""
    return len(tiles) >= WHITENED_FROM and not isinstance(scene, Views)


def whitened(
    tiles: pd.DataFrame, query: np.ndarray, reference: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of queries and tiles in the gallery's own axes, see `RefinementContext.whitened`."""
    return RefinementContext(Gallery(tiles, reference), query, centre).whitened


def query_mean(encoder: Encoder, scene: Scene, config: Config) -> np.ndarray:
    """Mean embedding `(D,)` of 500 SAR patches of the areas that a config trains on."""
    ground = training_ground(config, scene, config.patch_size or scene.patch_size)
    patches = queries(scene, "arbitrary", config.patch_size, ground, count=CENTRE_PATCHES, seed=config.seed + 3)
    return embed(encoder, images_of(scene, patches, config, encoder), "query").mean(0)


def tile_widths(scene: Scene | Views, tiles: pd.DataFrame) -> np.ndarray:
    """Metres from edge to edge of each tile `(N,)`; those of a cross-view set differ from town to town."""
    pixel = pixel_sizes(tiles) if isinstance(scene, Views) else scene.pixel_size
    return tiles["size"].to_numpy() * pixel


def _evaluate_dense(
    encoder: Encoder, scene: Scene, config: Config, asked: pd.DataFrame, tiles: pd.DataFrame
) -> tuple[dict[str, float], pd.DataFrame]:
    """The same for dense search: all ground of the tiles is searched, and tiles count the answers."""
    candidates = dense_search(encoder, scene, tiles).search(images_of(scene, asked, config, encoder), TOP)
    side = int(tiles["size"].iloc[0]) * scene.pixel_size
    positive, xy = asked["positive"].to_numpy(), positions(asked)
    report = candidate_report(candidates, positive, tiles, side, xy)
    tile = tiles_of_places(candidates, tiles, side)
    found = list_ranks(tile, candidates.scores, positive, len(tiles))
    report |= intervals(found, blocks(scene, asked))
    for prefix, numbers in (  # there is no grid that an answer could not leave
        ("ceiling", error_summary(np.zeros(len(asked)), tile_m=side)),
        ("chance", chance_errors(xy, positions(tiles), tile_m=side)),
    ):
        report |= {f"{prefix}_{key}": value for key, value in numbers.items()}
    results = asked.assign(
        rank=found,
        found=tile.tolist(),
        score=candidates.scores.tolist(),
        found_xy=candidates.xy.tolist(),
        error_m=localization_errors(candidates.xy[:, 0], xy),
    )
    return report, results


def dense_search(
    encoder: Encoder, scene: Scene, tiles: pd.DataFrame, name: str = "dense", **options: Any
) -> DenseSearch | CoarseToFine | TurnedSearch:
    """Dense search over the ground that some tiles cover; its maps of features are kept among the caches.

    Exhaustive, or with the name `coarse_to_fine` from coarse to fine, or with `turned` at unknown heading; `options`
    are those of the search.

    Raises
    ------
    NoCoordinatesError
        Where the scene has no coordinates, and so no ground that could be searched as a whole.
    """
    if not scene.has_coordinates:
        raise NoCoordinatesError(
            f"scene {scene.name!r} has no coordinates: its images lie nowhere, and dense search needs a map"
        )
    return create_search(name, build_maps(encoder, scene, tile_bounds(tiles), galleries_dir()), encoder, **options)


def blocks(scene: Scene, asked: pd.DataFrame) -> np.ndarray:
    """Which queries stand or fall together `(Q,)`: those within one square of four tiles, or of one image pair."""
    if scene.has_coordinates:
        return block_ids(positions(asked), 4 * int(asked["size"].iloc[0]) * scene.pixel_size)
    return asked["strip"].astype("category").cat.codes.to_numpy()


def intervals(found: np.ndarray, group: np.ndarray, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """95 % intervals `recall@k_low`, `recall@k_high` from a bootstrap over spatial blocks; empty for less than two."""
    if len(np.unique(group)) < 2:
        return {}
    ends = {k: bootstrap_mean((found < k).astype(float), group)[1:] for k in ks}
    return {
        f"recall@{k}_{end}": value for k, pair in ends.items() for end, value in zip(("low", "high"), pair, strict=True)
    }


def embed_tables(
    encoder: Encoder,
    scene: Scene,
    asked: pd.DataFrame,
    tiles: pd.DataFrame,
    config: Config,
    normalised: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings `float32 (Q, D)` of queries and `(N, D)` of tiles."""
    return tuple(
        embed(encoder, images_of(scene, table, config, encoder), modality, normalised)
        for table, modality in ((asked, "query"), (tiles, "reference"))
    )


def compared_and_read(
    encoder: Encoder,
    scene: Scene,
    asked: pd.DataFrame,
    tiles: pd.DataFrame,
    config: Config,
    head: OffsetRegression | None,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Embeddings of queries and tiles as a search compares them, and as an offset head reads them: not normalised."""
    read = embed_tables(encoder, scene, asked, tiles, config, normalised=head is None)
    if head is None:
        return read, read
    query, reference = (F.normalize(torch.from_numpy(vectors), dim=1).numpy() for vectors in read)
    return (query, reference), read


def images_of(
    scene: Scene, table: pd.DataFrame, config: Config, encoder: Encoder | None = None
) -> torch.utils.data.DataLoader:
    """The images of a patch table in batches, as the encoder takes them, or one of the config's one size for both.

    A table of queries gives SAR. With its column `modality` set to `optical` it gives the map at the same places.
    """
    size = config.image_size if encoder is None else image_sizes(encoder)
    if isinstance(scene, Views):
        sizes = size if isinstance(size, dict) else dict.fromkeys(("sar", "optical"), size)
        images: torch.utils.data.Dataset = scene.images(table, sizes, config.reference_view == "polar")
    else:
        images = PatchImages(scene, table, size)
    return torch.utils.data.DataLoader(images, config.batch_size, num_workers=config.workers)


def load_run(path: Path | str) -> Run:
    """A run from its folder.

    Raises
    ------
    FileNotFoundError
        Where the folder holds no finished run.
    """
    path = Path(path)
    if not (path / METRICS).is_file():
        raise FileNotFoundError(f"{path}: no finished run here (metrics.json is missing); sm.run(config) makes one")
    return Run(path, load_config(path / "config.json"))


def _read_records(path: Path) -> pd.DataFrame:
    """A list of JSON objects as a table; pandas' own reader would take a strip called "007" for a number."""
    rows = read_json(path, list)
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a list of rows; delete the file and run the config again")
    return pd.DataFrame(rows)
