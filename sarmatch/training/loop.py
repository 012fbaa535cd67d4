"""The one training loop: whatever the loss, the encoder and the data."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from sarmatch.alignment import create_alignment
from sarmatch.atomic_io import write
from sarmatch.encoders import create_encoder, embed
from sarmatch.evaluation import ranks, recall_at_k, wasserstein
from sarmatch.losses import create_loss
from sarmatch.patches import (
    Drawn,
    PatchImages,
    TrainingPairs,
    arrange,
    fold_of,
    guard_band,
    pair_offset,
    pair_overlap,
    search_task,
    training_regions,
)
from sarmatch.patches.transforms import augment
from sarmatch.progress import progress
from sarmatch.refinement.learned import NETWORKS, LearnedRefiner
from sarmatch.scenes.scene import Scene
from sarmatch.training.checkpoints import load_training_state, save_training_state
from sarmatch.training.config import Config
from sarmatch.training.joint import MEMORY, RefinerLoss
from sarmatch.training.sharpness import climb, descend

STATE = "training.safetensors"
WEIGHTS = "model.safetensors"
REFINER = "refiner.safetensors"
HISTORY = "history.csv"
COLLAPSED = 1e-3  # variance of unit vectors at cosines of 0.999; untrained encoders have 0.07 and more
MEASURED = 500  # patches per modality whose exact distance is taken every epoch


Report = Callable[[pd.DataFrame], None]


def print_epoch(history: pd.DataFrame) -> None:
    """One line on the epoch that has just ended."""
    last = history.iloc[-1]
    numbers = "  ".join(f"{name} {last[name]:.3f}" for name in history.columns.drop("epoch"))
    print(f"epoch {last['epoch']:.0f}  {numbers}", flush=True)


def train(config: Config, scene: Scene, folder: Path, report: Report = print_epoch) -> nn.Module:
    """Train an encoder, choosing the epoch on validation ground.

    An interrupted training goes on after its last whole epoch and gives the numbers it would have given. Every epoch
    draws its chance from the seed and its own number alone, which is what makes that true.

    Parameters
    ----------
    config
        The experiment.
    scene
        Where the patches come from.
    folder
        Run folder: `training.safetensors` (to go on), `model.safetensors` (best epoch), `history.csv`.
    report
        Called after every epoch with the history so far: one row per epoch with `loss`, the opponent's `estimate`, the
        exact `wasserstein_1` and `recall@k` on validation ground.

    Returns
    -------
    The encoder with the weights of the best epoch.

    Raises
    ------
    FloatingPointError
        Where a loss is not finite or the encoder has collapsed; names the loss, the step and the epoch.
    """
    # a batch is shared out among processes, so that one and several train on the same batches
    accelerator = Accelerator(
        mixed_precision=config.precision, dataloader_config=DataLoaderConfiguration(split_batches=True)
    )
    set_seed(config.seed)
    size = config.patch_size or scene.patch_size
    pairs = TrainingPairs(
        scene,
        training_ground(config, scene, size),
        size,
        config.image_size,
        config.pairs_per_epoch,
        config.offset,
        config.seed,
        shuffle_pairs=config.control == "shuffled_pairs",
    )
    validation = Validation(config, scene)
    encoder = create_encoder(config.encoder, config.image_size, config.sar_bands, **config.encoder_options)
    fit_normalisation(encoder, pairs)
    learner = Learner(encoder, config, size)
    alignment = create_alignment(config.alignment, encoder.feature_dim, **config.alignment_options)
    alignment.to(accelerator.device)
    optimizer = OPTIMIZERS[config.optimizer](
        learner.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    parts = {"learner": learner, "optimizer": optimizer, "alignment": alignment}
    if alignment.optimizer is not None:
        parts["opponent"] = alignment.optimizer

    history: list[dict[str, float]] = []
    if (folder / STATE).is_file():
        history = load_training_state(folder / STATE, parts)["history"]
    loader = torch.utils.data.DataLoader(
        pairs, batch_size=config.batch_size, num_workers=config.workers, drop_last=True
    )
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        learner = nn.SyncBatchNorm.convert_sync_batchnorm(learner)
    learner, optimizer, loader = accelerator.prepare(learner, optimizer, loader)
    plain = accelerator.unwrap_model(learner)

    def total_loss(query: torch.Tensor, reference: torch.Tensor, place: torch.Tensor, weight: float, opponent: bool):
        """Loss of a batch, and its parts for the record; the opponent learns only where it is told to."""
        with accelerator.autocast():
            loss, query, reference = learner(query, reference, place)
        if opponent:
            alignment.critic_step(query, reference)
        return loss + weight * alignment.loss(query, reference), loss, query, reference

    for epoch in range(len(history), config.epochs):
        pairs.draw(epoch)
        set_seed(config.seed + 1000 * (epoch + 1))
        generator = torch.Generator().manual_seed(torch.initial_seed())
        pairs.arrange(batches(config, scene, pairs, plain.encoder, epoch))
        steps = len(pairs) // config.batch_size
        learner.train()
        sums = {"loss": 0.0, "estimate": 0.0}
        title = f"epoch {epoch + 1}/{config.epochs}"
        bar = progress(total=steps * config.batch_size, desc=title, unit="pair")
        for step, batch in enumerate(loader):
            at = (epoch * steps + step, config.epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, *at)
            weight = alignment_weight(config, *at)
            images = augment(batch["query"], batch["reference"], config.augment, generator)
            total, loss, query, reference = total_loss(*images, batch["place"], weight, opponent=True)
            check_step(config, folder, epoch, step, loss, total, (query, reference))
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(total)
            if config.sharpness != "none":
                before = climb(learner.parameters(), config.sharpness, config.rho)
                optimizer.zero_grad(set_to_none=True)
                accelerator.backward(total_loss(*images, batch["place"], weight, opponent=False)[0])
                descend(before)
            optimizer.step()
            sums["loss"] += loss.item()
            sums["estimate"] += alignment.estimate(query.detach(), reference.detach())
            bar.update(config.batch_size)
            bar.set_postfix(loss=f"{sums['loss'] / (step + 1):.3f}", refresh=False)
        bar.close()

        row = {"epoch": epoch + 1, **{name: value / steps for name, value in sums.items()}}
        if config.alignment == "none":
            del row["estimate"]
        row |= validation.measure(plain.encoder, config.batch_size)
        history.append(row)
        if accelerator.is_main_process:
            if row[config.select] > max((r[config.select] for r in history[:-1]), default=-math.inf):
                write(folder / WEIGHTS, lambda p: save_weights(plain.encoder, p))
                if plain.refining is not None:
                    plain.refining.save(folder / REFINER)
            table = pd.DataFrame(history)
            write(folder / HISTORY, lambda p, t=table: t.to_csv(p, index=False))
            save_training_state(folder / STATE, parts, history=history)
            report(table)

    accelerator.wait_for_everyone()
    load_weights(encoder, folder / WEIGHTS)
    return encoder


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}


class Learner(nn.Module):
    """Encoder and losses as one module, which is what distributed training needs to wrap."""

    def __init__(self, encoder: nn.Module, config: Config, size: int) -> None:
        super().__init__()
        self.encoder, self.size, self.masked = encoder, size, config.neighbours == "mask"
        dim = encoder.feature_dim
        self.loss = create_loss(config.loss, dim, **config.loss_options)
        self.auxiliary = nn.ModuleDict({name: create_loss(name, dim) for name in config.auxiliary})
        self.weights = config.auxiliary
        self.refining = None
        if config.refiner != "none":
            if config.refiner not in NETWORKS:
                raise ValueError(f"refiner {config.refiner!r} does not learn; those that do are {sorted(NETWORKS)}")
            refiner = LearnedRefiner(config.refiner, **config.refiner_options)
            memory = max(config.batch_size, min(MEMORY, config.pairs_per_epoch // 2))
            self.refining = RefinerLoss(refiner, dim, size, config.refiner_weight, memory)

    def forward(
        self, query: torch.Tensor, reference: torch.Tensor, place: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss of the whole batch and its embeddings `(B, D)`; each process brings its share."""
        query, reference = (gather(features.float()) for features in self.encoder(query, reference))
        place = gather(place)
        context = {"overlap": pair_overlap(place, self.size), "offset": pair_offset(place, self.size)}
        main = context if self.masked else context | {"overlap": None}
        loss = self.loss(query, reference, **main)
        for name, auxiliary in self.auxiliary.items():
            loss = loss + self.weights[name] * auxiliary(query, reference, **context)
        if self.refining is not None:
            loss = loss + self.refining(query, reference, place)
        return loss, query, reference


