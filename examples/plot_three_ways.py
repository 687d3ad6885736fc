"""Three ways of training
======================

The package compares three models. Here they learn from 24 generated images that look like ultrasound:

- **CNN**: a neural network alone. It gives each pixel a probability of being foreground.
- **piecewise**: a conditional random field on the finished network. It gives every mask a cost and picks the mask of
  least cost. Pixels whose labels are unlikely cost something, and so does each step of the outline. A step costs less
  where the image has an edge. The weights of these costs are learned.
- **joint**: network and field, trained together.

The network is trained for a short time, on images that are only mirrored, which leaves the field much to correct. The
defaults make all three models better, and leave joint training less to gain here.

The script prints the mean Jaccard index of each model on 40 other images, and saves a picture of three of these. The
Jaccard index of a mask is the area that it shares with the true mask, divided by the area that the two cover together.
"""

import numpy as np
from sklearn.frozen import FrozenEstimator

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.display import SegmentationDisplay
from skmmcrf.metrics import jaccard_indices

X_train, y_train = make_phantoms(24, shape=(128, 128), random_state=0)
X_test, y_test = make_phantoms(40, shape=(128, 128), random_state=1)

print("== CNN: the network alone")
cnn = CNNSegmenter(n_epochs=20, augmentation="flip", random_state=0, verbose=1).fit(X_train, y_train)
trained = FrozenEstimator(cnn)  # both other models start from this network

print("\n== Piecewise: a field on the network, which stays as it is")
piecewise = DeepStructuredSegmenter(trained, training="piecewise", verbose=1).fit(X_train, y_train)

print("\n== Joint: the field, and then network and field together")
joint = DeepStructuredSegmenter(trained, training="joint", random_state=0, verbose=1).fit(X_train, y_train)

# %%
# The scores are those of images that no model has seen.

print(f"\n== Mean Jaccard index of {len(X_test)} test images")
models = {"CNN": cnn, "piecewise": piecewise, "joint": joint}
predictions = {name: model.predict(X_test) for name, model in models.items()}
jaccard = {name: jaccard_indices(y_test, labels) for name, labels in predictions.items()}
for name, values in jaccard.items():
    print(f"{name:>10}: {100 * values.mean():.1f} %")

# %%
# The picture shows three of the 40 test images. The network alone labels a quarter of the 40 worse than the first, a
# half worse than the second, and three quarters worse than the third.

shown = np.argsort(jaccard["CNN"])[[10, 20, 30]]
display = SegmentationDisplay.from_predictions(
    X_test[shown], y_test[shown], {name: labels[shown] for name, labels in predictions.items()}
)
display.figure_.savefig("three_ways.png", dpi=150)
print("   picture: three_ways.png")
