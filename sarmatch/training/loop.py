"""The one training loop: whatever the loss, the encoder and the data."""

import math
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from sarmatch.encoders import create_encoder, embed
from sarmatch.evaluation import ranks, recall_at_k
from sarmatch.files import write
from sarmatch.losses import create_loss
from sarmatch.patches import (
    PatchImages,
    TrainingPairs,
    guard_band,
    pair_overlap,
    search_task,
    training_regions,
)
from sarmatch.patches.transforms import augment
from sarmatch.scenes.scene import Scene
from sarmatch.training.config import Config
from sarmatch.training.files import load_training_state, save_training_state

STATE = "training.safetensors"
WEIGHTS = "model.safetensors"
HISTORY = "history.csv"


def train(config: Config, scene: Scene, folder: Path) -> nn.Module:
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

    Returns
    -------
    The encoder with the weights of the best epoch.
    """
    accelerator = Accelerator(mixed_precision=config.precision)
    set_seed(config.seed)
    size = config.patch_size or scene.patch_size
    guard = guard_band(scene, size)
    pairs = TrainingPairs(
        scene,
        training_regions(scene, config.protocols, guard),
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
    learner = Learner(encoder, create_loss(config.loss, **config.loss_options))
    optimizer = torch.optim.AdamW(learner.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)

    history: list[dict[str, float]] = []
    if (folder / STATE).is_file():
        history = load_training_state(folder / STATE, learner, optimizer)["history"]
    loader = torch.utils.data.DataLoader(
        pairs, batch_size=config.batch_size, num_workers=config.workers, drop_last=True
    )
    learner, optimizer, loader = accelerator.prepare(learner, optimizer, loader)

    steps = len(loader)
    for epoch in range(len(history), config.epochs):
        pairs.draw(epoch)
        set_seed(config.seed + 1000 * (epoch + 1))
        generator = torch.Generator().manual_seed(torch.initial_seed())
        learner.train()
        total = 0.0
        title = f"epoch {epoch + 1}/{config.epochs}"
        bar = tqdm(total=steps * config.batch_size, desc=title, unit="pair", leave=False, disable=None)
        for step, batch in enumerate(loader):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch * steps + step, config.epochs * steps)
            query, reference = augment(batch["query"], batch["reference"], config.augment, generator)
            with accelerator.autocast():
                loss = learner(query, reference, pair_overlap(batch["place"], size))
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"loss {config.loss!r} is {loss.item()} at step {step} of epoch {epoch + 1}; "
                    f"the last whole epoch is kept in {folder.name}/{STATE}; lower learning_rate or check the images"
                )
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            optimizer.step()
            total += loss.item()
            bar.update(config.batch_size)
            bar.set_postfix(loss=f"{total / (step + 1):.3f}", refresh=False)
        bar.close()

        plain = accelerator.unwrap_model(learner)
        row = {
            "epoch": epoch + 1,
            "loss": total / steps,
            **validation.recall(plain.encoder, config.batch_size),
        }
        history.append(row)
        if accelerator.is_main_process:
            if row[config.select] > max((r[config.select] for r in history[:-1]), default=-math.inf):
                write(folder / WEIGHTS, lambda p, e=plain.encoder: save_weights(e, p))
            write(folder / HISTORY, lambda p: pd.DataFrame(history).to_csv(p, index=False))
            save_training_state(folder / STATE, plain, optimizer, history=history)
            print(
                f"{title}  loss {row['loss']:.3f}  validation {config.select} {row[config.select]:.3f}",
                flush=True,
            )

    accelerator.wait_for_everyone()
    load_weights(encoder, folder / WEIGHTS)
    return encoder


class Learner(nn.Module):
    """Encoder and loss as one module, which is what distributed training needs to wrap."""

    def __init__(self, encoder: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.encoder, self.loss = encoder, loss

    def forward(self, query: torch.Tensor, reference: torch.Tensor, overlap: torch.Tensor) -> torch.Tensor:
        return self.loss(*self.encoder(query, reference), overlap=overlap)


def learning_rate(config: Config, step: int, total: int) -> float:
    """Linear warm-up, then half a cosine down to zero (Loshchilov and Hutter, ICLR 2017)."""
    warmup = config.warmup * total
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


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

    def recall(self, encoder: nn.Module, batch_size: int) -> dict[str, float]:
        """`recall@1`, `@5` and `@10` of the encoder as it stands."""
        query, reference = (
            torch.from_numpy(embed(encoder, images.split(batch_size), modality))
            for modality, images in self.images.items()
        )
        found = ranks((query @ reference.T).numpy(), self.queries["positive"].to_numpy())
        return {f"recall@{k}": recall_at_k(found, k) for k in (1, 5, 10)}


def save_weights(encoder: nn.Module, path: Path) -> None:
    """Weights as safetensors: no pickle, so loading them runs no code."""
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in encoder.state_dict().items()}, path)


def load_weights(encoder: nn.Module, path: Path) -> None:
    """Weights from safetensors, with an error that names the file where they do not fit."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no weights here; the run was not trained to the end of its first epoch")
    try:
        encoder.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path}: not readable as safetensors ({error})") from error
    except RuntimeError as error:
        raise ValueError(f"{path}: these weights are of another encoder than the config names ({error})") from error
