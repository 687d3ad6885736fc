"""Three ways of training
======================

Three ways of training a segmentation model, on generated images that look like ultrasound.

A network alone, a conditional random field learned on its output, and both trained together: the three rows of the
paper's tables. Prints the mean Jaccard index of each on images that none was trained on, and saves a picture of some.
"""

from pathlib import Path

from skmmcrf import DeepStructuredSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.display import SegmentationDisplay
from skmmcrf.metrics import mean_jaccard

X_train, y_train = make_phantoms(24, random_state=0)
X_test, y_test = make_phantoms(40, random_state=1)

predictions = {}
for name, training in {"CNN": "cnn", "piecewise": "piecewise", "joint": "joint"}.items():
    model = DeepStructuredSegmenter(training=training, random_state=0, verbose=1)
    predictions[name] = model.fit(X_train, y_train).predict(X_test)

print(f"\nmean Jaccard index of {len(X_test)} test images")
for name, labels in predictions.items():
    print(f"{name:>10}: {100 * mean_jaccard(y_test, labels):.1f} %")

shown = {name: labels[:4] for name, labels in predictions.items()}
display = SegmentationDisplay.from_predictions(X_test[:4], y_test[:4], shown)
picture = Path("three_ways.png").resolve()
display.figure_.savefig(picture, dpi=100)
print(f"picture: {picture}")
