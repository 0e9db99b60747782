"""Choice of a store by its URL."""

from catalog.http.limit_store import MemoryStore, create_store
from catalog.settings import Settings
from tests.http.limit_store.stores import HOURLY, opened
from tests.http.redis_server import RedisServer


class TestCreateStore:
    async def test_url_selects_the_shared_store(self, redis: RedisServer) -> None:
        url = Settings(limits_url=redis.url.replace("redis:", "valkey:")).limits_url  # type: ignore[arg-type]  # parsed

        async with opened(create_store(url)) as store:
            await store.hit(HOURLY, "ada")
            keys = await redis.ask("KEYS", "*ada*")

        assert keys

    def test_local_store_is_the_default(self) -> None:
        assert isinstance(create_store(None), MemoryStore)
