"""Images to learn from: a generator of phantoms and a loader of folders."""

from skmmcrf.datasets.folder import load_image_folder
from skmmcrf.datasets.phantoms import make_phantoms

__all__ = ["load_image_folder", "make_phantoms"]
