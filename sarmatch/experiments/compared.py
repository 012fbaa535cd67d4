"""Refined lists of one task side by side, as a notebook makes them: what `studies` records, for lists at hand."""

from collections.abc import Mapping

import pandas as pd

from sarmatch.evaluation import bootstrap_difference
from sarmatch.experiments.studies import COMPARED, Task, judge, measures
from sarmatch.search import Candidates


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
    table = pd.DataFrame({"arm": arm} | about | measures(of_arm, task) for arm, of_arm in found.items())
    gaps = []
    for arm in (arm for arm in found if arm != control):
        for measure, values in COMPARED.items():
            gap = bootstrap_difference(values(found[arm]), values(found[control]), task.block)
            numbers = dict(zip(("difference", "low", "high"), gap, strict=True))
            gaps.append({"arm": arm, "control": control} | about | {"measure": measure} | numbers)
    return table, pd.DataFrame(gaps)
