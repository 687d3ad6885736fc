"""Cuts and searches on workers of the user's choice, by joblib.parallel_config."""

import os

import numpy as np
import pytest
import torch
from joblib import delayed, parallel_config
from nets import PLAIN
from sklearn.model_selection import GridSearchCV

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.field.workers import workers
from skmmcrf.networks import UNet

distributed = pytest.importorskip("distributed")


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=1)


def segmenter(n_jobs, **parameters):
    cnn = CNNSegmenter(small_unet, **PLAIN, n_epochs=2, batch_size=4, device="cpu")
    return DeepStructuredSegmenter(cnn, n_epochs=1, batch_size=4, n_jobs=n_jobs, random_state=0, **parameters)


@pytest.fixture(scope="module")
def cluster():
    """Two workers, each a process of its own."""
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as workers,
        distributed.Client(workers) as client,
    ):
        yield client


@pytest.fixture
def data():
    return make_phantoms(8, shape=(24, 24), random_state=0)


def n_executed(cluster):
    """How many tasks the workers have run, by worker."""
    return np.array(list(cluster.run(lambda dask_worker: dask_worker.state.executed_count).values()))


def test_cuts_run_on_a_dask_cluster_with_the_same_result(cluster, data):
    alone = segmenter(n_jobs=1).fit(*data)
    before = n_executed(cluster)
    with parallel_config(backend="dask", wait_for_workers_timeout=30):
        there = segmenter(n_jobs=2).fit(*data)
        labels = there.predict(data[0])
    assert (n_executed(cluster) > before).all()
    np.testing.assert_array_equal(there.coef_, alone.coef_)
    np.testing.assert_array_equal(labels, alone.predict(data[0]))


@pytest.mark.slow
def test_a_search_runs_on_a_dask_cluster(cluster, data):
    before = n_executed(cluster)
    search = GridSearchCV(segmenter(n_jobs=1, training="piecewise"), {"C": [0.1, 1.0]}, cv=2)
    with parallel_config(backend="dask", wait_for_workers_timeout=30):
        there = search.fit(*data).cv_results_["mean_test_score"]
    assert (n_executed(cluster) > before).any()
    np.testing.assert_array_equal(there, search.fit(*data).cv_results_["mean_test_score"])


def double_or_die(n, is_deadly):
    if n == 1 and is_deadly():
        os._exit(1)
    return 2 * n


def results_on(cluster, is_deadly):
    with parallel_config(backend="dask", client=cluster), workers(None) as parallel:
        return list(parallel(delayed(double_or_die)(n, is_deadly) for n in range(6)))


class DeadlyOnce:
    def __init__(self, file):
        self.file = file

    def __call__(self):
        if self.file.exists():
            return False
        self.file.touch()
        return True


def always():
    return True


def test_a_job_whose_worker_dies_is_done_by_another(cluster, tmp_path):
    file = tmp_path / "died"
    assert results_on(cluster, DeadlyOnce(file)) == [0, 2, 4, 6, 8, 10]
    assert file.exists()


def test_a_job_that_kills_its_workers_is_an_error(cluster, monkeypatch):
    monkeypatch.setattr(cluster.cluster.scheduler, "allowed_failures", 0)
    with pytest.raises(RuntimeError, match="dask's workers died, or were stopped, while they cut images"):
        results_on(cluster, always)


def test_the_error_of_a_job_is_raised_as_it_is(cluster):
    with parallel_config(backend="dask", client=cluster), pytest.raises(ZeroDivisionError):
        list(workers(None)([delayed(divmod)(1, 0)]))


def test_a_cluster_without_workers_is_an_error():
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        distributed.Client(empty) as client,
        parallel_config(backend="dask", client=client, wait_for_workers_timeout=0.1),
        pytest.raises(RuntimeError, match="the cluster of dask has had no workers for 0.1 seconds"),
    ):
        list(workers(None)([delayed(abs)(-1)]))


def workers_within_a_task():
    with parallel_config(backend="dask", wait_for_workers_timeout=30):
        parallel = workers(2)
        return type(parallel).__name__, list(parallel([delayed(abs)(-1)]))


def test_cuts_within_a_job_of_the_cluster_run_in_threads(cluster):
    assert cluster.submit(workers_within_a_task).result() == ("Threads", [1])


@pytest.mark.slow
def test_fits_in_two_threads_of_a_worker_are_those_of_fits_alone(data):
    alone = [segmenter(n_jobs=1).set_params(random_state=seed).fit(*data) for seed in (0, 1)]
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0") as workers,
        distributed.Client(workers) as client,
    ):
        models = [segmenter(n_jobs=1).set_params(random_state=seed) for seed in (0, 1)]
        # torch takes as many threads there as here
        client.run(torch.set_num_threads, torch.get_num_threads())
        there = client.gather(client.map(lambda model: model.fit(*data), models))
    for one, other in zip(alone, there):
        np.testing.assert_array_equal(one.coef_, other.coef_)
        assert all(map(torch.equal, one.network_.state_dict().values(), other.network_.state_dict().values()))
