"""SEN1-2 (Schmitt et al. 2018, arXiv:1807.01569): Sentinel-1 VV against Sentinel-2 at 10 m, 282,384 pairs.

SAR is stored as 8-bit decibels over a range that is not published. Patches of one scene lie side by side and may
overlap, so scenes stay whole. The layout sorted by land cover is read as well.
"""

from sarmatch.datasets.pairs import paired_folders

_NAME = r"(?:.*/)?(?P<season>ROIs\d+_[a-z]+)_{sensor}_(?P<scene>\d+)_p(?P<patch>\d+)\.png"

SEN12 = paired_folders(
    "sen12",
    "SEN1-2: ROIs*/s1_N/*_p*.png beside ROIs*/s2_N/, or sorted by land cover: agri/s1/, agri/s2/ and so on",
    _NAME.format(sensor="s2"),
    _NAME.format(sensor="s1"),
    group_by=("season", "scene"),
    sar_scale="decibel",
    sar_bands=("VV",),
    sar_window=(0.0, 1.0),
    credit="SEN1-2, CC BY; contains modified Copernicus Sentinel data",
)
