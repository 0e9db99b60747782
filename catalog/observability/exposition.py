"""The metrics as text, in the format that a scraper asks for."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from catalog.observability.metrics import REGISTRY, SHARED


def exposition(accept: str) -> tuple[bytes, str]:
    """The numbers of all workers of the instance.

    It reads a few files for each worker and adds them up, which takes milliseconds, so it belongs
    into a thread.

    Args:
        accept: what the scraper can read: Prometheus' text, or OpenMetrics if it says so.

    Returns:
        the text and its media type.
    """
    registry = REGISTRY
    if SHARED is not None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(SHARED.folder))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type
