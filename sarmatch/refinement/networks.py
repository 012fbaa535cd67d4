"""Networks that give every candidate of a list a score: all see the same node inputs, and differ in their edges."""

import math
from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

from sarmatch.checks import Count, Fraction, Positive
from sarmatch.refinement.graphs import EDGES, candidate_graphs
from sarmatch.refinement.inputs import ListBatch, middle_of_list

WAVELENGTHS = (8.0, 16.0, 32.0)  # tile widths: the middle of a list is known no finer than to some tiles


class NodeInputs(nn.Module):
    """The inputs of every node: `(Q, K)` candidates to `(Q, K, width)`.

    Its score, and the cosine in the gallery's own axes, both also relative to the list; learned projections of the
    product and of the absolute difference of the two embeddings, dropped as a whole for nine nodes in ten in training,
    as these are what memorises tiles; and where it lies relative to the score-weighted middle of the candidates of its
    list in its area, in tile widths as sines and cosines of several wavelengths.

    Parameters
    ----------
    feature_dim
        Of the embeddings.
    width
        Of the output.
    coordinates
        Whether they tell where it lies.
    projection
        Numbers in each of the two projections.
    dropout
        Fraction of nodes that lose them in training.
    """

    def __init__(
        self, feature_dim: int, width: int, coordinates: bool = True, projection: Count = 8, dropout: Fraction = 0.9
    ) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.product = nn.Linear(feature_dim, projection)
        self.difference = nn.Linear(feature_dim, projection)
        self.forget = nn.Dropout1d(dropout)
        self.register_buffer("frequencies", 2 * math.pi / torch.tensor(WAVELENGTHS), persistent=False)
        self.join = nn.Linear(4 + 2 * projection + 4 * len(WAVELENGTHS) * coordinates, width)

    def forward(self, batch: ListBatch) -> Tensor:
        """`(Q, K, width)`."""
        score = batch.score
        # without a gradient: 1 / std is large where an encoder that learns along knows little, and would drown its loss
        known = score.detach()
        relative = (known - known.mean(1, keepdim=True)) / (known.std(1, keepdim=True, correction=0) + 1e-6)
        query = batch.query[:, None]
        dim = query.shape[-1]
        # entries of unit vectors are of size 1 / sqrt(dim)
        product = self.product(query * batch.reference * dim)
        difference = self.difference((query - batch.reference).abs() * math.sqrt(dim))
        own = (query * batch.reference).sum(-1)
        beside = (own - own.mean(1, keepdim=True)) / (own.std(1, keepdim=True, correction=0) + 1e-6)
        parts = [torch.stack([score, relative, own, beside], -1), self.forget(torch.cat([product, difference], -1))]
        if self.coordinates:
            place = ((batch.xy - middle_of_list(batch, relative)) / batch.tile_m).to(score.dtype)
            angle = (place[..., None] * self.frequencies).flatten(2)
            parts += [angle.sin(), angle.cos()]
        return self.join(torch.cat(parts, -1))


class RefinerOutput(NamedTuple):
    """What a network says of lists: scores `(Q, K)`, and shifts `(Q, K, 2)` in tile widths if it gives places.

    `vote` `(Q, K)` are scores of a second head: they learn what `score` learns, and order nothing.
    """

    score: Tensor
    shift: Tensor | None = None
    vote: Tensor | None = None


class ScoreHead(nn.Module):
    """Nodes `(Q, K, width)` and the scores they came with `(Q, K)` to an output: at first the old scores, sharpened.

    A refiner that has learned nothing leaves the order alone, and predicts the centre of the tile. A place is never
    further from it than half a tile, where the next one begins.
    """

    def __init__(self, width: int, sharpness: float = 10.0) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 1)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness)))
        self.place = nn.Linear(width, 2)
        for layer in (self.out, self.place):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, score: Tensor) -> RefinerOutput:
        """Of every candidate."""
        x = self.norm(x)
        return RefinerOutput(self.log_sharpness.exp() * score + self.out(x)[..., 0], 0.5 * self.place(x).tanh())


