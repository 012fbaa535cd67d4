"""SAR2Opt (Zhao et al. 2022): TerraSAR-X against Google Earth at 1 m, 600 px, with an official test set."""

from sarmatch.datasets.pairs import paired_folders

SAR2OPT = paired_folders(
    "sar2opt",
    "SAR2Opt: trainA/, testA/ (SAR) and trainB/, testB/ (optical), same names",
    r"(?P<split>train|test)B/(?P<name>.+)\.(?:jpg|png)",
    r"(?P<split>train|test)A/(?P<name>.+)\.(?:jpg|png)",
    credit="SAR2Opt, for research",
)
