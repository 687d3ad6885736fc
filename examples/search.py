"""Choosing parameters by cross-validation
=======================================

Choose C and the learning rate by cross-validation, pretraining each fold's network once.

All candidates of a fold share the pretrained network, and differ in joint training alone. With `memory` the network is
trained for the first of them and read for the others. Prints the results and the seconds with and without.
"""

import tempfile
import time

from sklearn.model_selection import GridSearchCV

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.metrics import make_segmentation_scorer

X, y = make_phantoms(20, shape=(48, 48), random_state=0)
grid = {"C": [0.1, 1.0, 10.0], "learning_rate": [1e-4, 1e-3]}
measures = {name: make_segmentation_scorer(name) for name in ("jaccard", "dice", "boundary_f", "hausdorff")}

seconds = {}
with tempfile.TemporaryDirectory() as folder:
    for name, memory in {"without memory": None, "with memory": folder}.items():
        model = DeepStructuredSegmenter(CNNSegmenter(n_epochs=20), n_epochs=2, memory=memory, random_state=0)
        search = GridSearchCV(model, grid, cv=2, scoring=measures, refit="jaccard")
        start = time.perf_counter()
        search.fit(X, y)
        seconds[name] = time.perf_counter() - start

results = search.cv_results_
print("   C  learning rate  Jaccard   Dice  boundary F  Hausdorff")
for n, candidate in enumerate(results["params"]):
    means = [results[f"mean_test_{name}"][n] for name in measures]
    print(f"{candidate['C']:4g} {candidate['learning_rate']:14g}", end="")
    print(f" {100 * means[0]:6.1f} % {100 * means[1]:4.1f} % {100 * means[2]:9.1f} % {-means[3]:7.1f} px")
print(f"best: {search.best_params_}")
for name, value in seconds.items():
    print(f"{name}: {value:.0f} s")