class RelativeAttention(MessagePassing):
    """Attention over edges whose displacement in tile widths enters both the weight and the message.

    Vaswani et al., NeurIPS 2017, with relative positions in logits and values (Shaw et al., NAACL 2018), the logits'
    as a small network of the displacement (Liu et al., Swin, ICCV 2021). A node with its own edge alone gets a linear
    map of itself.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(aggr="add", node_dim=0)
        if width % heads:
            raise ValueError(f"width is {width}, expected a multiple of heads = {heads}")
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.bias = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, heads))
        self.shift = nn.Linear(4, width)

    def forward(self, x: Tensor, graph: Data, alike: Tensor) -> Tensor:
        """Nodes `(N, width)` to `(N, width)`; `alike` `(E, 1)` is the cosine of the two ends of every edge."""
        query, key, value = (m(x).view(len(x), self.heads, -1) for m in (self.query, self.key, self.value))
        near = graph.edge_attr / (1 + graph.edge_attr[:, 2:])  # far is far: a town's width is not ten times a tile's
        edge = torch.cat([near, alike], 1)
        shift = self.shift(edge).view(len(edge), self.heads, -1)
        messages = self.propagate(
            graph.edge_index,
            query=query,
            key=key,
            value=value,
            bias=self.bias(edge),
            shift=shift,
            size=(len(x), len(x)),
        )
        return self.out(messages.flatten(1))

    def message(
        self,
        query_i: Tensor,
        key_j: Tensor,
        value_j: Tensor,
        bias: Tensor,
        shift: Tensor,
        index: Tensor,
        size_i: Optional[int],  # noqa: UP045 - PyG reads this signature, and knows no unions
    ) -> Tensor:
        """What each edge brings `(E, heads, width / heads)`."""
        logit = (query_i * key_j).sum(-1) / math.sqrt(query_i.shape[-1]) + bias
        return softmax(logit, index, num_nodes=size_i)[..., None] * (value_j + shift)


class GraphNetwork(nn.Module):
    """Blocks of attention over a graph of the candidates, each followed by an MLP per node.

    Parameters
    ----------
    feature_dim, width, layers, heads
        Of the embeddings, the nodes, and the blocks.
    edges, k, reach
        See `candidate_graphs`. `edges="none"` makes it an MLP of exactly as many parameters.
    coordinates
        Whether node inputs tell where a node lies.
    permuted
        Control: positions are randomly permuted among the candidates of each list, in node inputs and edges alike.
    """

    def __init__(
        self,
        feature_dim: int,
        width: Count = 128,
        layers: Count = 2,
        heads: Count = 4,
        edges: str = "metres",
        k: Count = 8,
        reach: Positive = 2.0,
        coordinates: bool = True,
        permuted: bool = False,
        dropout: Fraction = 0.1,
        projection: Count = 8,
    ) -> None:
        super().__init__()
        if edges not in EDGES:
            raise ValueError(f"no edges are called {edges!r}; there are {sorted(EDGES)}")
        self.edges, self.k, self.reach, self.permuted = edges, k, reach, permuted
        self.inputs = NodeInputs(feature_dim, width, coordinates, projection)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "before_attention": nn.LayerNorm(width),
                    "attention": RelativeAttention(width, heads),
                    "mlp": _mlp(width, dropout),
                }
            )
            for _ in range(layers)
        )
        self.score = ScoreHead(width)

    def forward(self, batch: ListBatch, seed: int = 0) -> RefinerOutput:
        """Of every candidate; `seed` is that of random edges and permuted positions."""
        if self.permuted:
            order = torch.rand(batch.score.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
            order = order[..., None].expand(-1, -1, 2).to(batch.xy.device)
            batch = batch._replace(xy=batch.xy.gather(1, order))
        graph = candidate_graphs(batch.xy, batch.reference, batch.tile_m, self.edges, self.k, self.reach, seed)
        x = self.inputs(batch).flatten(0, 1)
        embedding = batch.reference.flatten(0, 1)
        source, target = graph.edge_index
        alike = (embedding[source] * embedding[target]).sum(1, keepdim=True)
        for block in self.blocks:
            x = x + block["attention"](block["before_attention"](x), graph, alike)
            x = x + block["mlp"](x)
        return self.score(x.view(*batch.score.shape, -1), batch.score)


class PointNetwork(nn.Module):
    """An MLP for every candidate by itself; with `pooled`, DeepSets (Zaheer et al., NeurIPS 2017).

    Parameters
    ----------
    feature_dim, width, layers
        Of the embeddings and of the MLP.
    coordinates
        Whether node inputs tell where a node lies.
    pooled
        Halfway through, mean and maximum over the list join every candidate.
    """

    def __init__(
        self,
        feature_dim: int,
        width: Count = 128,
        layers: Count = 3,
        coordinates: bool = True,
        pooled: bool = False,
        dropout: Fraction = 0.1,
    ) -> None:
        super().__init__()
        self.inputs = NodeInputs(feature_dim, width, coordinates)
        self.before = nn.ModuleList(_mlp(width, dropout) for _ in range(layers))
        self.join = nn.Linear(3 * width, width) if pooled else None
        self.after = nn.ModuleList(_mlp(width, dropout) for _ in range(layers if pooled else 0))
        self.score = ScoreHead(width)

    def forward(self, batch: ListBatch, seed: int = 0) -> RefinerOutput:
        """Of every candidate; `seed` is not used."""
        x = self.inputs(batch)
        for block in self.before:
            x = x + block(x)
        if self.join is not None:
            context = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], -1)
            x = self.join(torch.cat([x, context.expand(-1, x.shape[1], -1)], -1))
        for block in self.after:
            x = x + block(x)
        return self.score(x, batch.score)


class SurfaceNetwork(nn.Module):
    """A small convolutional network that looks at the correlation of a query with the map around each candidate.

    Parameters
    ----------
    feature_dim
        Of the embeddings; unused, it looks at pixels alone.
    width
        Channels.
    """

    def __init__(self, feature_dim: int, width: Count = 32, dropout: Fraction = 0.1) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(2, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.join = nn.Sequential(nn.Linear(4 * width + 3, 64), nn.ReLU(), nn.Dropout(dropout))
        self.score = ScoreHead(64)

    def forward(self, batch: ListBatch, seed: int = 0) -> RefinerOutput:
        """Of every candidate; `seed` is not used."""
        surface = batch.surface.flatten(0, 1)[:, None]
        peak = batch.surface.amax((2, 3))
        sharp = (surface - surface.mean((2, 3), keepdim=True)) / (surface.std((2, 3), keepdim=True) + 1e-6)
        seen = self.look(torch.cat([10 * surface, sharp], 1))
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1).view(*batch.score.shape, -1)
        beside = (peak - peak.mean(1, keepdim=True)) / (peak.std(1, keepdim=True, correction=0) + 1e-6)
        numbers = torch.stack([batch.score, 10 * peak, beside], -1)
        return self.score(self.join(torch.cat([pooled, numbers], -1)), batch.score)


class PublishedNetwork(nn.Module):
    """The attention graph network of CMPC (Li et al., IEEE JSTARS 16, 2023), from its description.

    A node is the query's embedding beside the candidate's; blocks of masked dot-product attention, instance norm over
    the list, and residual convolutions of width one; a node's score is the cosine of the query and of the refined node,
    and a linear head votes beside it. Edges are, as in the released configs, nearest neighbours in the embedding. At
    its own size it has the 75,595,777 parameters that run in the released one, which has 5,064,768 more that never do;
    the waist of the convolutions and where batch norms stand follow from that number, and are our reading.

    Parameters
    ----------
    feature_dim
        Of the embeddings, 2048 as published.
    width
        Of a node; as the embeddings', 2048, as published and without another value.
    layers, k
        4 and 5 as published.
    edges
        See `candidate_graphs`.
    shortcut
        Whether the cosine that the list came with is added to a node's score. The released one adds it to another
        node's: its cosines are in the order of the list, its nodes are not.
    """

    def __init__(
        self,
        feature_dim: int,
        width: Count | None = None,
        layers: Count = 4,
        k: Count = 5,
        edges: str = "features",
        shortcut: bool = False,
        temperature: Positive = 0.05,
    ) -> None:
        super().__init__()
        self.k, self.edges, self.shortcut, self.temperature = k, edges, shortcut, temperature
        width = width or feature_dim
        self.input_projection = nn.Linear(2 * feature_dim, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    **{name: nn.Linear(width, width) for name in ("query", "key", "value")},
                    "heard": nn.BatchNorm1d(width),
                    "first": nn.Linear(width, width // 2),
                    "first_norm": nn.BatchNorm1d(width // 2),
                    "second": nn.Linear(width // 2, width),
                    "second_norm": nn.BatchNorm1d(width),
                    "out": nn.BatchNorm1d(width),
                }
            )
            for _ in range(layers)
        )
        self.output_projection = nn.Identity() if width == feature_dim else nn.Linear(width, feature_dim)
        self.vote = nn.Linear(width, 1)

    def forward(self, batch: ListBatch, seed: int = 0) -> RefinerOutput:
        """Of every candidate; `seed` is not used."""
        query = batch.query[:, None].expand_as(batch.reference)
        x = self.input_projection(torch.cat([query, batch.reference], -1))
        graph = candidate_graphs(batch.xy, batch.reference, batch.tile_m, self.edges, self.k)
        count, size, width = x.shape
        source, target = graph.edge_index
        mask = torch.zeros(count, size, size, dtype=torch.bool, device=x.device)
        mask[target // size, target % size, source % size] = True
        for block in self.blocks:
            messages = F.scaled_dot_product_attention(block["query"](x), block["key"](x), block["value"](x), mask)
            x = _over_nodes(block["heard"], _over_list(x + messages))
            hidden = _over_nodes(block["first_norm"], block["first"](x)).relu()
            x = _over_nodes(block["out"], x + _over_nodes(block["second_norm"], block["second"](hidden)))
        cosine = F.cosine_similarity(batch.query[:, None], self.output_projection(x), dim=-1)
        score = (cosine + batch.score if self.shortcut else cosine) / self.temperature
        return RefinerOutput(score, vote=self.vote(x)[..., 0])


def _over_nodes(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch norm over all nodes of all lists `(Q, K, width)`; a single node, which has no spread, as after training."""
    nodes = x.flatten(0, 1)
    if len(nodes) == 1:
        return F.batch_norm(nodes, norm.running_mean, norm.running_var, norm.weight, norm.bias).view_as(x)
    return norm(nodes).view_as(x)


def _over_list(x: Tensor) -> Tensor:
    """Instance norm over the candidates of a list; of a single one there is nothing to compare with."""
    if x.shape[1] == 1:
        return x
    return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()


def _mlp(width: int, dropout: float) -> nn.Sequential:
    """The part of a block that each node goes through alone."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
    )
