"""The journey with the package that openapi-python-client generates."""

import json
import os
from typing import Any

from generated import AuthenticatedClient, Client
from generated.api.auth import log_in, log_out, read_account, sign_up
from generated.api.products import (
    change_product,
    create_product,
    delete_product,
    list_my_products,
    list_products,
)
from generated.models import (
    ListMyProductsFieldsItem,
    ListMyProductsSort,
    LogIn,
    ProductCreate,
    ProductUpdate,
    SignUp,
)
from generated.types import UNSET


def main() -> None:
    """Take the journey, and print what happened."""
    url, username = os.environ["CATALOG_URL"], os.environ["CATALOG_USERNAME"]
    password = "correct horse"
    anyone = Client(base_url=url)
    account = SignUp(username=username, email=f"{username}@example.com", password=password)
    sign_up.sync(client=anyone, body=account)
    signed_in: Any = log_in.sync(client=anyone, body=LogIn(username=username, password=password))
    client = AuthenticatedClient(base_url=url, token=signed_in.access_token)

    made = []
    for name in ("Lamp", "Chair", "Table"):
        created: Any = create_product.sync_detailed(
            client=client, body=ProductCreate(name=name, price=24.9)
        )
        made.append(created.parsed.id)
    etag = created.headers["ETag"]

    two: Any = list_products.sync(client=anyone, ids=made[:2])
    names = [ListMyProductsFieldsItem.ID, ListMyProductsFieldsItem.NAME]
    few: Any = list_my_products.sync(client=client, fields=names, limit=1)

    walked, cursor = 0, UNSET
    while True:
        page: Any = list_my_products.sync(
            client=client, limit=2, cursor=cursor, sort=ListMyProductsSort.PRICE
        )
        walked += len(page.products)
        cursor = page.next_cursor
        if cursor is None:
            break

    patch: Any = {"client": client, "body": ProductUpdate(price=19.5), "if_match": etag}
    patched: Any = change_product.sync(made[2], **patch)
    stale: Any = change_product.sync(made[2], **patch)
    deleted: Any = delete_product.sync(made[2], client=client)
    logged_out = log_out.sync_detailed(client=client)
    after: Any = read_account.sync(client=client)

    outcome = {
        "listed": [product.name for product in two.products],
        "fields": list(few.products[0].to_dict()),
        "walked": walked,
        "patched": patched.price,
        "stale": stale.code,
        "deleted": deleted.id == made[2],
        "logged_out": logged_out.status_code,
        "after": after.code,
    }
    print(json.dumps(outcome))  # noqa: T201 (read by the test)


if __name__ == "__main__":
    main()
