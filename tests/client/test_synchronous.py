"""The synchronous client against the running service."""

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest

from catalog.client import Client, NotFound, Product, ProductChanges
from tests.client.conftest import name
from tests.server.service import Service
from tests.support import PASSWORD

TIMEOUT_SECONDS = 60


def use(url: str) -> None:
    """Do what a script does; runs in a thread, because the test's own one has an event loop."""
    username = name()
    with Client(url) as client:
        assert client.sign_up(username, f"{username}@example.com", PASSWORD) == client.me()
        lamp = client.create("Lamp", 1)
        assert client.get(lamp.id) == lamp
        lamp = client.update(lamp, {"price": 2})
        client.update(lamp, {"price": 3})

        def one_more(current: Product) -> ProductChanges:
            return {"price": current.price + 1}

        assert client.update(lamp, {"price": 3}, merge=one_more).price == 4
        report = client.upload({"name": f"Chair {number}", "price": 5} for number in range(30))
        assert report.created == 30
        assert len(list(client.products(mine=True, page_size=7))) == 31
        with client.export(mine=True, q="chair") as export:
            assert len(list(export)) == 30
        client.delete(lamp.id)
        (change,) = islice(client.follow(export.change), 1)
        assert (change.type, change.id) == ("deleted", lamp.id)
        started: list[str] = []

        def start_over() -> str:
            with client.export(mine=True) as export:
                started.append(export.change)
            client.create("Table", 9)
            return started[0]

        (change,) = islice(client.follow("1.0123456789", start_over=start_over), 1)
        assert change.product is not None
        assert change.product.name == "Table"
        key = client.create_api_key("reports", scope="read")
        assert [each.id for each in client.api_keys()] == [key.id]
        client.revoke_api_key(key.id)
        with pytest.raises(NotFound):
            client.revoke_api_key(key.id)
        assert client.send("GET", "/livez").status_code == 200
        client.log_out()


class TestClient:
    async def test_script_without_an_event_loop_can_do_everything(self, running: Service) -> None:
        with ThreadPoolExecutor(1) as thread:
            await asyncio.get_running_loop().run_in_executor(thread, use, running.url)

    def test_client_with_an_unknown_option_leaves_no_thread(self) -> None:
        before = threading.active_count()

        with pytest.raises(TypeError):
            Client("http://127.0.0.1:9", colour="red")

        assert threading.active_count() == before


INTERRUPTED = """
import os, signal, sys, threading
from catalog.client import Client

# Programs in the background start with it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Client(sys.argv[1]) as client:
    with client.export() as export:
        since = export.change
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        for change in client.follow(since):
            pass
    except KeyboardInterrupt:
        print("interrupted")
    print(len(list(client.products(ids=[1]))))
    left = client.products()
    print(next(left, None) is None)
del left
"""


class TestIteration:
    async def test_interrupted_loop_raises_the_interrupt_and_leaves_the_client_usable(
        self, running: Service
    ) -> None:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            INTERRUPTED,
            running.url,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, errors = await asyncio.wait_for(program.communicate(), TIMEOUT_SECONDS)

        # An iterator that outlives the client ends in silence, too.
        assert errors == b""
        assert printed.decode().splitlines()[0] == "interrupted"
        assert program.returncode == 0
