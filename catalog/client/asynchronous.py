"""The asynchronous client."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Self
from uuid import uuid4

import httpx

from catalog.client.credentials import Credentials, KeyCredentials, SessionCredentials
from catalog.client.editing import Merge, change_as_read
from catalog.client.errors import NotFound
from catalog.client.exporting import Export, export_request, filters_of, list_path
from catalog.client.following import Following
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
from catalog.client.read_ahead import ReadAhead
from catalog.client.responses import change_of, contents, page_of, product_of
from catalog.client.transport import Request, Transport
from catalog.client.uploading import UploadMode, upload

VERSION = "1.0.0"

TIMEOUT_SECONDS = 30.0
"""Time-out of a response: longer than the longest deadline of the service."""


class AsyncClient:
    """Client of a catalog; close it, or use it in ``async with``.

    Args:
        url: where the service is, with its path if it has one.
        key: an API key.
        username: the username or e-mail address, for ``password``.
        password: the password, with which the client logs in when it has to.
        access_token: an access token.
        refresh_token: a refresh token.
        retry_seconds: seconds for which a request is repeated while the service is not available.
        http: an HTTP client with settings of your own (proxies, TLS), which you close; its base
            URL is replaced.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        username: str = "",
        password: str = "",
        access_token: str = "",
        refresh_token: str = "",
        retry_seconds: float = 30.0,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._is_own = http is None
        self._http = http or httpx.AsyncClient(
            timeout=TIMEOUT_SECONDS, headers={"User-Agent": f"catalog-client/{VERSION}"}
        )
        self._http.base_url = httpx.URL(url)
        credentials = Credentials()
        if key:
            credentials = KeyCredentials(key)
        elif username or access_token or refresh_token:
            credentials = SessionCredentials(
                username=username,
                password=password,
                access_token=access_token,
                refresh_token=refresh_token,
            )
        self._transport = Transport(self._http, credentials, retry_seconds=retry_seconds)

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        if self._is_own:
            await self._http.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        is_repeatable: bool = True,
        is_public: bool = False,
        **options: Any,
    ) -> httpx.Response:
        """Send any request of the API with this client's credentials, retries and errors.

        A success must have a media type that the request asks for, by ``format`` in the query or by
        ``Accept`` (``*/*`` for any); without these, JSON. Its body is not checked.

        Args:
            method: the method.
            path: the path, below the service's URL.
            is_repeatable: whether to send it twice has the effect of sending it once.
            is_public: whether it needs no token.
            options: ``json``, ``content``, ``params`` or ``headers``.
        """
        request = Request(method, path, is_repeatable, is_public, **options)
        return await self._transport.send(request)

    async def sign_up(self, username: str, email: str, password: str) -> Account:
        """Create an account, whose session this client uses from now on."""
        fields = {"username": username, "email": email, "password": password}
        answer = await self.send(
            "POST", "/api/auth/signup", json=fields, is_public=True, is_repeatable=False
        )
        session = SessionCredentials(username=username, password=password)
        contents(answer, session.accept)
        self._transport.credentials = session
        return contents(answer, lambda members: Account.from_json({**members, "role": "user"}))

    async def me(self) -> Account:
        """Return the caller's account."""
        return contents(await self.send("GET", "/api/auth/me"), Account.from_json)

    async def log_out(self) -> None:
        """End the session."""
        await self.send("POST", "/api/auth/logout")
        self._transport.credentials = Credentials()

    async def create_api_key(
        self, name: str, *, scope: Scope = "read", expires_at: datetime | None = None
    ) -> Key:
        """Make an API key; the response is the only one that has the key itself."""
        fields = {"name": name, "scope": scope}
        if expires_at is not None:
            fields["expires_at"] = expires_at.isoformat()
        answer = await self.send("POST", "/api/auth/keys", json=fields, is_repeatable=False)
        return contents(answer, Key.from_json)

    async def api_keys(self) -> Sequence[Key]:
        """Return the caller's API keys, newest first."""
        answer = await self.send("GET", "/api/auth/keys")
        return contents(answer, lambda members: [Key.from_json(each) for each in members["keys"]])

    async def revoke_api_key(self, key_id: int) -> None:
        """Revoke an API key; one that was revoked already is no error."""
        try:
            await self.send("DELETE", f"/api/auth/keys/{key_id}")
        except NotFound as error:
            if not error.was_repeated:
                raise

    async def get(self, product_id: int) -> Product:
        """Return a product.

        Raises:
            NotFound: there is none with this id.
        """
        answer = await self.send("GET", f"/api/products/{product_id}", is_public=True)
        return product_of(answer)

    async def products(
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
    ) -> AsyncGenerator[Product, None]:
        """Yield products, page by page; those that exist throughout come exactly once.

        Args:
            mine: only the caller's own.
            sort: the order.
            q: words, each of which begins some word of the name or the description.
            min_price: the lowest price.
            max_price: the highest price.
            user_id: only this owner's.
            ids: only these, up to 200; none of them if it is empty.
            key: only those of which it is their owners' name.
            page_size: products fetched at a time, 1 to 1000.
        """
        if key == "" or (ids is not None and len(ids) == 0):
            # The service takes an empty parameter for an absent one, and would return all products.
            return
        params = filters_of(sort, q, min_price, max_price, user_id, ids, key=key, limit=page_size)
        path: str | None = list_path(mine=mine)
        while path is not None:
            answer = await self.send("GET", path, is_public=not mine, params=params)
            page, path = page_of(answer)
            for product in page:
                yield product
            params = {}

    @asynccontextmanager
    async def export(
        self,
        *,
        mine: bool = False,
        sort: Sort = "-id",
        q: str | None = None,
        min_price: float | None = None,
        max_price: float | None = None,
        user_id: int | None = None,
    ) -> AsyncIterator[Export]:
        """Provide all products that match, as one stream and with the change to follow from.

        They are read ahead of your loop: up to 4 MB into memory, and more into a temporary file.
        """
        filters = filters_of(sort, q, min_price, max_price, user_id, None)
        async with self._transport.stream(export_request(filters, mine=mine)) as response:
            change = change_of(response)
            async with ReadAhead(response.aiter_bytes()) as body:
                yield Export(change, body)

    async def create(
        self,
        name: str,
        price: float,
        description: str | None = None,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Product:
        """Create a product, once, however often the request has to be repeated.

        Args:
            name: its name.
            price: its price.
            description: its description.
            key: your own name of it.
            idempotency_key: a key of your own, so that your program may repeat the call, too.
        """
        fields = {"name": name, "price": price, "description": description}
        answer = await self.send(
            "POST",
            "/api/products",
            json=fields if key is None else {**fields, "key": key},
            headers={"Idempotency-Key": idempotency_key or uuid4().hex},
        )
        return product_of(answer)

    async def update(
        self,
        product: Product | int,
        changes: ProductChanges,
        *,
        merge: Merge | None = None,
    ) -> Product:
        """Change a product, unless it was changed since it was read.

        Args:
            product: the product as it was read; only its id changes it in any case.
            changes: the fields to change.
            merge: returns what to change in the product as it is now, if it was changed; None to
                give up. Called again if it was changed once more.

        Returns:
            the changed product.

        Raises:
            PreconditionFailed: it was changed, and there is no ``merge`` or it gave up.
        """
        if isinstance(product, int):
            return await self._change(product, changes, None)
        return await change_as_read(self.get, self._change, product, changes, merge)

    async def _change(self, product_id: int, changes: ProductChanges, etag: str | None) -> Product:
        headers = {"If-Match": etag} if etag else {}
        path = f"/api/products/{product_id}"
        return product_of(await self.send("PATCH", path, json=changes, headers=headers))

    async def delete(self, product: Product | int) -> None:
        """Delete a product.

        Raises:
            NotFound: there is none with this id.
        """
        product_id = product if isinstance(product, int) else product.id
        try:
            await self.send("DELETE", f"/api/products/{product_id}")
        except NotFound as error:
            # The response to the first attempt was lost.
            if not error.was_repeated:
                raise

    async def upload(
        self,
        products: Iterable[UploadLine] | AsyncIterable[UploadLine],
        *,
        mode: UploadMode = "create",
        progress: Callable[[UploadReport], object] | None = None,
    ) -> UploadReport:
        """Create or change products, any number, from any iterable.

        Args:
            products: the products; a thousand are held at a time.
            mode: ``upsert`` changes products that have the ``id`` or ``key``, and creates the
                others. Requests in which every product has one of them are repeated.
            progress: called with the report so far after each request.

        Raises:
            UploadInterrupted: the outcome of a request is unknown, or the service refused it.
            Exception: whatever ``products`` or ``progress`` raised, with a note of what was done.
                Products that came after the last full request are not sent.
        """
        return await upload(self.send, products, mode=mode, progress=progress)

    def follow(
        self,
        since: str | None = None,
        *,
        start_over: Callable[[], Awaitable[str]] | None = None,
    ) -> AsyncGenerator[Change, None]:
        """Yield every change, in order and without end; resumes by itself after interruptions.

        Args:
            since: the change after which to begin, such as ``8.5f0c29a1be``: the ``change`` of a
                change or an export. None for the changes from now on or, with ``start_over``, from
                where that says.
            start_over: brings your copy up to date, as by an export, and returns the change to
                follow from. Called at the beginning without ``since``, and when the service cannot
                tell the changes since the last one: too long ago, or a backup was restored.

        Raises:
            ChangesGone: the changes are not available, and there is no ``start_over``.
        """
        return Following(self._transport, start_over).changes(since)
