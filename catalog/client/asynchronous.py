"""The asynchronous client."""

import json
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal, Self
from uuid import uuid4

import httpx

from catalog.client.credentials import Credentials, KeyCredentials, SessionCredentials
from catalog.client.errors import CatalogError, NotFound, PreconditionFailed
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
from catalog.client.transport import Request, Transport, lines_of

VERSION = "0.1.0"

TIMEOUT_SECONDS = 30.0
"""Time-out of a response: longer than the longest deadline of the service."""

UPLOAD_LINES = 1000
UPLOAD_BYTES = 1024 * 1024
"""Products in one request of an upload, and the size at which it is sent in any case."""

Merge = Callable[[Product], ProductChanges | None]
"""Call-back that decides what to change in a product that was changed meanwhile; None gives up."""

UploadMode = Literal["create", "upsert"]


class UploadInterrupted(CatalogError):
    """An upload ended before its end.

    Attributes:
        report: what is known to have happened.
        lines: products that it counts; the next ones may or may not have been written.
    """

    def __init__(self, report: UploadReport, lines: int) -> None:
        super().__init__(f"The upload was interrupted after {lines} products.")
        self.report = report
        self.lines = lines


class Export:
    """All products of a list, as they are read.

    Attributes:
        change: the change from which to follow, so that nothing is missed.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.change = response.headers["Catalog-Change"]
        self._response = response

    async def __aiter__(self) -> AsyncIterator[Product]:
        """Yield the products.

        Raises:
            ConnectionFailed: the connection ended before the list did.
        """
        async for line in lines_of(self._response):
            yield Product.from_json(json.loads(line))


class AsyncClient:
    """Client of a catalog; close it, or use it in ``async with``.

    Args:
        url: where the service is, with its path if it has one.
        key: an API key.
        username: the username or e-mail address, for ``password``.
        password: the password, with which the client logs in when it has to.
        access_token: an access token.
        refresh_token: a refresh token.
        patience: seconds for which a request is repeated while the service is not available.
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
        patience: float = 30.0,
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
        self._transport = Transport(self._http, credentials, patience=patience)

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

        Args:
            method: the method.
            path: the path, below the service's URL.
            is_repeatable: whether to send it twice has the effect of sending it once.
            is_public: whether it needs no token.
            options: ``json``, ``content``, ``params`` or ``headers``.
        """
        request = Request(method, path, is_repeatable, is_public, **options)
        return await self._transport.send(request)

    # --- the account ---

    async def sign_up(self, username: str, email: str, password: str) -> Account:
        """Create an account, whose session this client uses from now on."""
        fields = {"username": username, "email": email, "password": password}
        answer = await self.send(
            "POST", "/api/auth/signup", json=fields, is_public=True, is_repeatable=False
        )
        session = SessionCredentials(username=username, password=password)
        session.accept(answer.json())
        self._transport.credentials = session
        return Account.from_json({**answer.json(), "role": "user"})

    async def me(self) -> Account:
        """Return the caller's account."""
        return Account.from_json((await self.send("GET", "/api/auth/me")).json())

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
        return Key.from_json(answer.json())

    async def api_keys(self) -> Sequence[Key]:
        """Return the caller's API keys, newest first."""
        answer = await self.send("GET", "/api/auth/keys")
        return [Key.from_json(each) for each in answer.json()["keys"]]

    async def revoke_api_key(self, key_id: int) -> None:
        """Revoke an API key; one that was revoked already is no error."""
        try:
            await self.send("DELETE", f"/api/auth/keys/{key_id}")
        except NotFound as error:
            if not error.was_repeated:
                raise

    # --- products ---

    async def get(self, product_id: int) -> Product:
        """Return a product.

        Raises:
            NotFound: there is none with this id.
        """
        answer = await self.send("GET", f"/api/products/{product_id}", is_public=True)
        return _product_of(answer)

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
            ids: only these, up to 200.
            key: only those of which it is their owners' name.
            page_size: products fetched at a time, 1 to 1000.
        """
        params = _filters(sort, q, min_price, max_price, user_id, ids, key=key, limit=page_size)
        path: str | None = "/api/products/my" if mine else "/api/products"
        while path is not None:
            answer = await self.send("GET", path, is_public=not mine, params=params)
            page = answer.json()
            for each in page["products"]:
                yield Product.from_json(each)
            # Relative to the host, with the service's own path if it has one.
            path = str(answer.url.join(page["next"])) if page["next"] else None
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
        """Provide all products that match, as one stream and with the change to follow from."""
        request = Request(
            "GET",
            "/api/products/my" if mine else "/api/products",
            is_public=not mine,
            params=_filters(sort, q, min_price, max_price, user_id, None),
            headers={"Accept": "application/x-ndjson"},
        )
        async with self._transport.stream(request) as response:
            yield Export(response)

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
        return _product_of(answer)

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
        read = product
        if read.etag is None:
            # Lists have no entity tags.
            read = await self.get(product.id)
        try:
            if read.version != product.version:
                raise _changed_meanwhile(read)
            return await self._change(read.id, changes, read.etag)
        except PreconditionFailed as error:
            current = await self.get(read.id)
            if error.was_repeated and _is_outcome(current, product.version, changes):
                # The response to the first attempt was lost.
                return current
            wanted = merge(current) if merge is not None else None
            if wanted is None:
                raise
        return await self.update(current, wanted, merge=merge)

    async def _change(self, product_id: int, changes: ProductChanges, etag: str | None) -> Product:
        headers = {"If-Match": etag} if etag else {}
        path = f"/api/products/{product_id}"
        return _product_of(await self.send("PATCH", path, json=changes, headers=headers))

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
        """
        report, lines = UploadReport(), 0
        async for chunk, count, has_names in _chunks(products):
            try:
                answer = await self.send(
                    "POST",
                    "/api/products",
                    # A product without a name of its own would be created once more.
                    is_repeatable=mode == "upsert" and has_names,
                    content=chunk,
                    params={"mode": mode} if mode == "upsert" else {},
                    headers={"Content-Type": "application/x-ndjson"},
                )
            except CatalogError as error:
                raise UploadInterrupted(report, lines) from error
            report = report.plus(UploadReport.from_json(answer.json()), first_line=lines)
            lines += count
            if progress is not None:
                progress(report)
        return report

    # --- changes ---

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


