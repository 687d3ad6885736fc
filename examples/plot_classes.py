"""Several classes
===============

Three classes in generated images that look like ultrasound: background, a chamber, and vessels. A network gives each
class a score in every pixel. The field adds a cost for each step of an outline, whichever classes meet there.

The script prints the Jaccard index of each class over the pixels of 40 other images, the share of these images whose
labels are proved to have the least cost, and saves a picture of three images.
"""

from sklearn.frozen import FrozenEstimator

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.display import SegmentationDisplay
from skmmcrf.metrics import pooled_jaccard_indices

NAMES = ["background", "chamber", "vessels"]
X_train, y_train = make_phantoms(24, shape=(96, 96), label_vessels=True, random_state=0)
X_test, y_test = make_phantoms(40, shape=(96, 96), label_vessels=True, random_state=1)

# %%
# The classes are the labels in the masks, here 0, 1 and 2.

cnn = CNNSegmenter(n_epochs=60, augmentation="flip", random_state=0, verbose=1).fit(X_train, y_train)
piecewise = DeepStructuredSegmenter(FrozenEstimator(cnn), training="piecewise", verbose=1).fit(X_train, y_train)

# %%
# Benchmarks of several classes pool the pixels of all images, and average the indices of the classes.

predictions = {"CNN": cnn.predict(X_test), "piecewise": piecewise.predict(X_test)}
for name, labels in predictions.items():
    indices = pooled_jaccard_indices(y_test, labels, classes=cnn.classes_)
    of_classes = ", ".join(f"{called} {100 * index:.1f}" for called, index in zip(NAMES, indices))
    print(f"{name:>10}: {of_classes}, mean {100 * indices.mean():.1f} %")

gaps = piecewise.optimality_gap(X_test)
print(f"   labels of least cost, proved: {100 * (gaps == 0).mean():.0f} % of the images")

# %%
# The picture shows three of the test images.

display = SegmentationDisplay.from_predictions(
    X_test[:3],
    y_test[:3],
    {name: labels[:3] for name, labels in predictions.items()},
    classes=cnn.classes_,
    class_names=NAMES,
)
display.figure_.savefig("classes.png", dpi=150)
print("   picture: classes.png")
