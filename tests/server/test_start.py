"""Entry point of a worker."""

import gc

import pytest

from catalog.server import lifeline, start, worker


class TestMain:
    def test_garbage_is_collected_once_the_worker_is_imported(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        collects: list[bool] = []
        monkeypatch.setattr("sys.argv", ["start", "--lifeline-fd=0"])
        monkeypatch.setattr(lifeline, "watch", lambda _: None)
        monkeypatch.setattr(worker, "main", lambda: collects.append(gc.isenabled()))

        start.main()

        assert collects == [True]
