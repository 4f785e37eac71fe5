from __future__ import annotations

import gzip
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MNIST_FOLDER
from served import served

from robust_erm.core.errors import ConfigError
from robust_erm.core.streams import numpy_stream
from robust_erm.data import mnist
from robust_erm.data.clusters import Clusters
from robust_erm.data.digits import Digits
from robust_erm.data.gaussian import Gaussian
from robust_erm.data.mnist import MNIST
from robust_erm.data.sphere import Sphere

ALL: list[Any] = [
    Gaussian(d=20, m=30, k_w=4, k_x=20, m_test=50),
    Clusters(d=20, m=30, k=4),
    Sphere(d=20, m=30),
    Digits(),
]


@pytest.mark.parametrize("data", ALL, ids=lambda d: type(d).__name__)
def test_a_draw_follows_its_seed(data: Any) -> None:
    data.check()
    a, b, other = data.draw(3), data.draw(3), data.draw(4)
    for part in ("x_train", "y_train", "x_test", "y_test"):
        assert np.array_equal(getattr(a, part), getattr(b, part))
    assert not np.array_equal(a.x_train, other.x_train)
    assert a.x_train.shape == (data.m, data.dimension)
    assert a.x_test.shape[1] == data.dimension
    assert set(np.unique(np.concatenate([a.y_train, a.y_test]))) == {-1.0, 1.0}


@pytest.mark.parametrize("data", ALL, ids=lambda d: type(d).__name__)
def test_no_training_point_is_a_test_point(data: Any) -> None:
    drawn = data.draw(0)
    train = {row.tobytes() for row in drawn.x_train}
    assert not train & {row.tobytes() for row in drawn.x_test}


def test_gaussian_laws() -> None:
    dense = Gaussian(d=50, m=4000, k_w=50, k_x=50).draw(0)
    assert abs(dense.x_train.mean()) < 0.01
    assert dense.x_train.var() == pytest.approx(1, abs=0.02)
    sparse = Gaussian(d=50, m=4000, k_w=50, k_x=5).draw(0)
    assert set(np.unique(sparse.x_train)) == {-1.0, 0.0, 1.0}
    assert (sparse.x_train == 1).mean() == pytest.approx(0.05, abs=0.003)
    assert (sparse.x_train == -1).mean() == pytest.approx(0.05, abs=0.003)
    assert dense.law is not None
    assert sparse.law is None
    assert np.array_equal(dense.y_train, np.sign(dense.x_train @ dense.law.w_star))


def test_gaussian_points_in_the_unit_ball() -> None:
    """Of the same draws; test accuracies are sampled, for the law is not N(0, I)."""
    plain, ball, unit = (
        Gaussian(d=9, m=40, k_w=9, k_x=9, m_test=30, scale=s).draw(2) for s in ("none", "ball", "unit")
    )
    lengths = np.linalg.norm(plain.x_train, axis=1)
    assert ball.x_train * lengths.max() == pytest.approx(plain.x_train)
    assert ball.x_test * lengths.max() == pytest.approx(plain.x_test)
    assert unit.x_train * lengths[:, None] == pytest.approx(plain.x_train)
    for drawn in (ball, unit):
        assert drawn.law is None
        assert np.array_equal(drawn.y_train, plain.y_train)
        assert np.linalg.norm(drawn.x_train, axis=1).max() == pytest.approx(1)


def test_points_of_signs() -> None:
    """Labelled by the same teacher, who sees the signs alone; both signs of an entry occur as often."""
    data = Gaussian(d=9, m=2000, k_w=9, k_x=9, m_test=30, scale="signs")
    drawn, w = data.draw(2), data._teacher(numpy_stream(2, "teacher"))
    assert drawn.law is None
    for x, y in ((drawn.x_train, drawn.y_train), (drawn.x_test, drawn.y_test)):
        assert set(np.unique(x)) == {-1.0, 1.0}
        assert np.array_equal(y, np.sign(x @ w))
    assert np.abs(drawn.x_train.mean(0)).max() < 0.1


