"""What the package does when files are hostile, processes die, and users interrupt, as a table in Markdown.

    python tests/benchmarks/attacks.py
    python tests/benchmarks/attacks.py --only damaged interrupts --times 0.1
    PYTHONPATH=OLDER python tests/benchmarks/attacks.py

The last line attacks another checkout. What was not wanted is printed in detail on the standard error. Linux only.
"""

import argparse
import collections
import copy
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import psutil
import torch
from forking import failure, megabytes_added, outcome
from measuring import print_header, print_row
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback

import skmmcrf
from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, load
from skmmcrf.datasets import load_image_folder, make_phantoms
from skmmcrf.training.state_files import read_file, write_file

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS), str(TESTS / "estimators")]

from comparing import everything  # noqa: E402
from test_loading import OF_CNN, array, at, edited, hostile, one_of, parts, places, put, remove  # noqa: E402

X, Y = make_phantoms(5, shape=(16, 20), random_state=0)
SECONDS = 5.0  # for what is refused at once


@dataclass
class Attack:
    """`run(n, rng)` yields what happened: words that are wanted or not, or numbers that have a limit."""

    what: str
    n: int
    run: Callable[[int, np.random.Generator], Iterator[str | float]]
    wanted: tuple[str, ...]
    most: float = 0.0
    unit: str = ""


ATTACKS: dict[str, Attack] = {}


def attack(what, n, *wanted, most=0.0, unit=""):
    def keep(run):
        ATTACKS[run.__name__] = Attack(what, n, run, wanted, most, unit)
        return run

    return keep


# fits to attack


