"""ASGI middleware around the framework; it applies to requests that never reach a route, too."""