def _product_of(answer: httpx.Response) -> Product:
    return Product.from_json(answer.json(), answer.headers.get("ETag"))


def _filters(
    sort: Sort,
    q: str | None,
    min_price: float | None,
    max_price: float | None,
    user_id: int | None,
    ids: Sequence[int] | None,
    **others: object,
) -> Mapping[str, Any]:
    filters = {
        "sort": None if sort == "-id" else sort,
        "q": q,
        "min_price": min_price,
        "max_price": max_price,
        "user_id": user_id,
        "ids": None if ids is None else ",".join(map(str, ids)),
        **others,
    }
    return {name: value for name, value in filters.items() if value is not None}


def _changed_meanwhile(current: Product) -> PreconditionFailed:
    detail = f"Product {current.id} was changed after it was read."
    return PreconditionFailed(412, {"code": "precondition-failed", "detail": detail}, None)


def _is_outcome(current: Product, version: int, changes: ProductChanges) -> bool:
    """Return whether a product is as these changes, applied to that version, have left it."""
    is_next = current.version == version + 1
    return is_next and all(getattr(current, name) == value for name, value in changes.items())


async def _chunks(
    products: Iterable[UploadLine] | AsyncIterable[UploadLine],
) -> AsyncIterator[tuple[bytes, int, bool]]:
    """Yield bodies of an upload, the products in each, and whether all have an id or a key."""
    lines: list[bytes] = []
    size, has_names = 0, True
    async for product in _each(products):
        line = json.dumps(product, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        lines.append(line)
        size += len(line)
        has_names = has_names and (product.get("id") or product.get("key")) is not None
        if len(lines) == UPLOAD_LINES or size >= UPLOAD_BYTES:
            yield b"".join(lines), len(lines), has_names
            lines, size, has_names = [], 0, True
    if lines:
        yield b"".join(lines), len(lines), has_names


async def _each(
    products: Iterable[UploadLine] | AsyncIterable[UploadLine],
) -> AsyncIterator[UploadLine]:
    if isinstance(products, AsyncIterable):
        async for product in products:
            yield product
    else:
        for product in products:
            yield product
