"""The synchronous client: the asynchronous one, on an event loop in a thread of its own."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import ExitStack, contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from anyio import Lock, to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from catalog.client.asynchronous import AsyncClient
from catalog.client.editing import Merge
from catalog.client.models import (
    Account,
    Change,
    Key,
    Product,
    ProductChanges,
    Scope,
    Sort,
    UploadLine,
    UploadReport,
)
from catalog.client.uploading import UploadMode

T = TypeVar("T")


class SyncExport:
    """All products of a list, as they are read.

    Attributes:
        change: the change from which to follow, so that nothing is missed.
    """

    def __init__(self, portal: BlockingPortal, change: str, products: AsyncIterator[Product]):
        self.change = change
        self._portal = portal
        self._products = products

    def __iter__(self) -> Iterator[Product]:
        """Yield the products."""
        return _iterate(self._portal, self._products)


class Client:
    """Client of a catalog for programs without an event loop; use it in ``with``.

    Args:
        url: where the service is, with its path if it has one.
        options: those of ``AsyncClient``.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal("asyncio"))
        try:
            self._client = self._portal.call(lambda: AsyncClient(url, **options))
        except BaseException:
            self._stack.close()
            raise
        self._stack.callback(self._portal.call, self._client.aclose)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread."""
        self._stack.close()

    def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        return self._portal.call(call)

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send any request of the API, as ``AsyncClient.send``."""
        return self._call(lambda: self._client.send(method, path, **options))

    def sign_up(self, username: str, email: str, password: str) -> Account:
        """Create an account, whose session this client uses from now on."""
        return self._call(lambda: self._client.sign_up(username, email, password))

    def me(self) -> Account:
        """Return the caller's account."""
        return self._call(self._client.me)

    def log_out(self) -> None:
        """End the session."""
        self._call(self._client.log_out)

    def create_api_key(
        self, name: str, *, scope: Scope = "read", expires_at: datetime | None = None
    ) -> Key:
        """Make an API key; the response is the only one that has the key itself."""
        return self._call(
            lambda: self._client.create_api_key(name, scope=scope, expires_at=expires_at)
        )

    def api_keys(self) -> Sequence[Key]:
        """Return the caller's API keys, newest first."""
        return self._call(self._client.api_keys)

    def revoke_api_key(self, key_id: int) -> None:
        """Revoke an API key."""
        self._call(lambda: self._client.revoke_api_key(key_id))

    def get(self, product_id: int) -> Product:
        """Return a product, as ``AsyncClient.get``."""
        return self._call(lambda: self._client.get(product_id))

    def products(
        self,
        *,
        mine: bool = False,
        sort: Sort = "-id",
        q: str | None = None,
        min_price: float | None = None,
        max_price: float | None = None,
        user_id: int | None = None,
        ids: Sequence[int] | None = None,
        key: str | None = None,
        page_size: int = 200,
    ) -> Iterator[Product]:
        """Yield products, page by page, as ``AsyncClient.products``."""
        found = self._client.products(
            mine=mine,
            sort=sort,
            q=q,
            min_price=min_price,
            max_price=max_price,
            user_id=user_id,
            ids=ids,
            key=key,
            page_size=page_size,
        )
        return _iterate(self._portal, found)

    @contextmanager
    def export(self, **filters: Any) -> Iterator[SyncExport]:
        """Provide all products that match, as ``AsyncClient.export``."""
        with self._portal.wrap_async_context_manager(self._client.export(**filters)) as export:
            yield SyncExport(self._portal, export.change, aiter(export))

    def create(
        self,
        name: str,
        price: float,
        description: str | None = None,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Product:
        """Create a product, as ``AsyncClient.create``."""
        return self._call(
            lambda: self._client.create(
                name, price, description, key=key, idempotency_key=idempotency_key
            )
        )

    def update(
        self, product: Product | int, changes: ProductChanges, *, merge: Merge | None = None
    ) -> Product:
        """Change a product, as ``AsyncClient.update``; ``merge`` runs in the client's thread."""
        return self._call(lambda: self._client.update(product, changes, merge=merge))

    def delete(self, product: Product | int) -> None:
        """Delete a product, as ``AsyncClient.delete``."""
        self._call(lambda: self._client.delete(product))

    def upload(
        self,
        products: Iterable[UploadLine],
        *,
        mode: UploadMode = "create",
        progress: Callable[[UploadReport], object] | None = None,
    ) -> UploadReport:
        """Create products, as ``AsyncClient.upload``; the iterable runs in the client's thread."""
        return self._call(lambda: self._client.upload(products, mode=mode, progress=progress))

    def follow(
        self, since: str | None = None, *, start_over: Callable[[], str] | None = None
    ) -> Iterator[Change]:
        """Yield every change, as ``AsyncClient.follow``.

        Args:
            since: the change after which to begin.
            start_over: as there; it runs in a thread, so it may use this client.
        """
        hook = None if start_over is None else _in_thread(start_over)
        return _iterate(self._portal, self._client.follow(since, start_over=hook))


def _in_thread(function: Callable[[], str]) -> Callable[[], Awaitable[str]]:
    async def called() -> str:
        return await to_thread.run_sync(function)

    return called


def _iterate(portal: BlockingPortal, values: AsyncIterator[T]) -> Iterator[T]:
    """Iterate over asynchronous values; closes their generator when the loop is left."""
    # An interrupted step is cancelled, but its generator cannot be closed before it has ended.
    turn = Lock()

    async def step() -> T:
        async with turn:
            return await anext(values)

    async def close() -> None:
        async with turn:
            if isinstance(values, AsyncGenerator):
                await values.aclose()

    try:
        while True:
            upcoming = portal.start_task_soon(step)
            try:
                value = upcoming.result()
            except StopAsyncIteration:
                return
            finally:
                upcoming.cancel()
            yield value
    finally:
        try:
            closing = portal.start_task_soon(close)
        except RuntimeError:
            # The client is closed, and its event loop has closed the generator.
            pass
        else:
            closing.result()
