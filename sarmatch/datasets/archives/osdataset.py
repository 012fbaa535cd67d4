"""OSdataset (Xiang et al. 2020, doi 10.1109/JSTARS.2020.3026379): Gaofen-3 spotlight against Google Earth at 1 m."""

from sarmatch.datasets.pairs import paired_folders

OSDATASET = paired_folders(
    "osdataset",
    "OSdataset, 256/ or 512/: {train,val,test}/optN.png, {train,val,test}/sarN.png",
    r"(?P<split>train|val|test)/opt(?P<number>\d+)\.png",
    r"(?P<split>train|val|test)/sar(?P<number>\d+)\.png",
    credit="OSdataset, CC BY-NC",
)
