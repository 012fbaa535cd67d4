"""Maps and a gallery in as many processes as are started, kept in the folder named first.

Every process prints how many windows and tiles it has encoded, and whether it holds what is kept.
"""

import sys
from pathlib import Path

import torch

import sarmatch as sm
from sarmatch.search import DenseGallery, Gallery, build_gallery, build_maps, gallery, maps
from sarmatch.search.keeping import processes
from tests.fake_data import tiny_scene

BATCH = 2


def counted(room: object, name: str, calls: list[str]) -> None:
    """Put the name of a room's function into the list whenever it is called."""
    function = getattr(room, name)

    def count(*given: object) -> object:
        calls.append(name)
        return function(*given)

    setattr(room, name, count)


def main(folder: Path) -> None:
    """Build both and print a line on each."""
    scene, calls = tiny_scene(), []
    counted(maps, "_encoded", calls)
    counted(gallery, "embed", calls)
    maps.CELLS = 64  # windows of as many pixels, so that there are several
    torch.manual_seed(0)  # the same weights in every process
    dense = sm.create_encoder("dense")
    vectors = sm.create_encoder("plain", image_size=16, feature_dim=8, widths=(8, 8, 16, 16, 16))
    found = build_maps(dense, scene, keep=folder / "maps")
    tiles = build_gallery(vectors, scene, sm.references(scene), 16, BATCH, folder / "gallery")
    held = [DenseGallery.load(path) for path in (folder / "maps").glob("*.safetensors")]
    same = len(held) == 1 and all(torch.equal(m.features, held[0].maps[n].features) for n, m in found.maps.items())
    (kept,) = [Gallery.load(path) for path in (folder / "gallery").glob("*.safetensors")]
    same = same and bool((tiles.vectors == kept.vectors).all())
    line = f"{processes().process_index} {calls.count('_encoded')} {calls.count('embed')} {same}\n"
    sys.stdout.write(line)  # in one piece, between those of others


if __name__ == "__main__":
    main(Path(sys.argv[1]))
