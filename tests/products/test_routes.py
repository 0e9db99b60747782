"""``/api/products`` over HTTP: who may do what, and what comes back."""

from tests.support import Caller, problem_of


class TestDeleteProduct:
    async def test_owner_withdraws_it_once(self, ada: Caller) -> None:
        lamp = (await ada.offer("Lamp")).json["id"]

        first = await ada.delete(lamp)
        second = await ada.delete(lamp)

        assert first.status_code == 200
        assert first.json == {"message": f"Product {lamp} deleted.", "id": lamp}
        assert problem_of(second) == (404, "not-found")

    async def test_stranger_is_refused_and_it_stays(self, ada: Caller, bob: Caller) -> None:
        lamp = (await ada.offer("Lamp")).json["id"]

        assert problem_of(await bob.delete(lamp)) == (403, "forbidden")
        assert (await ada.delete(lamp)).status_code == 200

    async def test_administrator_withdraws_anyones(self, ada: Caller, admin: Caller) -> None:
        lamp = (await ada.offer("Lamp")).json["id"]

        assert (await admin.delete(lamp)).status_code == 200
        assert problem_of(await ada.delete(lamp)) == (404, "not-found")

    async def test_nobody_is_not_somebody(self, ada: Caller, anyone: Caller) -> None:
        lamp = (await ada.offer("Lamp")).json["id"]

        assert problem_of(await anyone.delete(lamp)) == (401, "token-missing")