@pytest.mark.parametrize(("d", "scale", "least"), [(5, "unit", 0.15), (30, "none", 1.0), (2, "unit", 0.7)])
def test_a_teacher_s_margin(d: int, scale: str, least: float) -> None:
    """All points have it, and the share that is kept is the one foretold."""
    data = Gaussian(d=d, m=500, k_w=d, k_x=d, m_test=500, scale=scale, teacher_margin=least)
    drawn, w = data.draw(0), data._teacher(numpy_stream(0, "teacher"))
    for x, y in ((drawn.x_train, drawn.y_train), (drawn.x_test, drawn.y_test)):
        assert (y * (x @ w)).min() >= least * np.linalg.norm(w)
    rng = np.random.default_rng(0)
    some = rng.standard_normal((40_000, d))
    some /= np.linalg.norm(some, axis=1, keepdims=True) if scale == "unit" else 1
    assert (np.abs(some[:, 0]) >= least).mean() == pytest.approx(data._kept, abs=0.01)
    assert drawn.law is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"teacher_margin": 0.5, "k_x": 3}, "needs dense points"),
        ({"scale": "unit", "k_x": 3}, "needs dense points"),
        ({"scale": "unit", "teacher_margin": 0.9}, "of all points have it, 0.001 at least must"),
        ({"scale": "unit", "teacher_margin": 1.5}, "only 0 of all points"),
        ({"teacher_margin": math.nan}, "must be 0 or more"),
        ({"scale": "cube"}, "none, unit"),
        ({"scale": "signs", "k_x": 3}, "needs dense points"),
        ({"scale": "signs", "teacher_margin": 0.5}, "must be 0 with scale=signs"),
    ],
)
def test_gaussian_options_that_do_not_fit(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Gaussian(**{"d": 60, "k_w": 60, "k_x": 60, **options})


def test_gaussian_streams_do_not_move_one_another() -> None:
    """Test set and teacher do not change with m; training sets are nested."""
    small, large = Gaussian(d=30, m=10, k_w=3, k_x=3).draw(1), Gaussian(d=30, m=700, k_w=3, k_x=3).draw(1)
    assert np.array_equal(small.x_test, large.x_test)
    assert np.array_equal(small.x_train, large.x_train[:10])


def test_gaussian_ties() -> None:
    """Sparse teacher, sparse points: most scores are zero; resample leaves none, negative labels them -1."""
    negative = Gaussian(d=60, m=3000, k_w=3, k_x=3, ties="negative").draw(0)
    resample = Gaussian(d=60, m=3000, k_w=3, k_x=3).draw(0)
    assert (negative.y_train == -1).mean() > 0.8
    assert 0.4 < (resample.y_train == -1).mean() < 0.6
    for drawn in (negative, resample):
        assert np.abs(drawn.x_train).sum(1).min() > 0


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Gaussian(d=10, k_w=11, k_x=10), "k_w = 11: must be between 1 and d = 10"),
        (lambda: Gaussian(d=10, k_w=10, k_x=0), "k_x = 0"),
        (lambda: Gaussian(ties="resampel"), "did you mean resample"),
        (lambda: Clusters(k=30, d=20, means="orthogonal"), "k = 30: at most d = 20"),
        (lambda: Digits(classes=(2, 2)), "two or more different digits"),
        (lambda: Digits(m=356).check(), "m = 356: must be below 356"),
        (lambda: Sphere(m=0), "m = 0"),
    ],
)
def test_bad_options(make: Any, key: str) -> None:
    with pytest.raises(ConfigError, match=key.replace("(", r"\(")):
        make()


def test_cluster_means() -> None:
    data = Clusters(d=40, m=2000, k=5, sigma=0.5, means="orthogonal")
    mu = data.cluster_means(0)
    assert np.allclose(mu @ mu.T, 40 * np.eye(5), atol=1e-9)
    x = data.draw(0).x_train
    distance = np.linalg.norm(x[:, None] - mu[None], axis=-1)
    assert distance.min(1).mean() == pytest.approx(0.5 * np.sqrt(40), rel=0.05)
    assert np.allclose(np.linalg.norm(Clusters(d=40, k=5).cluster_means(0), axis=1), np.sqrt(40))


def test_sphere_radius() -> None:
    assert np.allclose(np.linalg.norm(Sphere(d=40, m=20).draw(0).x_train, axis=1), np.sqrt(40))


def test_digits_labels_are_sklearns() -> None:
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = {row.tobytes(): target for row, target in zip(raw.data / 16, raw.target, strict=True)}
    drawn = Digits(classes=(7, 2), m=20).draw(0)
    for x, y in zip(drawn.x_train, drawn.y_train, strict=True):
        assert images[x.tobytes()] == (7 if y == 1 else 2)
    everything = Digits(classes=tuple(range(10)), m=100).draw(0)
    for x, y in zip(everything.x_test, everything.y_test, strict=True):
        assert images[x.tobytes()] == y
    assert everything.x_train.max() == 1
    assert len(everything.x_test) == 1797 - 100


# ---- MNIST: a small stand-in for its files, with checksums of its own, and the real one where it lies


@pytest.fixture
def server(idx: Path) -> Iterator[str]:
    """The folder behind a local web server."""
    with served(idx) as address:
        yield f"{address}/"


