"""What a notebook compares at hand: refined lists side by side, as `studies` records them, and groups of queries."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sarmatch.evaluation import bootstrap_difference, bootstrap_mean, ranks
from sarmatch.experiments.studies import COMPARED, Task, judge, measures, recall_intervals
from sarmatch.search import Candidates
from sarmatch.training.runs import whitened


def compare_candidates(
    refined: Mapping[str, Candidates], task: Task, control: str = "whitened"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What refined lists of the same queries find, and their paired differences to one of them.

    Parameters
    ----------
    refined
        Lists of the task's queries by method, among them the control.
    task
        The queries, and how they are judged.
    control
        A key of `refined`; what sees whitened embeddings is to be compared with the search by them, training-free.

    Returns
    -------
    table, differences
        As `sarmatch.experiments.studies.compare_refiners` gives them, without seeds, times and sizes.

    Raises
    ------
    ValueError
        Where the control is not among the lists.
    """
    if control not in refined:
        raise ValueError(f"the control {control!r} is not among the refined lists {sorted(refined)}")
    about = {"protocol": task.protocol, "kind": task.kind}
    found = {arm: judge(lists, task) for arm, lists in refined.items()}
    single = {arm: {measure: values(of_arm) for measure, values in COMPARED.items()} for arm, of_arm in found.items()}
    table = pd.DataFrame(
        {"arm": arm} | about | measures(found[arm], task) | recall_intervals(of_arm, task.block)
        for arm, of_arm in single.items()
    )
    gaps = []
    for arm in (arm for arm in found if arm != control):
        for measure, values in single[arm].items():
            gap = bootstrap_difference(values, single[control][measure], task.block)
            numbers = dict(zip(("difference", "low", "high"), gap, strict=True))
            gaps.append({"arm": arm, "control": control} | about | {"measure": measure} | numbers)
    return table, pd.DataFrame(gaps)


def by_group(hit: np.ndarray, groups: Mapping[str, np.ndarray], block: np.ndarray) -> pd.DataFrame:
    """Fraction of queries found in each of several groups, with its 95 % interval over spatial blocks.

    Parameters
    ----------
    hit
        Whether each query is found `(Q,)`.
    groups
        Which queries belong to a group, bool `(Q,)`, by its name; they may overlap.
    block
        Which queries stand or fall together `(Q,)`.

    Returns
    -------
    Index: the groups that have a query; `mean`, `low`, `high`, and how many `queries` and `blocks` they are of. Of one
    that lies in one block the ends of the interval are NaN: nothing can be said of another place.
    """
    rows = {}
    for name, chosen in groups.items():
        inside = np.asarray(chosen, bool)
        if not inside.any():
            continue
        blocks = len(np.unique(block[inside]))
        ends = bootstrap_mean(hit[inside], block[inside]) if blocks > 1 else (hit[inside].mean(), np.nan, np.nan)
        interval = dict(zip(("mean", "low", "high"), ends, strict=True))
        rows[name] = interval | {"queries": int(inside.sum()), "blocks": blocks}
    return pd.DataFrame.from_dict(rows, orient="index")


def whitening_by_gallery(
    query: np.ndarray,
    reference: np.ndarray,
    positive: np.ndarray,
    centre: np.ndarray,
    sizes: Sequence[int] = (10, 20, 50, 100, 200, 400),
    draws: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """What whitening is worth in smaller galleries: random parts of one, and the queries whose tile is in the part.

    Parameters
    ----------
    query, reference
        Embeddings `(Q, D)` and `(N, D)`, L2-normalised.
    positive
        The true tile of each query `(Q,)`.
    centre
        Of the queries' modality `(D,)`, see `sarmatch.training.runs.query_mean`.
    sizes
        Tiles of a part, at most N.
    draws
        Parts of each size.

    Returns
    -------
    Index `tiles`; recall@1 as a mean over parts by plain `cosine` and `whitened`, and how many `queries` a part has.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for size in sizes:
        for part in (draw.permutation(len(reference))[:size] for _ in range(draws)):
            place = np.full(len(reference), -1)
            place[part] = np.arange(size)
            at = np.flatnonzero(place[positive] >= 0)
            if not len(at):
                continue
            pairs = {"cosine": (query[at], reference[part])}
            pairs["whitened"] = whitened(pd.DataFrame(index=range(size)), *pairs["cosine"], centre)
            found = {name: ranks(q @ r.T, place[positive[at]]) < 1 for name, (q, r) in pairs.items()}
            rows.append({"tiles": size} | {name: hit.mean() for name, hit in found.items()} | {"queries": len(at)})
    return pd.DataFrame(rows).groupby("tiles").mean()
