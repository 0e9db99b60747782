"""Text exposition of the metrics, in the format that a scraper accepts."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from catalog.observability.metrics import REGISTRY, SHARED


def exposition(accept: str) -> tuple[bytes, str]:
    """Render the metrics of all workers of the instance.

    Reads and sums a few files per worker, which takes milliseconds; call it in a thread.

    Args:
        accept: the scraper's ``Accept``: Prometheus' text format unless it asks for OpenMetrics.

    Returns:
        the text and its media type.
    """
    registry = REGISTRY
    if SHARED is not None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(SHARED.folder))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type