def test_mnist_from_a_folder(idx: Path) -> None:
    data = MNIST(m=6, folder=str(idx))
    data.check()
    drawn = data.draw(0)
    assert drawn.x_train.shape == (6, 784)
    assert len(drawn.x_test) == 6
    assert drawn.x_train.max() <= 1
    with pytest.raises(ConfigError, match="m = 13: must be at most 12"):
        MNIST(m=13, folder=str(idx)).check()


def test_the_first_images_of_the_file(idx: Path) -> None:
    """sample=first: rows in file order, whatever the seed; random ones are drawn anew."""
    mnist.load.cache_clear()
    pixels, raw = mnist.load(str(idx), "", "", "train")
    rows = np.flatnonzero((raw == 2) | (raw == 7))[:6]
    for seed in (0, 1):
        drawn = MNIST(m=6, sample="first", folder=str(idx)).draw(seed)
        assert np.array_equal(drawn.x_train, pixels[rows])
        assert np.array_equal(drawn.y_train, np.where(raw[rows] == 2, 1.0, -1.0))
    assert not np.array_equal(MNIST(m=6, folder=str(idx)).draw(0).x_train, pixels[rows])
    with pytest.raises(ConfigError, match="sample = file"):
        MNIST(sample="file", folder=str(idx))


def test_mnist_is_downloaded_once(idx: Path, server: str, tmp_path: Path) -> None:
    data = MNIST(m=6, cache=str(tmp_path / "cache"), url=server)
    data.check()
    first = data.draw(0)
    shutil.rmtree(idx)
    mnist.load.cache_clear()
    assert np.array_equal(data.draw(0).x_train, first.x_train)


def test_mnist_that_cannot_be_downloaded(tmp_path: Path, server: str) -> None:
    with pytest.raises(ConfigError, match=r"url = .*could not be downloaded.*set data.folder"):
        MNIST(cache=str(tmp_path / "cache"), url=server + "nowhere").check()
    assert not list((tmp_path / "cache").glob("*ubyte*"))


def test_mnist_cache_that_is_corrupt(idx: Path, server: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    MNIST(m=6, cache=str(cache), url=server).check()
    mnist.load.cache_clear()
    image = cache / "train-images-idx3-ubyte.gz"
    image.write_bytes(image.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"cache = .*train-images-idx3-ubyte.gz: is not readable.*delete this file"):
        MNIST(m=6, cache=str(cache), url=server).check()
    image.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ConfigError, match=r"is corrupt: sha256"):
        MNIST(m=6, cache=str(cache), url=server).check()