def small_network(n_channels):
    return torch.nn.Sequential(
        torch.nn.Conv2d(n_channels, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Dropout2d(0.2),
        torch.nn.Conv2d(4, 1, 3, padding=1),
    )


KINDS = [
    {},
    {"validation_fraction": 0.4, "early_stopping": True, "n_iter_no_change": 2, "schedule": "one_cycle"},
    {"training": "joint_by_batch", "schedule": "cosine"},
]


def without_dropout(n_channels):
    return small_network(n_channels)[:3].append(torch.nn.Conv2d(4, 1, 3, padding=1))


def segmenter(kind, folder=None, network=small_network, **parameters):
    augmentation = None if kind == 2 else "flip"
    cnn = CNNSegmenter(network, n_epochs=3, batch_size=2, device="cpu", augmentation=augmentation)
    parameters = {"n_epochs": 3, "batch_size": 2, "random_state": 0} | KINDS[kind] | parameters
    return DeepStructuredSegmenter(cnn, checkpoint=folder, **parameters)


def learned(model):
    return hashlib.sha256(repr(everything(model)).encode()).hexdigest()


def fit(kind, folder=None, **parameters):
    """What a fit learns, in short, and its warnings about states."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        model = segmenter(kind, folder, **parameters).fit(X, Y)
    return learned(model), [str(w.message) for w in record if "checkpoint" in str(w.message)]


def compared(result, expected):
    """Say how a fit, or the end of one, compares with what another learned."""
    if isinstance(result, str):
        return result
    return ("equal" if result[0] == expected else "differs") + (", with a warning" if result[1] else "")


def undisturbed():
    """What each kind of fit learns, and its seconds."""
    fits = []
    for kind in [0, *range(len(KINDS))]:  # the first compiles
        start = time.perf_counter()
        found, _ = fit(kind)
        fits.append((found, time.perf_counter() - start))
    return fits[1:]


def saved(path):
    """The content of a file of each estimator."""
    cnn = CNNSegmenter(n_epochs=1, random_state=0).fit(X, Y)
    joint = DeepStructuredSegmenter(CNNSegmenter(n_epochs=1), n_epochs=1, random_state=0)
    joint.warm_start = True
    models = {
        "CNNSegmenter": cnn,
        "joint": joint.fit(X, Y),
        "cnn": DeepStructuredSegmenter(CNNSegmenter(n_epochs=1), training="cnn", random_state=0).fit(X, Y),
        "MaxMarginCRF": MaxMarginCRF().fit(cnn.transform(X), Y),
    }
    contents = {}
    for name, model in models.items():
        model.save(path)
        contents[name] = path.read_bytes()
    return contents


def refused(path):
    """Load a file of a stranger, and use what is loaded."""
    try:
        load(path).predict(X)
    except OSError:
        return "refused"
    except ValueError as error:
        return "refused" if "can't be loaded" in str(error) else failure(error)
    return "loaded"


# fits side by side


@attack("fits in two threads at once", 8, "equal")
def threads(n, rng):
    expected, _ = zip(*undisturbed())
    kinds = [k % len(KINDS) for k in range(n)]
    with joblib.Parallel(2, backend="threading") as parallel:
        for kind, (found, _) in zip(kinds, parallel(joblib.delayed(fit)(kind) for kind in kinds)):
            yield compared((found, []), expected[kind])


@attack("fits without dropout beside a thread that draws from numpy's and torch's global generators", 9, "equal")
def draws(n, rng):
    kinds = [k % len(KINDS) for k in range(n)]
    expected = [fit(kind, network=without_dropout)[0] for kind in kinds]
    over = threading.Event()

    def draw():
        while not over.wait(1e-4):
            np.random.random()  # noqa: NPY002
            torch.rand(1)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(draw)
        for kind, alone in zip(kinds, expected):
            yield compared(fit(kind, network=without_dropout), alone)
        over.set()


@attack("fits in a dask cluster of one process with two threads", 8, "equal")
def dask_threads(n, rng):
    expected, _ = zip(*undisturbed())
    with cluster(n_workers=1, threads_per_worker=2) as client:
        kinds = [k % len(KINDS) for k in range(n)]
        for kind, (found, _) in zip(kinds, client.gather(client.map(fit, kinds, pure=False))):
            yield compared((found, []), expected[kind])


@contextmanager
def cluster(**parameters):
    import distributed

    with (
        distributed.LocalCluster(**parameters, processes=True, dashboard_address=":0", silence_logs=60) as local,
        distributed.Client(local) as client,
    ):
        yield client


# model files

DISAGREEING = {
    "joint": [
        array("attributes.coef_", np.zeros(2)),
        array("attributes.coef_", [1.0, -1.0, 0.0]),
        array("attributes.coef_", [1e300, 1.0, 0.0]),
        array("attributes.slack_", [-1.0, np.nan, 0.0]),
        array("attributes.cnn_.attributes.class_weight_", [1.0, np.nan]),
        put("attributes", "sigma_", value=1e-320),
        put("attributes", "sigma_", value=None),
        put("attributes", "objective_", value=None),
        put("attributes", "dual_gap_", value=float("nan")),
        put("attributes", "history_", value=[]),
        put("parameters", "sigma", value=1e-320),
        put("parameters", "training", value="cnn"),
        put("parameters", "pos_label", value=255),
        put(*OF_CNN, "class_weight", value={"items": [[7, 1.0]]}),
        put(*OF_CNN, "ignore_label", value=1),
        remove("attributes", "n_iter_"),
    ],
    "cnn": [put("attributes", "sigma_", value=0.1), put("attributes", "n_iter_", value=3)],
    "MaxMarginCRF": [
        put("attributes", "objective_", value=None),
        put("attributes", "n_channels_in_", value=1),
        lambda document, arrays: document["attributes"].update(dict.fromkeys(["objective_", "dual_gap_", "n_iter_"])),
    ],
}
COLLIDING = {"items": [[k * (2**61 - 1), 1.0] for k in range(1, 30_000)]}  # keys of one hash
TOO_MUCH = [
    put(*OF_CNN, "class_weight", value=COLLIDING),
    put("parameters", "callbacks", value=COLLIDING),
    put(*OF_CNN, "network_scale", value=[1.0] * 2000),
    put(*OF_CNN, "network_scale", value=[1e-9] * 2000),
    put(*OF_CNN, "network_scale", value=[30.0]),
    put("parameters", "connectivity", value=[[0, k] for k in range(1, 1_000_000)]),
    put("parameters", "connectivity", value=[[0, k] for k in range(1, 100_000)]),
    put("parameters", "connectivity", value=[[0, 10**9], [1, 0]]),
]


@attack("model files whose parts disagree", 1, "refused")
def disagreeing(n, rng):
    path = Path("model")
    files = saved(path)
    for name, changes in DISAGREEING.items():
        for change in changes:
            edited(path, files[name], change)
            yield outcome(refused, path)


@attack(f"model files that ask for too much, {SECONDS:g} s each", 1, "refused")
def demands(n, rng):
    path = Path("model")
    data = saved(path)["joint"]
    for change in TOO_MUCH:
        edited(path, data, change)
        yield outcome(refused, path, limit=SECONDS)


@attack(f"a pipe, a folder and a device as model and as weights, {SECONDS:g} s each", 1, "refused")
def no_files(n, rng):
    os.mkfifo("pipe")
    Path("folder").mkdir()
    for path in ("pipe", "folder", "/dev/zero"):
        yield outcome(refused, path, limit=SECONDS)
        yield outcome(refused_weights, path, limit=SECONDS)


def refused_weights(path):
    try:
        CNNSegmenter("fcn8s_squeezenet1_1", weights=path, n_epochs=1).fit(X, Y)
    except (ValueError, OSError) as error:
        return "refused" if "weights" in str(error) else failure(error)
    return "loaded"


@attack("loads of a model file that another process overwrites in place", 300, "whole", "refused")
def overwritten(n, rng):
    path = Path("model")
    files = list(saved(path).values())
    whole = set()
    for data in files:
        path.write_bytes(data)
        whole.add(checksum(load(path)))
    while n > 0:
        n -= 30
        with overwriting(path, files):
            loads = outcome(load_often, path, 30, whole)
        yield from [loads] if isinstance(loads, str) else loads


def checksum(model):
    """That of all that a file of the model says, as the file says it."""
    path = Path("again")
    model.save(path)
    return parts(path.read_bytes(), path)[0]["sha256"]


def load_often(path, n, whole):
    return [whole_or_refused(path, whole) for _ in range(n)]


def whole_or_refused(path, whole):
    try:
        return "whole" if checksum(load(path)) in whole else "of two files"
    except ValueError:
        return "refused"


@contextmanager
def overwriting(path, files):
    pid = os.fork()
    if pid == 0:
        with open(path, "r+b") as file:
            for data in itertools.cycle(files):
                file.seek(0)
                file.write(data)
                file.truncate()
                file.flush()
                time.sleep(0.01)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@attack(
    "damaged model files: cut, bits changed, values changed under a right checksum", 2400, "refused", "loaded, equal"
)
def damaged(n, rng):
    path = Path("model")
    files = saved(path)
    originals = {name: (data, parts(data, path)) for name, data in files.items()}
    for k in range(n):
        name = list(files)[k // 4 % len(files)]
        data, of_data = originals[name]
        path.write_bytes((cut, with_flipped_bits)[k % 4](data, rng) if k % 4 < 2 else hostile(*of_data, rng))
        yield outcome(loaded_as_written, path, limit=60)


def cut(data, rng):
    return data[: rng.integers(len(data) if rng.random() < 0.5 else 300)]


def with_flipped_bits(data, rng):
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers((8, 300, len(data))[rng.integers(3)])] ^= 1 << rng.integers(8)
    return bytes(changed)


def loaded_as_written(path):
    data = path.read_bytes()
    try:
        model = load(path)
    except ValueError as error:
        return "refused" if len(str(error)) < 2000 else "refused at length"
    given = np.zeros(X.shape) if isinstance(model, MaxMarginCRF) else X
    with suppress(ValueError):  # numbers may overflow
        model.predict(given)
    model.save("again")
    before, after = (parts(each, path) for each in (data, Path("again").read_bytes()))
    (_, document, arrays), (_, document_again, arrays_again) = before, after
    for each in (document, document_again):  # parameters that a file lacks have their defaults
        each["attributes"].get("cnn_", {}).pop("parameters", None)
    documents = (json.dumps(each["attributes"], sort_keys=True) for each in (document, document_again))
    tensors = ({name: a.tobytes() for name, a in each.items()} for each in (arrays, arrays_again))
    return "loaded, equal" if len({*documents}) == 1 and next(tensors) == next(tensors) else "loaded, not equal"


# writing


@attack("saves that are killed", 300, "the file is whole", "nothing is left")
def killed_saves(n, rng):
    path = Path("models") / "model"
    path.parent.mkdir()
    model = CNNSegmenter(n_epochs=1, random_state=0).fit(X, Y)
    model.save(path)
    expected = checksum(model)

    def save_for_ever():
        while True:
            model.save(path)

    for _ in range(n):
        outcome(save_for_ever, sent=signal.SIGKILL, after=rng.uniform(0, 0.2))
        yield "the file is whole" if checksum(load(path)) == expected else "another file"
    model.save(path)
    left = [file.name for file in path.parent.iterdir() if file != path]
    yield f"left after one more save: {len(left)} files" if left else "nothing is left"


@attack("saves to a link, to a file that a group may read, to a pipe, to a folder", 1, "kept", "refused")
def saves(n, rng):
    # no device: a save that replaced one would harm the machine
    model = CNNSegmenter(n_epochs=1, random_state=0).fit(X, Y)
    Path("link").symlink_to("linked")
    Path("mode").touch()
    Path("mode").chmod(0o640)
    for name in ("link", "mode"):
        model.save(name)
    yield "kept" if Path("link").is_symlink() and load("linked") else "link replaced"
    yield "kept" if Path("mode").stat().st_mode & 0o777 == 0o640 and load("mode") else "mode changed"
    os.mkfifo("pipe")
    Path("folder").mkdir()
    for path in ("pipe", "folder"):
        yield outcome(refused_save, model, path, limit=SECONDS)


def refused_save(model, path):
    try:
        model.save(path)
    except OSError:
        return "refused"
    return "replaced" if Path(path).is_file() else "written"


# fits that end


@attack("kills of joint fits that go on from their states", 110, "equal")
def killed_fits(n, rng):
    whole = undisturbed()
    for k in itertools.count():
        expected, seconds = whole[k % len(KINDS)]
        kills = 0
        while True:
            # after some kills the fit may end, however it is started again
            delay = rng.uniform(0, 0.6 * seconds) if kills < 12 else 100 * seconds
            result = outcome(fit, k % len(KINDS), f"states {k}", sent=signal.SIGKILL, after=delay)
            if result != "dies of SIGKILL":
                break
            kills += 1
        yield from max(kills, 1 if isinstance(result, str) else 0) * [compared(result, expected)]
        n -= kills
        if n <= 0 or isinstance(result, str):
            return


@attack("interrupts of fits", 60, "predicts and saves", "not fitted")
def interrupts(n, rng):
    whole = undisturbed()
    for k in range(n):
        kind = k % len(KINDS)
        folder = f"states {k}" if k % 2 else None
        delay = rng.uniform(0, 1.05 * whole[kind][1])
        yield outcome(interrupted, kind, folder, sent=signal.SIGINT, after=delay)
        if folder:  # nothing that an interrupt leaves harms the next fit
            later = compared(outcome(fit, kind, folder), whole[kind][0])
            if later != "equal":
                yield f"the next fit: {later}"


def interrupted(kind, folder):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    model = segmenter(kind, folder)
    try:
        model.fit(X, Y)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        pass
    try:
        check_is_fitted(model)
    except NotFittedError:
        return "not fitted"
    labels = model.predict(X)
    model.save("model")
    again = load("model", network=small_network).predict(X)
    return "predicts and saves" if np.array_equal(again, labels) else "the saved one predicts something else"


# folders of states


class RemovesFolder(Callback):
    """Removes a folder at the end of an epoch of each stage."""

    def __init__(self, folder):
        self.folder = folder

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            shutil.rmtree(self.folder)


@attack("foreign names in the folder of states, and its removal in training", 1, "equal", "equal, with a warning")
def state_folders(n, rng):
    for kind, change in itertools.product(range(len(KINDS)), (add_copies, add_folders, renumber)):
        expected, _ = fit(kind, "states")
        change(states("states"))
        yield compared(outcome(fit, kind, "states"), expected)
        shutil.rmtree("states")
    for kind in range(len(KINDS)):
        removing = {"callbacks": [RemovesFolder("states")]}
        expected, _ = fit(kind)
        yield compared(outcome(lambda kind=kind, by=removing: fit(kind, "states", **by)), expected)


def states(folder):
    return sorted(Path(folder).glob("*/state-*"))


def add_copies(files):
    for name in ("state-000001 (copy)", "state-abc", "state-", "state-0000099", "state-000099.safetensors"):
        shutil.copy(files[-1], files[-1].with_name(f"{name}.safetensors"))


def add_folders(files):
    for name in ("state-000999.safetensors", "state-x.safetensors", ".0123456789abcdef0123456789abcdef.tmp"):
        (files[-1].parent / name / "within").mkdir(parents=True)


def renumber(files):
    files[-1].rename(files[-1].with_name("state-1000000.safetensors"))
    files[-2].rename(files[-1].with_name("state-999999.safetensors"))


@attack("changed states: entries missing or of another type, histories forged", 120, "equal", "equal, with a warning")
def changed_states(n, rng):
    whole = [fit(kind, f"whole {kind}")[0] for kind in range(len(KINDS))]
    for k in range(n):
        kind = k % len(KINDS)
        shutil.copytree(f"whole {kind}", "states", dirs_exist_ok=True)
        newest = states("states")[-1]
        content = read_file(newest, "state")
        what = tamper(content, rng)
        write_file(newest, "state", content)
        found = compared(outcome(fit, kind, "states"), whole[kind])
        yield f"differs: {what}" if found == "differs" else found
        shutil.rmtree("states")


def tamper(state, rng):
    if rng.random() < 0.2:
        history = one_of([state["net"]["history"], state.get("history", state["net"]["history"])], rng)
        history[:] = one_of([[], history[:-1], history + history[-1:], [{}] * len(history)], rng)
        return f"a history of {len(history)}"
    *within, name = one_of([place for place in places(state) if "batches" not in place], rng)
    if rng.random() < 0.3:
        del at(state, within)[name]
        return f"{(*within, name)} is missing"
    value = one_of([None, "x", -7, [], {}, True, np.zeros(3)], rng)
    at(state, within)[name] = value
    return f"{(*within, name)} is {value}"


# dask workers that die


@attack("kills of a dask worker while it cuts", 7, "equal", "a clear error")
def killed_workers(n, rng):
    yield from fits_with_dying_workers([1] * n, rng)


@attack("jobs that kill every dask worker that cuts", 2, "equal", "a clear error")
def deadly_jobs(n, rng):
    yield from fits_with_dying_workers([1000] * n, rng)


def fits_with_dying_workers(numbers_of_kills, rng):
    images = make_phantoms(12, shape=(160, 160), random_state=0)
    model = DeepStructuredSegmenter(
        CNNSegmenter(small_network, n_epochs=1, batch_size=4), n_epochs=2, batch_size=4, n_jobs=2, random_state=0
    )
    expected = learned(model.fit(*images))

    def fit_on_cluster():
        with joblib.parallel_config("dask", wait_for_workers_timeout=60):
            return learned(copy.deepcopy(model).fit(*images))

    for n_kills in numbers_of_kills:
        with cluster(n_workers=2, threads_per_worker=1) as client, ThreadPoolExecutor(2) as pool:
            fit_on_cluster()  # workers import what they need
            over = threading.Event()
            killing = pool.submit(kill_busy_workers, client, n_kills, rng.uniform(0, 1), over)
            try:
                yield "equal" if pool.submit(fit_on_cluster).result(timeout=180) == expected else "differs"
            except RuntimeError as error:
                yield "a clear error" if "workers died" in str(error) else failure(error)
            except TimeoutError:
                yield "hangs"
                return
            except Exception as error:
                yield failure(error)
            over.set()
            killed = killing.result()
            if not killed:
                print("no worker was busy when it was to be killed", file=sys.stderr)


def kill_busy_workers(client, n_kills, delay, over):
    """Kill processes of workers that have tasks. Give how many."""
    n_killed = 0
    over.wait(delay)
    while n_killed < n_kills and not over.wait(0.002):
        tasks = client.processing()
        busy = [w.pid for w in client.cluster.workers.values() if tasks.get(w.worker_address) and w.pid]
        with suppress(ProcessLookupError):
            for pid in busy[:1]:
                os.kill(pid, signal.SIGKILL)
                n_killed += 1
    return n_killed


# what is large, and what is left


@attack("load_image_folder of 48 images of 3000 x 3000 in small files, memory added", 48, most=1100, unit="MB")
def large_folder(n, rng):
    for part, mode in {"images": "RGB", "masks": "1"}.items():
        Path("folder", part).mkdir(parents=True)
        Image.new(mode, (3000, 3000), "white").save(f"folder/{part}/0.png")
        for k in range(1, n):
            shutil.copy(f"folder/{part}/0.png", f"folder/{part}/{k}.png")
    Image.new("RGB", (3000, 3000)).save("folder/images/0.png")
    yield outcome(megabytes_added, load_image_folder, "folder")


@attack("errors that are told of an argument of a megabyte, the longest", 1, most=3000, unit="characters")
def messages(n, rng):
    big = 10**6 * "x"
    model = CNNSegmenter(n_epochs=1, random_state=0).fit(X, Y)
    many = [[0, k] for k in range(1, 10**5)]
    of_cnn = (
        "network weights loss schedule augmentation device pos_label ignore_label checkpoint class_weight random_state"
    )
    of_field = "training C pairwise connectivity sigma memory n_jobs tol"
    cnns = [{name: big} for name in of_cnn.split()] + [{"network": "unet_" + big}, {"callbacks": [big]}]
    cnns += [{"class_weight": dict(many)}, {"class_weight": {big: 1.0}}, {"network": "fcn8s_vgg16", "weights": big}]
    fields = [{name: big} for name in of_field.split()] + [{"connectivity": many}]
    calls = [lambda: load(big), lambda: model.save(big), lambda: model.predict(big), lambda: MaxMarginCRF().fit(big, Y)]
    calls += [lambda: load_image_folder(".", big), lambda: model.fit(X, [big] * len(X))]
    calls += [lambda by=by: CNNSegmenter(**{"n_epochs": 1, "random_state": 0} | by).fit(X, Y) for by in cnns]
    calls += [lambda by=by: DeepStructuredSegmenter(n_epochs=1, random_state=0, **by).fit(X, Y) for by in fields]
    for call in calls:
        yield outcome(length_of_message, call)


def length_of_message(call):
    try:
        call()
    except (ValueError, TypeError, OSError) as error:
        if len(str(error)) > 3000:
            print(failure(error), file=sys.stderr)
        return len(str(error))
    return "nothing is told"


@attack(
    "a fit and a predict with n_jobs=2, in a process that goes on: processes, folders, memory files",
    3,
    "nothing is left",
)
def leftovers(n, rng):
    X, y = make_phantoms(6, shape=(64, 64), random_state=0)
    model = segmenter(0, n_jobs=2)
    for _ in range(n):
        before = kept()
        model.fit(X, y).predict(X)
        left = kept() - before
        yield f"left: {sorted(left)}" if left else "nothing is left"


def kept():
    """Children of this process, and what lies in folders for temporary files and for shared memory."""
    files = [*Path(tempfile.gettempdir()).iterdir(), *Path("/dev/shm").glob(f"*{os.getpid()}*")]
    return {child.pid for child in psutil.Process().children(recursive=True)} | {file.name for file in files}


# the table


def print_outcomes(name, times):
    """Run an attack in this process, and print what happens as JSON, a line each."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kind = ATTACKS[name]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            for happened in kind.run(max(1, round(times * kind.n)), np.random.default_rng()):
                print(json.dumps(happened), flush=True)
        except Exception as error:
            traceback.print_exc()
            print(json.dumps(failure(error)), flush=True)
        os.chdir("/")
    os._exit(0)  # threads may hang


def happenings(name, times, limit):
    """What happens in an attack, which runs in a process of its own."""
    command = [sys.executable, __file__, "--alone", name, "--times", str(times)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        printed, _ = process.communicate(timeout=limit)
        ending = [] if process.returncode == 0 else [f"error: ended with {process.returncode}"]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        ending = ["hangs"]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return [*map(json.loads, printed.splitlines()), *ending]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ATTACKS), default=list(ATTACKS), metavar="NAME")
    parser.add_argument("--times", type=float, default=1.0, help="how often, against the defaults")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for an attack")
    parser.add_argument("--alone", choices=list(ATTACKS), help=argparse.SUPPRESS)  # what `happenings` runs
    arguments = parser.parse_args()
    if arguments.alone:
        print_outcomes(arguments.alone, arguments.times)
    print("attacks", os.path.dirname(skmmcrf.__file__), file=sys.stderr)
    print_header("attack", "name", "how many", "what happened", "wanted", "ok")
    for name in arguments.only:
        kind = ATTACKS[name]
        found = happenings(name, arguments.times, arguments.limit)
        words = [each for each in found if isinstance(each, str)]
        numbers = [each for each in found if not isinstance(each, str)]
        unwanted = [word for word in words if word not in kind.wanted]
        for word, count in collections.Counter(unwanted).items():
            print(f"{name}: {count} x {word}", file=sys.stderr)
        counts = collections.Counter(word.split(": ")[0] for word in words)
        happened = [f"{count} {word}" for word, count in counts.most_common()]
        happened += [f"{max(numbers):.0f} {kind.unit}"] if numbers else []
        wanted = " or ".join(kind.wanted) or f"at most {kind.most:.0f} {kind.unit}"
        is_ok = found and not unwanted and max(numbers, default=0) <= kind.most
        print_row(kind.what, name, len(found), ", ".join(happened), wanted, "ok" if is_ok else "NOT")


if __name__ == "__main__":
    main()
