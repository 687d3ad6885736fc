"""
What the field does with a network's output
===========================================

A network that was trained for few epochs is unsure, and its labels are ragged. The weights of the field are learned on
its log-odds. Multiplying them by a factor shows what they are good for.
"""

# %%
# A network, stopped early
# ------------------------
# It gives each pixel a probability of its own. Nothing makes neighbours agree.

import matplotlib.pyplot as plt
from sklearn.frozen import FrozenEstimator

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.display import EnergyDisplay
from skmmcrf.metrics import mean_jaccard

X_network, y_network = make_phantoms(24, random_state=0)
X_test, y_test = make_phantoms(20, random_state=1)
cnn = CNNSegmenter(n_epochs=8, random_state=0).fit(X_network, y_network)
print(f"network alone: mean Jaccard index {100 * cnn.score(X_test, y_test):.1f} %")

# %%
# The field, learned on it
# ------------------------
# A cut between neighbours costs something, and less where the image changes. Learning finds the costs under which the
# truth has less energy than any other labeling, by as much as that labeling is wrong.
#
# A network is surer of its own training images than of new ones. A field that is learned on them is too weak for new
# ones. Twelve images that the network has not seen give a stronger field.

X_field, y_field = make_phantoms(12, random_state=2)
model = DeepStructuredSegmenter(FrozenEstimator(cnn), training="piecewise", C=1.0)
own = model.fit(X_network, y_network).score(X_test, y_test)
other = model.fit(X_field, y_field).score(X_test, y_test)
print(f"field learned on the network's own images: {100 * own:.1f} %")
print(f"field learned on other images: {100 * other:.1f} %")
print("weights of the unary, the smoothness and the contrast term:", model.coef_.round(3))

# %%
# Too little, and too much
# ------------------------
# The pairwise weights are multiplied by a factor. Factor 0 leaves the network alone. Factor 3 smooths objects away.
# The learned weights, factor 1, lie near the top of the curve. A factor of 1.5 does a little better on these images:
# learning bounds the number of wrong pixels in the twelve images, which is not the index of these twenty.
#
# ``C`` is no such factor. It weighs wrong pixels against the norm of the weights, and C = 1 already makes wrong pixels
# decide. A larger ``C`` changes little. One as small as 0.001 hardly smooths at all.

factors = [0, 0.3, 0.5, 1, 1.5, 2, 3]
energies = [model.energy(image) for image in X_test]
labelings = [[energy.least(model.coef_ * [1, factor, factor]) for energy in energies] for factor in factors]
scores = [100 * mean_jaccard(y_test, labels) for labels in labelings]

figure, axes = plt.subplots(2, 4, figsize=(10, 5.5), layout="constrained")
shown = {"image": X_test[0], "truth": y_test[0]}
shown |= {f"factor {factor:g}": labels[0] for factor, labels in zip(factors, labelings) if factor not in (0.3, 1.5)}
for ax, (name, picture) in zip(axes.flat, shown.items()):
    ax.imshow(picture, cmap="gray")
    ax.set(title=name, xticks=[], yticks=[])
axes[1, 3].plot(factors, scores, marker="o")
axes[1, 3].set(xlabel="factor", title="mean Jaccard index (%)")

# %%
# Where the cuts run
# ------------------
# The energy of one image has three panels beside the result: what pixels want on their own, what a cut between
# neighbours costs, and the edges that the labeling of least energy cuts. The cuts follow the image's edges, where they
# are cheap.

EnergyDisplay.from_estimator(model, X_test[0])

# sphinx_gallery_thumbnail_number = 2
