"""The folder of the workers' metrics files does not grow, and loses no counts."""

import errno
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from catalog.observability.shared_values import shared_value_class
from catalog.server import metrics_files as module
from catalog.server.metrics_files import MetricsFiles, metrics_files
from catalog.settings import SharedMetrics


class Worker:
    """Metrics of a worker, by value classes of its own as in another process."""

    def __init__(self, files: MetricsFiles) -> None:
        place = files.take_place()
        assert place is not None
        self.place: SharedMetrics = place
        value: Any = shared_value_class(place)
        self.counter = value("counter", "c", "c_total", ["k"], ["v"], "Counted.")
        self.bucket = value("histogram", "h", "h_bucket", ["le"], ["+Inf"], "Measured.")
        self.gauge = value("gauge", "g", "g", [], [], "Now.", multiprocess_mode="livesum")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder whose files are left open, as by killed processes."""
    yield tmp_path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def told(folder: Path) -> dict[str, float]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return {sample.name: sample.value for family in registry.collect() for sample in family.samples}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
class TestPlaces:
    def test_fifty_restarts_leave_as_many_files_as_workers(self, folder: Path) -> None:
        files = MetricsFiles(folder)
        workers = [Worker(files) for _ in range(3)]
        for each in workers:
            each.gauge.set(1)
        sizes = set()

        for restart in range(50):
            dead = workers.pop(restart % 3)
            dead.counter.inc(2)
            dead.bucket.inc(1)
            dead.gauge.set(7)
            files.leave_place(dead.place)
            files.count_restart()
            assert told(folder)["g"] == 2
            workers.append(Worker(files))
            workers[-1].gauge.set(1)
            sizes.add(sum(path.stat().st_size for path in folder.iterdir()))

        numbers = told(folder)
        assert (numbers["c_total"], numbers["h_bucket"], numbers["g"]) == (100, 50, 3)
        assert numbers["catalog_worker_restarts_total"] == 50
        assert len(list(folder.glob("counter_?.db"))) == 3
        assert len(sizes) == 1

    def test_live_workers_never_share_a_place(self, folder: Path) -> None:
        files = MetricsFiles(folder)
        first, second = Worker(files), Worker(files)
        files.leave_place(first.place)
        third, fourth = Worker(files), Worker(files)

        assert third.place == first.place
        assert len({each.place.number for each in (second, third, fourth)}) == 3

    def test_worker_without_a_folder_counts_by_itself(self) -> None:
        files = MetricsFiles(None)

        assert files.take_place() is None
        files.leave_place(None)
        files.count_restart()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
class TestFolder:
    def test_missing_places_yield_no_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "IN_MEMORY", tmp_path / "missing")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing too"))

        with metrics_files() as files:
            assert files.take_place() is None

    def test_full_place_is_skipped(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        full, other = folder / "full", folder / "other"
        full.mkdir()
        other.mkdir()
        monkeypatch.setattr(module, "IN_MEMORY", full)
        monkeypatch.setattr("tempfile.tempdir", str(other))
        room = module.MetricsFiles

        def files_in(place: Path | None) -> MetricsFiles:
            if place is not None and place.parent == full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return room(place)

        monkeypatch.setattr(module, "MetricsFiles", files_in)

        with metrics_files() as files:
            place = files.take_place()
            assert place is not None
            assert place.folder.parent == other
        assert not list(full.iterdir()) + list(other.iterdir())

    def test_temporary_folder_is_used_without_shared_memory(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "IN_MEMORY", folder / "missing")
        monkeypatch.setattr("tempfile.tempdir", str(folder))

        with metrics_files() as files:
            place = files.take_place()
            assert place is not None
            assert place.folder.parent == folder
        assert not place.folder.exists()