def gather(values: torch.Tensor) -> torch.Tensor:
    """Rows of all processes in their order.

    Each process takes the loss of the whole batch but sends a gradient through its own rows alone. The mean over
    processes that distributed training takes would make it too small by their number, so that much it is raised here.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    count = dist.get_world_size()
    parts = [torch.empty_like(values) for _ in range(count)]
    dist.all_gather(parts, values.detach().contiguous())
    if values.requires_grad:
        values.register_hook(lambda gradient: gradient * count)
    parts[dist.get_rank()] = values
    return torch.cat(parts)


def check_step(
    config: Config,
    folder: Path,
    epoch: int,
    step: int,
    loss: torch.Tensor,
    total: torch.Tensor,
    clouds: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Stop where training has gone wrong, and say what and where."""
    where = f"at step {step} of epoch {epoch + 1}; the last whole epoch is kept in {folder.name}/{STATE}"
    for name, value in ((f"loss {config.loss!r}", loss), (f"alignment {config.alignment!r}", total)):
        if not torch.isfinite(value):
            raise FloatingPointError(f"{name} is {value.item()} {where}; lower learning_rate or check the images")
    for modality, cloud in zip(("SAR", "optical"), clouds, strict=True):
        # unit vectors: one minus the squared length of their mean is their variance
        spread = 1 - cloud.detach().mean(0).square().sum().item()
        if len(cloud) > 1 and spread < COLLAPSED:
            raise FloatingPointError(
                f"the encoder has collapsed: all {modality} patches of a batch lie at one spot (variance {spread:.1e}) "
                f"under loss {config.loss!r} and alignment {config.alignment!r} {where}; "
                "lower alignment_weight or learning_rate"
            )


