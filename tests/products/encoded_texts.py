"""Texts of products as the servers select them."""

REST = ("1", "2", "2026-11-23 09:30:00.000001", "2026-11-23 09:30:00.000002")
SHOWN = (1, 2, "2026-11-23T09:30:00.000001Z", "2026-11-23T09:30:00.000002Z")


def text_of(name: str, description: str | None, price: float, key: str | None) -> bytes:
    """Return the text that the servers select for a product with ``REST``."""
    quoted = ["null" if text is None else f'"{text}"' for text in (name, description, key)]
    # The servers write no fraction of whole numbers.
    digits = f"{price:.0f}" if price.is_integer() else repr(price)
    user_id, version, *instants = REST
    created_at, updated_at = (f'"{each}Z"' for each in instants)
    end = f',"user_id":{user_id},"version":{version},"created_at":{created_at}'
    end += f',"updated_at":{updated_at}}}'
    return "\0".join((',{"id":7,"name":', *quoted[:2], digits, quoted[2], end)).encode()
