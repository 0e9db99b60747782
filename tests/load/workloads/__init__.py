"""Workloads of the benchmark: a function each, in the module of its area."""

from collections.abc import Awaitable, Callable

from tests.load.workloads import account, bulk, followers, overload, pages, resources, writes
from tests.load.workloads.turns import Turns

APART = ("idle", "size")
"""Workloads that start servers of their own: while no others run, and with other databases."""

WORKLOADS: dict[str, Callable[[Turns], Awaitable[None]]] = {
    "hot": pages.hot,
    "log": pages.log,
    "random": pages.random_pages,
    "memory": resources.memory,
    "logins": account.log_ins,
    "account": account.account,
    "overload": overload.overload,
    "one": pages.one,
    "changes": pages.changes,
    "search": pages.search,
    "export": bulk.export,
    "sse": followers.sse,
    "create": writes.create,
    "edit": writes.edit,
    "mix": writes.mix,
    "deep-mix": writes.deep_mix,
    "tls": pages.over_tls,
    "import": bulk.import_products,
}
"""In the order of their runs: those that write come last, so that the first page still equals
nginx's file."""
