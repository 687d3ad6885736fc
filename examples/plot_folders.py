"""
Images and masks in folders
===========================

People's own images lie in folders: scans in one, masks in another, several scans of each patient. This example makes
such folders, and goes from the files to a trained model and to masks of what it finds.
"""

# %%
# The files
# ---------
# Five patients have four scans each. Generated images stand for the scans. The mask of ``scans/anna_1.jpg`` is
# ``masks/anna_1_mask.png``: black is background, white is the object.

import tempfile
from pathlib import Path

from PIL import Image

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import load_image_pairs, make_phantoms, save_masks, split_pairs
from skmmcrf.display import SegmentationDisplay

folder = Path(tempfile.mkdtemp())
names = [f"{patient}_{n}" for patient in ("anna", "ben", "carla", "david", "eva") for n in (1, 2, 3, 4)]
for part in ("scans", "masks"):
    (folder / part).mkdir()
for name, image, mask in zip(names, *make_phantoms(len(names), random_state=0)):
    Image.fromarray(image).save(folder / "scans" / f"{name}.jpg")
    Image.fromarray(255 * mask).save(folder / "masks" / f"{name}_mask.png")

# %%
# Loading
# -------
# Images and masks are paired by their names. ``group`` says where the patient's name stands: the letters before the
# underscore.

data = load_image_pairs(folder / "scans", folder / "masks", group=r"^([a-z]+)_")
print(f"{len(data.images)} images, the first is {data.names[0]} of {data.groups[0]}, {data.images[0].shape} pixels")

# %%
# Splitting by patient
# --------------------
# Scans of one patient are alike. A model that has seen one of them would look better on the others than on those of a
# new patient. ``split_pairs`` therefore keeps all scans of a patient in one part.

train, test = split_pairs(data, test_size=2, random_state=0)
print("to train on:", *dict.fromkeys(train.groups))
print("to test on:", *dict.fromkeys(test.groups))

# %%
# Training
# --------
# A network is trained first, then a field on its output, and then both together.

cnn = CNNSegmenter(n_epochs=20, augmentation="flip")
model = DeepStructuredSegmenter(cnn, n_epochs=3, random_state=0).fit(train.images, train.masks)
print(f"mean Jaccard index of new patients: {100 * model.score(test.images, test.masks):.1f} %")

# %%
# Results
# -------
# The truth is outlined in yellow, the result in blue, for two scans of each new patient.

SegmentationDisplay.from_estimator({"joint": model}, test.images[::2], test.masks[::2])

# %%
# Saving what was found
# ---------------------
# The files are named after the images, and any viewer shows them: what was found is white.

save_masks(folder / "found", test.names, model.predict(test.images), foreground=255)
print(*sorted(file.name for file in (folder / "found").iterdir()), sep="\n")