def test_mnist_cache_that_cannot_be_made(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cache = .*cannot be made.*choose a writable folder"):
        MNIST(cache=str(tmp_path / "file" / "cache"), url=server).check()


def test_mnist_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        MNIST(folder=str(tmp_path / "none"))
    mnist.load.cache_clear()
    with pytest.raises(ConfigError, match=r"has neither train-images-idx3-ubyte.gz nor"):
        MNIST(folder=str(tmp_path)).check()


@pytest.mark.skipif(not MNIST_FOLDER.is_dir(), reason=f"no local copy of MNIST in {MNIST_FOLDER}")
def test_the_real_mnist() -> None:
    mnist.load.cache_clear()
    data = MNIST(folder=str(MNIST_FOLDER))
    data.check()
    drawn = data.draw(0)
    assert len(drawn.x_test) == 1032 + 1028  # test images of 2 and of 7
    assert drawn.x_train.shape == (100, 784)
    everything = MNIST(classes=tuple(range(10)), m=60_000, folder=str(MNIST_FOLDER)).draw(0)
    assert np.bincount(everything.y_train.astype(int)).tolist() == [
        *(5923, 6742, 5958, 6131, 5842),
        *(5421, 5918, 6265, 5851, 5949),
    ]
    assert everything.x_train.mean() == pytest.approx(0.1307, abs=1e-4)  # the field's usual mean


def test_sparse_points_follow_their_law() -> None:
    """Against rejection from independent entries: what the teacher's own coordinates decide is drawn first."""
    data = Gaussian(d=12, m=10, k_w=3, k_x=4, m_test=60_000)
    drawn = data.draw(0)
    x, y = drawn.sparse_test.toarray(), drawn.y_test
    w_star = data._teacher(np.random.default_rng(0))  # any teacher: the law of x given its own is compared below
    assert set(np.unique(w_star)) <= {-1.0, 0.0, 1.0}
    teacher = np.linalg.lstsq(x, y, rcond=None)[0]
    own = np.abs(teacher) > 0.1
    rng = np.random.default_rng(1)
    u = rng.random((400_000, 12))
    free = np.where(u < 1 / 6, 1, 0) - np.where(u > 5 / 6, 1, 0)
    score = free @ (np.sign(teacher) * own)
    kept = free[score != 0]
    assert np.array_equal(np.sign(x @ (np.sign(teacher) * own)), y)
    for moment in (lambda a: a.mean(0), lambda a: np.abs(a).mean(0), lambda a: (a[:, :-1] * a[:, 1:]).mean(0)):
        assert moment(x.astype(float)) == pytest.approx(moment(kept.astype(float)), abs=0.012)


def test_sparse_test_points_are_evaluated_as_dense_ones(resolved: Any) -> None:
    """Accuracies from one sparse product against y <w, x> > eps ||w||_1, point by point."""
    import torch

    from robust_erm.store.run_folder import folder_of
    from robust_erm.training.pack import train_pack

    line = ["experiment=tsilivis2024/linear", "data.d=40", "data.m=20", "data.k_x=6", "data.m_test=3000", "eps=0.3"]
    runs = [resolved(*line, f"seed={s}", "logger=none", "stop.steps=50") for s in (0, 1)]
    for run, summary in zip(runs, train_pack(runs), strict=True):
        drawn = run.data.draw(run.seed)
        w = torch.load(folder_of(run) / "checkpoint.pt", weights_only=True)["run"]["theta"].numpy()
        margins = drawn.y_test * (drawn.x_test @ w)
        assert summary["test_clean_acc"] == (margins > 0).mean()
        assert summary["test_robust_acc"] == (margins > summary["eps"] * np.abs(w).sum()).mean()


def test_points_on_the_sphere_of_every_kind() -> None:
    """vardi2022 Sec. 6: lengths, orthogonality, m = floor(d^alpha), balanced labels, copies off the margin."""
    one = Sphere(d=50, m=30).draw(3)
    assert np.linalg.norm(one.x_train, axis=1) == pytest.approx([50**0.5] * 30)
    assert Sphere(d=1000, m=None, alpha=0.5).m == 31
    assert [Sphere(d=1000, m=None, alpha=a).m for a in (0.8, 1, 1.2, 1.5)] == [251, 1000, 3981, 31622]
    assert Sphere(d=100, m=None, alpha=1.5).m == 1000, "not 999 by rounding"
    orthogonal = Sphere(d=20, m=8, kind="orthogonal", labels="balanced").draw(0)
    assert orthogonal.x_train @ orthogonal.x_train.T == pytest.approx(20 * np.eye(8), abs=1e-12)
    assert list(orthogonal.y_train) == [1.0, -1.0] * 4
    gaussian = Sphere(d=400, m=300, kind="gaussian").draw(0)
    assert gaussian.x_train.var() == pytest.approx(1 / 400, rel=0.02)
    far = Sphere(d=20, m=24, kind="orthogonal", copies=2).draw(0)
    base = np.tile(far.x_train[:8], (3, 1))
    lengths = np.linalg.norm(far.x_train, axis=1) / 20**0.5
    assert lengths[:8] == pytest.approx(1)
    assert lengths[8:].min() > 1.5
    assert lengths[8:].max() < 3
    assert far.x_train == pytest.approx(base * lengths[:, None])
    assert list(far.y_train) == list(far.y_train[:8]) * 3
    flat = Sphere(d=20, m=9, subspace=4).draw(1)
    assert not flat.x_train[:, 4:].any()
    assert not flat.x_test[:, 4:].any()
    assert np.linalg.norm(flat.x_train, axis=1) == pytest.approx(2)
    assert np.array_equal(Sphere(d=20, m=9, subspace=20).draw(1).x_train, Sphere(d=20, m=9).draw(1).x_train)
    for wrong, says in (
        ({"alpha": 0.5, "m": 40}, "alpha says 31"),
        ({"subspace": 1001}, "subspace = 1001: must be 1 or more, and at most 1,000"),
        ({"m": 9, "subspace": 8, "kind": "orthogonal"}, "at most subspace = 8"),
        ({"m": None}, "must be given, or alpha"),
        ({"m": 1001, "kind": "orthogonal"}, "at most d = 1000"),
        ({"m": 25, "copies": 2}, "multiple of 1"),
        ({"kind": "cube"}, "one of uniform"),
        ({"alpha": -1.0, "m": None}, "must be positive"),
        ({"alpha": 9.0, "m": None}, "must be positive"),
    ):
        with pytest.raises(ConfigError, match=says):
            Sphere(d=1000, **wrong)
