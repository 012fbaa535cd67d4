"""QXS-SAROPT (Huang et al. 2021, arXiv:2103.08259): Gaofen-3 spotlight against Google Earth at 1 m, 20,000 pairs.

There is no official split, and neighbouring crops overlap by a fifth, so that a random split leaks. Pairs
are numbered along their scenes: whole blocks of `BLOCK` numbers stay in one split, and the last `GUARD` of each are
left out. Which numbers lie side by side across a scene's rows is not published: treat results as an upper bound.
"""

from sarmatch.datasets.pairs import paired_folders
from sarmatch.datasets.reader import Reader

BLOCK, GUARD = 500, 25


def _inside_a_block(key: str) -> bool:
    return (int(key.split("_")[-1]) - 1) % BLOCK < BLOCK - GUARD


def _reader() -> Reader:
    reader = paired_folders(
        "qxs",
        "QXS-SAROPT: opt_256_oc_0.2/N.png, sar_256_oc_0.2/N.png",
        r"opt_256_oc_0\.2/(?P<number>\d+)\.png",
        r"sar_256_oc_0\.2/(?P<number>\d+)\.png",
        keep=_inside_a_block,
        credit="QXS-SAROPT; cite arXiv:2103.08259",
    )

    def files(folder):
        table = reader.files(folder)
        return table.assign(group=[f"block {(int(key) - 1) // BLOCK:04d}" for key in table["key"]])

    return reader._replace(files=files)


QXS = _reader()
