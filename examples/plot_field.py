"""
What the field does with a network's output
===========================================

A network that was trained for few epochs is unsure, and its labels are ragged. The weights of the field are learned on
its log-odds; here they are changed, to see what they are good for.
"""

# %%
# A network, stopped early
# ------------------------
# Its probabilities are those of single pixels: nothing says that neighbours belong together.

import matplotlib.pyplot as plt
import numpy as np

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.display import EnergyDisplay
from skmmcrf.metrics import mean_jaccard

X_train, y_train = make_phantoms(24, random_state=0)
X_test, y_test = make_phantoms(20, random_state=1)
model = DeepStructuredSegmenter(CNNSegmenter(n_epochs=8), training="piecewise", random_state=0).fit(X_train, y_train)
print(f"network alone: mean Jaccard index {100 * mean_jaccard(y_test, model.decision_function(X_test) > 0):.1f} %")

# %%
# The field, learned on it
# ------------------------
# It costs something to give neighbours different labels, less where the image changes between them. How much it costs
# is learned: the truth shall have less energy than any other labeling, by as much as that labeling is wrong.

print(f"with the field: mean Jaccard index {100 * model.score(X_test, y_test):.1f} %")
print("weights of the unary, the smoothness and the contrast term:", model.coef_.round(3))

# %%
# What is too little, and what is too much
# ----------------------------------------
# The pairwise weights, times a factor: without them the field is the network alone, with ten times as much every object
# is smoothed away. What was learned is about the best.

factors = [0, 0.1, 0.3, 1, 2, 3, 10]
energies = [model.energy(image) for image in X_test]
labelings = [[energy.least(model.coef_ * [1, factor, factor]) for energy in energies] for factor in factors]
scores = [100 * mean_jaccard(y_test, labels) for labels in labelings]

figure, axes = plt.subplots(2, 4, figsize=(10, 5.5), layout="constrained")
shown = {"image": X_test[0], "truth": y_test[0]}
shown |= {f"{factor:g} x": labels[0] for factor, labels in zip(factors, labelings) if factor in (0, 0.3, 1, 2, 3)}
for ax, (name, picture) in zip(axes.flat, shown.items()):
    ax.imshow(picture, cmap="gray")
    ax.set(title=name, xticks=[], yticks=[])
axes[1, 3].plot(np.maximum(factors, 0.03), scores, marker="o")
axes[1, 3].set(xscale="log", xlabel="factor", title="mean Jaccard index (%)")

# %%
# Where the cuts run
# ------------------
# The energy of one image: what pixels want on their own, what it costs to cut between neighbours, and which edges the
# labeling of least energy cuts. Cuts follow the image's edges, where they are cheap.

EnergyDisplay.from_estimator(model, X_test[0])
