"""Load by ``wrk`` on one contestant at a time.

wrk keeps its connections busy: each sends the next request as soon as it is answered. The scripts
that it runs are generated here.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tests.load.clients import output_of, threads_for
from tests.load.contestants import Contestant
from tests.load.measured import Measured, Meter

TIMEOUT_SECONDS = 10
"""Answers that take longer count as failures and in no percentile."""

CREATES_EVERY = 20
"""Every n-th request of the mix is a create."""

BODY = {
    "name": "Walnut lamp, 20 cm",
    "price": 24.9,
    "description": "Made of oak that ages well. Arrives within 2 days.",
}
"""As long as a sample product, so that pages keep their size."""

_SETUP = """
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end
"""

# Rejections are immediate, so with a share s of them 99 % of the accepted requests are within the
# percentile s + 0.99 (1 - s) of all: an upper bound, as some above it may be rejections.
_DONE = """
function done(summary, latency, requests)
  local e = summary.errors
  local all = math.max(summary.requests, 1)
  local accepted = (e.status + 0.99 * (all - e.status)) / all
  io.write(string.format('\\n{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, '
    .. '"accepted_p99": %d, "refused": %d, "failed": %d}\\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(100 * accepted), e.status,
    e.connect + e.read + e.write + e.timeout))
end
"""

# Each page once before any repeats; each thread and each turn starts at another page.
_RANDOM = """
local requests, at = {{}}, 0
function init(arguments)
  for path in io.lines({paths}) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
  math.randomseed(os.time() + 7919 * number)
  at = math.random(#requests)
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"""

_CREATE = """
wrk.method = "POST"
wrk.body = {body}
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = {authorization}
"""

# Each change is one: its price differs from all before it, by the second of the turn and the number
# of the request. A product is changed by one connection at a time, with the tag of the answer
# before, and rests until all others have had their turn. Products whose answers are missing, as
# after an error, come back when the queue is empty.
_EDIT = """
local tags, queue, first, last = {{}}, {{}}, 1, 0
local turn, sent = os.time() % 1000, 0
local headers = {{["Content-Type"] = "application/json", ["Authorization"] = {authorization}}}
local function add(id)
  last = last + 1
  queue[last] = id
end
local function add_all()
  for id in pairs(tags) do add(id) end
end
function init(arguments)
  headers["Host"] = wrk.headers["Host"]
  local line = 0
  for text in io.lines({tags}) do
    line = line + 1
    if line % {threads} == number then
      local id, tag = text:match("^(%d+) (.*)$")
      tags[id] = tag
    end
  end
  add_all()
end
function request()
  if first > last then add_all() end
  local id = queue[first]
  queue[first] = nil
  first = first + 1
  headers["If-Match"] = tags[id]
  sent = sent + 1
  local body = string.format('{{"price": %d.%06d}}', turn, sent)
  return wrk.format("PATCH", "/api/products/" .. id, headers, body)
end
function response(status, fields, body)
  local id = status == 200 and body:match('"id": ?(%d+)')
  if id then
    tags[id] = fields["ETag"] or fields["etag"] or fields["Etag"]
    add(id)
  end
end
"""

# Each product once, by one of the threads; from the beginning when they run out.
_DELETE = """
local paths, at = {{}}, 0
local headers = {{["Authorization"] = {authorization}}}
function init(arguments)
  headers["Host"] = wrk.headers["Host"]
  local line = 0
  for path in io.lines({paths}) do
    line = line + 1
    if line % {threads} == number then paths[#paths + 1] = path end
  end
end
function request()
  at = at % #paths + 1
  return wrk.format("DELETE", paths[at], headers)
end
"""

_AUTHORIZED = """
wrk.method = {method}
wrk.headers["Authorization"] = {authorization}
"""

_MIX = """
local page, create, at = nil, nil, 0
function init(arguments)
  page = wrk.format("GET", {path})
  create = wrk.format("POST", "/api/products",
    {{["Content-Type"] = "application/json", ["Authorization"] = {authorization},
      ["Host"] = wrk.headers["Host"]}}, {body})
end
function request()
  at = at + 1
  return at % {every} == 0 and create or page
end
"""

# Follows the script of random pages, whose function it replaces.
_DEEP_MIX = """
local read, sent, create = request, 0, nil
function request()
  if not create then
    create = wrk.format("POST", "/api/products",
      {{["Content-Type"] = "application/json", ["Authorization"] = {authorization},
        ["Host"] = wrk.headers["Host"]}}, {body})
  end
  sent = sent + 1
  return sent % {every} == 0 and create or read()
end
"""

# wrk asks for the delay before it selects a connection, so another connection than the rejected one
# may pause; only the number of pauses matters, which equals that of rejections.
_OBEDIENT = """
local refused, pause = 0, 0
function response(status, headers)
  if status == 503 then
    refused = refused + 1
    for name, value in pairs(headers) do
      if name:lower() == "retry-after" then pause = 1000 * tonumber(value) end
    end
  end
end
function delay()
  if refused == 0 then return 0 end
  refused = refused - 1
  return pause
end
"""


@dataclass(frozen=True)
class Script:
    """Requests to send.

    Attributes:
        path: the URL's path and query.
        text: Lua code besides the code that counts answers.
    """

    path: str
    text: str = ""

    def obedient(self) -> "Script":
        """Return the script with clients that heed ``Retry-After``."""
        return Script(self.path, self.text + _OBEDIENT)

    async def put_on(
        self, contestant: Contestant, *, connections: int, seconds: int, folder: Path
    ) -> Measured:
        """Generate load; see ``Traffic``."""
        file = folder / "script.lua"
        file.write_text(self.text + _DONE)
        meter = Meter(contestant)
        output = await output_of(
            *("wrk", f"-t{threads_for(connections)}", f"-c{connections}", f"-d{seconds}s"),
            *(f"--timeout={TIMEOUT_SECONDS}s", "-s", str(file), contestant.url + self.path),
        )
        try:
            told = json.loads(output.splitlines()[-1])
        except (ValueError, IndexError):
            raise click.ClickException(f"wrk printed something else:\n{output}") from None
        own, machine = meter.a_request(max(told["requests"], 1))
        return Measured(
            requests=told["requests"],
            seconds=told["microseconds"] / 1e6,
            cpu_us=own,
            machine_us=machine,
            p50=told["p50"] / 1000,
            p99=told["p99"] / 1000,
            accepted_p99=told["accepted_p99"] / 1000,
            refused=told["refused"],
            failed=told["failed"],
        )


def page(path: str) -> Script:
    """Return a script that repeats one page."""
    return Script(path)


def random_pages(paths: Sequence[str], file: Path) -> Script:
    """Return a script for all pages in a fixed shuffled order, kept in a file."""
    shuffled = list(paths)
    random.Random(0).shuffle(shuffled)  # noqa: S311 (repeatable is what it must be)
    file.write_text("".join(f"{path}\n" for path in shuffled))
    return Script(paths[0], _SETUP + _RANDOM.format(paths=_quoted(str(file))))


def create(token: str) -> Script:
    """Return a script that creates a product with each request."""
    return Script("/api/products", _CREATE.format(**_creating(token)))


def edit(tags: Mapping[int, str], token: str, file: Path, *, threads: int) -> Script:
    """Return a script that changes the prices of products in a shuffled order.

    Args:
        tags: the current entity tags of the products, at least as many as connections.
        token: of their owner.
        file: to keep the tags in.
        threads: of wrk, which share the products.
    """
    shuffled = list(tags.items())
    random.Random(0).shuffle(shuffled)  # noqa: S311 (repeatable is what it must be)
    file.write_text("".join(f"{number} {tag}\n" for number, tag in shuffled))
    authorization = _quoted(f"Bearer {token}")
    text = _EDIT.format(tags=_quoted(str(file)), authorization=authorization, threads=threads)
    return Script("/api/products", _SETUP + text)


def delete(paths: Sequence[str], token: str, file: Path, *, threads: int) -> Script:
    """Return a script that deletes each product once.

    Args:
        paths: of the products. Each thread deletes its share in their order.
        token: of their owner.
        file: to keep the paths in.
        threads: of wrk, which share the products.
    """
    file.write_text("".join(f"{path}\n" for path in paths))
    authorization = _quoted(f"Bearer {token}")
    text = _DELETE.format(paths=_quoted(str(file)), authorization=authorization, threads=threads)
    return Script(paths[0], _SETUP + text)


def authorized(method: str, path: str, token: str) -> Script:
    """Return a script that repeats a request with a token."""
    authorization = _quoted(f"Bearer {token}")
    return Script(path, _AUTHORIZED.format(method=_quoted(method), authorization=authorization))


def deep_mix(pages: Script, token: str) -> Script:
    """Return a script that requests random pages, with occasional creates."""
    text = _DEEP_MIX.format(every=CREATES_EVERY, **_creating(token))
    return Script(pages.path, pages.text + text)


def mix(path: str, token: str) -> Script:
    """Return a script that repeats one page, with occasional creates."""
    return Script(path, _MIX.format(path=_quoted(path), every=CREATES_EVERY, **_creating(token)))


def _creating(token: str) -> dict[str, str]:
    return {"body": _quoted(json.dumps(BODY)), "authorization": _quoted(f"Bearer {token}")}


def _quoted(text: str) -> str:
    # JSON escapes are valid in Lua: the texts hold no slashes and only ASCII.
    return json.dumps(text)
