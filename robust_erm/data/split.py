"""Points of files, split by the seed: some train, others are tested on."""

from __future__ import annotations

import numpy as np

from robust_erm.core.errors import hint, one_of, require
from robust_erm.data import images
from robust_erm.data.dataset import Array, Dataset
from robust_erm.data.part import Part, few, word

_SIGNS = (("-1", "1"), ("0", "1"), ("False", "True"))  # labels that say themselves which is +1: the second
_MANY = 10  # classes that few points may have one or none of


class Split:
    """m points of the classes for each seed; tests are on the test points, or on points held out of training.

    The first m of a random order are the training points. Test points are those of a file of their own, else the
    others of the same file; m_test of them are drawn at random. With ``validation`` the run is tested on so many other
    points instead: of the training file, and neither training points nor, at the same seed, test points of the run
    without ``validation``. Training points do not depend on it.
    """

    classes: tuple[str, ...] | None
    m: int | None
    m_test: int | None
    validation: int | None
    sample: str = "random"
    standardise: bool = False
    domain: tuple[float, ...] | None = None

    def _parts(self) -> tuple[Part, Part | None]:
        """The points to train on, and the test points where these have files of their own."""
        raise NotImplementedError

    def _both(self) -> tuple[Part, Part | None]:
        """The same, their inputs in one order."""
        train, test = self._parts()
        return train, None if test is None else test.as_in(train)

    def _check_split(self) -> None:
        """What can be said of the options alone."""
        one_of("sample", self.sample, images.SAMPLES)
        for key in ("m", "m_test", "validation"):
            value = getattr(self, key)
            require(value is None or value >= 1, key, value, "must be 1 or more, or null")
        if self.classes is not None:
            words = tuple(map(word, self.classes))
            distinct = len(set(words)) == len(words) >= 2
            require(distinct, "classes", list(self.classes), "must be two or more different labels, or null for all")
            object.__setattr__(self, "classes", words)
        if self.domain is not None:
            ordered = len(self.domain) == 2 and self.domain[0] < self.domain[1]
            require(ordered, "domain", list(self.domain), "must be two numbers, the lower first, or null")

    @property
    def dimension(self) -> int:
        """Numbers in one input."""
        return int(self._parts()[0].x.shape[1])

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self._names(self._parts()[0]))

    def check(self) -> None:
        """The files must be there and fit one another, and hold as many points as are asked for."""
        train, test = self._both()
        names = self._names(train)
        missing = next((name for name in names if name not in train.names), None)
        says = f"is no label of the file, which has {few(train.names)}"
        require(missing is None, "classes", missing, says + hint(str(missing), list(train.names)))
        kept = len(train.rows(names))
        says = f"has {len(names)} different labels on {kept} points ({few(names)}): classes, not quantities; name them"
        few_each = self.classes is not None or len(names) <= max(_MANY, kept // 2)
        require(few_each, train.key, train.source, f"{says} (classes=[...]) where they are what is meant")
        m = self._drawn(kept, test)
        if test is not None:
            size, other = (" x ".join(map(str, each.shape)) for each in (test, train))
            require(size == other, test.key, test.source, f"has {size} numbers in a point, {train.source} has {other}")
            says = f"has {test.x.dtype} numbers, {train.source} has {train.x.dtype}: must be of one type"
            require(test.x.dtype == train.x.dtype, test.key, test.source, says)
            new = next((name for name in test.names if name not in train.names), None)
            says = f"has the label {new}, which {train.source} has not: name the classes to keep"
            require(new is None or self.classes is not None, test.key, test.source, says)
            left = len(test.rows(names))
            require(left >= 1, test.key, test.source, f"has no point of the classes {', '.join(names)}")
            require(m <= kept, "m", m, f"must be at most {kept}, the points of these classes")
            spare = kept - m
        else:
            require(m < kept, "m", m, f"must be below {kept}, the points of these classes: the rest are for tests")
            left = kept - m
            says = "must be given beside validation: else all others are test points, and none is left to hold out"
            require(self.validation is None or self.m_test is not None, "m_test", "null", says)
            spare = left - (self.m_test or 1)
        wanted = 1 if self.m_test is None else self.m_test
        require(wanted <= left, "m_test", wanted, f"must be at most {left}, the points that are left for tests")
        says = f"must be at most {spare}, the points that are left by training (m = {m}) and tests"
        require(self.validation is None or self.validation <= spare, "validation", self.validation, says)
        if self.domain is not None:
            for each in (train, test or train):
                least, most = each.reach(each.rows(names))
                says = f"must hold all numbers of {each.source}, which reach from {least:g} to {most:g}"
                require(self.domain[0] <= least and most <= self.domain[1], "domain", list(self.domain), says)

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``."""
        train, test = self._both()
        names = self._names(train)
        chosen, left = self._chosen(train, test, seed)
        source, tests = (train, np.sort(left)) if test is None else (test, test.rows(names))
        if self.m_test is not None:
            mixed_tests = images.shuffled(tests, seed, "test")
            tests = np.sort(mixed_tests[: self.m_test])
            left = mixed_tests[self.m_test :] if test is None else left
        if self.validation is not None:
            source, tests = train, np.sort(left[: self.validation])
        x_train = train.values(chosen)

        def scaled(x: Array) -> Array:
            return _standardised(x, x_train) if self.standardise else x

        def labels(part: Part, rows: images.Labels) -> Array:
            return images.labels(part.places(names)[rows], tuple(range(len(names))))

        def test_points() -> tuple[Array, Array]:
            return scaled(source.values(tests)), labels(source, tests)

        return Dataset(scaled(x_train), labels(train, chosen), test_points, domain=self.interval)

    @property
    def columns(self) -> tuple[str, ...]:
        """What the inputs are called, where the file says so; else none."""
        return self._parts()[0].columns

    @property
    def names(self) -> tuple[str, ...]:
        """What the classes are called, in order."""
        return self._names(self._parts()[0])

    @property
    def interval(self) -> tuple[float, float] | None:
        """What every number lives in: the domain given, or [0, 1] of pixels; None: nothing is known."""
        domain = self.domain or ((0.0, 1.0) if self._parts()[0].pixels else None)
        return None if domain is None else (float(domain[0]), float(domain[1]))

    def prepared(self, x: Array, seed: int) -> Array:
        """Inputs (n, d) as the file has them, as those of the run of ``seed`` are: standardised like its points."""
        if not self.standardise:
            return x
        train, test = self._parts()
        return _standardised(x, train.values(self._chosen(train, test, seed)[0]))

    def describe(self, seed: int) -> str:
        """What the inputs are called, and reach over; what the classes are; where tests are on other points."""
        train, _ = self._parts()
        names, d = self._names(train), train.x.shape[1]
        signs = (
            [f"{names[0]} = +1", f"{names[1]} = -1"] if len(names) == 2 else [f"{n} = {k}" for k, n in enumerate(names)]
        )
        of = f" ({few(train.columns)})" if train.columns else ""
        least, most = train.reach()
        said = [f"{d} inputs{of} from {least:g} to {most:g}; {few(signs)}"]
        if self.validation is not None:
            held = f"{self.validation} points held out of {train.source}"
            said.append(f"validation: tests are on {held}, not on the test points")
        return "; ".join(said)

    def _names(self, train: Part) -> tuple[str, ...]:
        names = self.classes or (train.names[::-1] if train.names in _SIGNS else train.names)
        require(len(names) >= 2, train.key, train.source, f"has one label alone, {names[0]}: must have two or more")
        return names

    def _chosen(self, train: Part, test: Part | None, seed: int) -> tuple[images.Labels, images.Labels]:
        """The points of the classes that ``seed`` trains on, and the others, in the order of its draw."""
        mixed = images.ordered(train.rows(self._names(train)), seed, self.sample)
        m = self._drawn(len(mixed), test)
        return mixed[:m], mixed[m:]

    def _drawn(self, kept: int, test: Part | None) -> int:
        """Training points, of so many of these classes."""
        return self.m or (max(1, 4 * kept // 5) if test is None else kept)


def _standardised(x: Array, train: Array) -> Array:
    """Less the mean of the training points, over their standard deviation; by inputs.

    Those that are constant, up to rounding, are not divided: what rounding leaves of their deviation is no scale.
    """
    low, high = train.min(0), train.max(0)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = train.std(0)
        constant = high - low <= 64 * np.finfo(np.float64).eps * np.maximum(np.abs(low), np.abs(high))
    says = "overflows: some inputs are too large; divide them by a power of ten"
    require(bool(np.isfinite(scale[~constant]).all()), "standardise", "true", says)
    found: Array = (x - np.where(low == high, low, train.mean(0))) / np.where(constant, 1.0, scale)
    return found
