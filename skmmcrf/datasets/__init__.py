"""Images to learn from: loaders of files, a generator of phantoms, and saving of predictions."""

from skmmcrf.datasets.folder import load_image_folder
from skmmcrf.datasets.masks import save_masks
from skmmcrf.datasets.pairs import load_image_pairs, split_pairs
from skmmcrf.datasets.phantoms import make_phantoms

__all__ = ["load_image_folder", "load_image_pairs", "make_phantoms", "save_masks", "split_pairs"]
