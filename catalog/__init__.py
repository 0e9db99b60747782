"""A catalog microservice: users and products over HTTP, with JWT sign-in, that never blocks."""

from importlib.metadata import version

__version__ = version("catalog")
