"""Aggregators against plain loops."""

import pytest
import torch
import torch.nn.functional as F

from sarmatch.encoders import create_aggregator

MAPS = torch.rand(3, 6, 4, 5, generator=torch.Generator().manual_seed(0)) + 0.1


def made(name, **options):
    torch.manual_seed(1)
    return create_aggregator(name, 6, (4, 5), **options)


@pytest.mark.parametrize(
    ("name", "dim"), [("average", 6), ("max", 6), ("gem", 6), ("netvlad", 384), ("safa", 48), ("smd", 48)]
)
def test_each_says_how_long_its_vectors_are(name, dim):
    aggregator = made(name)
    assert aggregator.feature_dim == dim
    assert aggregator(MAPS).shape == (3, dim)


def test_the_generalised_mean_lies_between_average_and_maximum():
    average, largest = made("average")(MAPS), made("max")(MAPS)
    torch.testing.assert_close(made("gem", power=1.0)(MAPS), average)
    torch.testing.assert_close(made("gem", power=300.0)(MAPS.double()).float(), largest, rtol=0.02, atol=0)
    assert ((made("gem")(MAPS) > average) & (made("gem")(MAPS) < largest)).all()


def test_netvlad_is_the_loop():
    aggregator = made("netvlad", clusters=3)
    vectors = []
    for cells in MAPS.flatten(2).mT:
        residuals = torch.zeros(3, 6)
        for cell in cells:
            weights = (aggregator.assign.weight[:, :, 0, 0] @ cell + aggregator.assign.bias).softmax(0)
            for k in range(3):
                residuals[k] += weights[k] * (cell - aggregator.centres[k])
        vectors.append(F.normalize(F.normalize(residuals, dim=1).flatten(), dim=0))
    torch.testing.assert_close(aggregator(MAPS), torch.stack(vectors))
    assert made("netvlad", clusters=3, projected=7)(MAPS).shape == (3, 7)


@pytest.mark.parametrize("over", ["max", "mean"])
def test_safa_is_the_loop(over):
    aggregator = made("safa", heads=2, over=over)
    rows = []
    for image in MAPS.flatten(2):
        seen = image.max(0).values if over == "max" else image.mean(0)
        row = []
        for head in range(2):
            hidden = seen @ aggregator.inner[head] + aggregator.inner_bias[head]
            weights = hidden @ aggregator.outer[head] + aggregator.outer_bias[head]
            row.append((image * weights).sum(1))
        rows.append(torch.cat(row))
    torch.testing.assert_close(aggregator(MAPS), torch.stack(rows))


def test_smd_mixes_the_cells_of_each_channel_alike():
    aggregator = made("smd", heads=2)
    whole = aggregator(MAPS)
    for channel in range(6):
        alone = aggregator.mix(MAPS[:, channel].flatten(1))
        torch.testing.assert_close(whole.unflatten(1, (2, 6))[:, :, channel], alone)


@pytest.mark.parametrize("name", ["safa", "smd"])
def test_weights_per_cell_refuse_another_map(name):
    with pytest.raises(ValueError, match=r"\(4, 5\) cells"):
        made(name)(MAPS[:, :, :3])


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match="aggregator is called 'mean'"):
        create_aggregator("mean", 6, (4, 5))
