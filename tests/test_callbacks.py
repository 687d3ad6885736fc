import numpy as np
import pytest
import torch
from nets import pretraining_net
from torch import nn

from skmmcrf.callbacks import JaccardOfNetwork
from skmmcrf.image_datasets import ImageDataset
from skmmcrf.metrics import mean_jaccard
from skmmcrf.truth import Truth


def test_the_network_is_measured_on_training_images_before_their_step_and_on_validation_images_after_all():
    rng = np.random.default_rng(0)
    truths = rng.uniform(size=(5, 8, 9)) < 0.4
    images = (truths + rng.normal(size=truths.shape)).astype(np.float32)[..., np.newaxis]
    network = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        before = [network(torch.from_numpy(image[..., 0])[None])[0].numpy() > 0 for image in images]
    measured = JaccardOfNetwork((list(images), list(map(Truth, truths))))
    net = pretraining_net(network, 5, lr=1.0, max_epochs=1, batch_size=5, callbacks=[("jaccard", measured)])
    net.fit(ImageDataset(list(images), list(map(Truth, truths))))
    with torch.no_grad():
        after = [network(torch.from_numpy(image[..., 0])[None])[0].numpy() > 0 for image in images]
    assert not np.array_equal(before, after)
    assert net.history[0, "jaccard"] == pytest.approx(mean_jaccard(truths, before))
    assert net.history[0, "valid_jaccard"] == pytest.approx(mean_jaccard(truths, after))
