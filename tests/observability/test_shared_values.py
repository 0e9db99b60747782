"""Shared values: what a process counts is what prometheus-client reads from its files."""

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from catalog.observability.shared_values import (
    FILE_BYTES,
    shared_value_class,
    value_of,
    values_of,
)
from catalog.settings import SharedMetrics


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder whose files are left open, as by a running process."""
    yield tmp_path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def number_of(folder: Path, name: str) -> float | None:
    """Return the sum over all files, as a scraper gets it."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return registry.get_sample_value(name)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
class TestSharedValue:
    @pytest.mark.parametrize("kind", [kind for kind in FILE_BYTES if kind != "histogram"])
    def test_number_is_read_by_the_library(self, folder: Path, kind: str) -> None:
        kind, _, mode = kind.partition("_")
        value: Any = shared_value_class(SharedMetrics(folder, "0"))
        number = value(kind, "n", "n", (), (), "A number.", multiprocess_mode=mode)

        number.inc(1)
        number.inc(2.5)

        assert number.get() == number_of(folder, "n") == 3.5

    def test_successor_continues_the_count(self, folder: Path) -> None:
        for amount in (1, 2, 4):
            value: Any = shared_value_class(SharedMetrics(folder, "0"))
            value("counter", "n", "n_total", (), (), "A number.").inc(amount)

        assert number_of(folder, "n_total") == 7

    def test_numbers_stay_valid_when_their_file_grows(self, folder: Path) -> None:
        value: Any = shared_value_class(SharedMetrics(folder, "0"))
        first = value("counter", "n", "n_total", (), (), "A number.")
        for each in range(2000):
            value("counter", "m", "m_total", ("label",), (str(each),), "Many.").inc(1)
        assert (folder / "counter_0.db").stat().st_size > FILE_BYTES["counter"]

        first.inc(7)

        assert number_of(folder, "n_total") == 7

    def test_space_of_a_new_file_is_allocated(self, folder: Path) -> None:
        shared_value_class(SharedMetrics(folder, "0"))

        for kind, size in FILE_BYTES.items():
            file = (folder / f"{kind}_0.db").stat()
            assert file.st_blocks * 512 >= file.st_size == size


class TestValues:
    def test_value_of_a_counter_counts_for_it(self) -> None:
        registry = CollectorRegistry()
        counter = Counter("counted", "Counted.", registry=registry)

        value_of(counter).inc(2)

        assert registry.get_sample_value("counted_total") == 2

    def test_values_of_a_histogram_count_for_it(self) -> None:
        registry = CollectorRegistry()
        histogram = Histogram("measured", "Measured.", buckets=(1, 2), registry=registry)

        total, buckets, bounds = values_of(histogram)
        total.inc(1.5)
        buckets[1].inc(1)

        assert list(bounds) == [1, 2, float("inf")]
        assert registry.get_sample_value("measured_sum") == 1.5
        found = [
            registry.get_sample_value("measured_bucket", {"le": each})
            for each in ("1.0", "2.0", "+Inf")
        ]
        assert found == [0, 1, 1]