def batches(config: Config, scene: Scene, pairs: TrainingPairs, encoder: nn.Module, epoch: int) -> np.ndarray:
    """Order of an epoch's pairs, as the sampler wants it."""

    def features() -> tuple[np.ndarray, np.ndarray]:
        images = torch.utils.data.DataLoader(pairs, config.batch_size)
        both = [
            [encoder.encode_query(b["query"].to(device)), encoder.encode_reference(b["reference"].to(device))]
            for b in progress(images, desc=f"features for {config.sampler}", unit="batch")
        ]
        return tuple(torch.cat(side).float().cpu().numpy() for side in zip(*both, strict=True))

    device = next(encoder.parameters()).device
    drawn = Drawn(pairs.place, pairs.size, scene.pixel_size or 1.0, features)
    encoder.eval()
    with torch.no_grad():
        return arrange(config.sampler, drawn, config.batch_size, np.random.default_rng([config.seed, epoch, 1]))


def training_ground(config: Config, scene: Scene, size: int) -> pd.DataFrame:
    """Rectangles that a config trains on."""
    guard = guard_band(scene, size)
    ground = training_regions(scene, config.protocols, guard)
    if config.fold is not None:
        ground, _ = fold_of(ground, config.fold, guard)
    return thinned(ground, config.train_share, size)


def thinned(rectangles: pd.DataFrame, share: float, size: int) -> pd.DataFrame:
    """The upper part of every training rectangle; never less than one patch high."""
    height = (rectangles["row1"] - rectangles["row0"]).to_numpy()
    kept = np.minimum(height, np.maximum(size, np.round(share * height))).astype(int)
    return rectangles.assign(row1=rectangles["row0"] + kept)


def learning_rate(config: Config, step: int, total: int) -> float:
    """Linear warm-up, then half a cosine down to zero (Loshchilov and Hutter, ICLR 2017)."""
    warmup = config.warmup * total
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def alignment_weight(config: Config, step: int, total: int) -> float:
    """Linear warm-up to its full size: an opponent that has learnt nothing yet has nothing to say."""
    warmup = config.alignment_warmup * total
    return config.alignment_weight * min(1.0, step / warmup if warmup else 1.0)


def fit_normalisation(encoder: nn.Module, pairs: TrainingPairs, count: int = 512) -> None:
    """Measure mean and spread of both modalities on training patches."""
    samples = [pairs[i] for i in range(min(count, len(pairs)))]
    encoder.normalise_query.fit(torch.stack([s["query"] for s in samples]))
    encoder.normalise_reference.fit(torch.stack([s["reference"] for s in samples]))


class Validation:
    """Arbitrary queries of the first protocol's validation split and their gallery, read once, searched every epoch."""

    def __init__(self, config: Config, scene: Scene) -> None:
        self.queries, self.tiles = search_task(
            scene,
            "arbitrary",
            config.patch_size,
            "val",
            protocol=config.protocols[0],
            stride=config.stride,
            count=config.val_queries,
            seed=config.seed + 1,
        )
        self.images = {
            modality: torch.stack(list(PatchImages(scene, table, config.image_size)))
            for modality, table in (("query", self.queries), ("reference", self.tiles))
        }

    def measure(self, encoder: nn.Module, batch_size: int) -> dict[str, float]:
        """`recall@1`, `@5`, `@10` of the encoder as it stands, and the exact `wasserstein_1` between its two clouds."""
        query, reference = (
            embed(encoder, images.split(batch_size), modality) for modality, images in self.images.items()
        )
        found = ranks(query @ reference.T, self.queries["positive"].to_numpy())
        apart = wasserstein(query[:MEASURED], reference[:MEASURED], 1)
        return {**{f"recall@{k}": recall_at_k(found, k) for k in (1, 5, 10)}, "wasserstein_1": apart}


def save_weights(encoder: nn.Module, path: Path) -> None:
    """Weights as safetensors: no pickle, so loading them runs no code. What two branches share is kept once."""
    state = encoder.state_dict()
    first = {value.data_ptr(): name for name, value in reversed(state.items())}
    save_file({name: state[name].detach().cpu().contiguous() for name in sorted(first.values())}, path)


def load_weights(encoder: nn.Module, path: Path) -> None:
    """Weights from safetensors, with an error that names the file where they do not fit."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no weights here; the run was not trained to the end of its first epoch")
    try:
        kept = load_file(path)
        state = encoder.state_dict()
        by_place = {state[name].data_ptr(): value for name, value in kept.items() if name in state}
        shared = {name: by_place[value.data_ptr()] for name, value in state.items() if value.data_ptr() in by_place}
        encoder.load_state_dict(shared | kept)
    except SafetensorError as error:
        raise ValueError(f"{path}: not readable as safetensors ({error})") from error
    except RuntimeError as error:
        raise ValueError(f"{path}: these weights are of another encoder than the config names ({error})") from error
