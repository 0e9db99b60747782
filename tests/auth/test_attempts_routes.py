"""Refused passwords: each is recorded as what it is, and stays refused."""

import pytest
from structlog.testing import capture_logs

from catalog.auth.audit import Audit
from catalog.auth.routes.attempts import recording
from catalog.auth.service import Attempt
from catalog.errors import CatalogError, LoginThrottled, NotFound, WrongCredentials, WrongPassword
from tests.support import handling

UNKNOWN = Attempt(account=None, subject="ada", refusal=None)
AS_SIGN_IN = {"failed": Audit.SIGN_IN_FAILED, "blocked": Audit.SIGN_IN_BLOCKED}


class TestRecording:
    @pytest.mark.parametrize(
        ("error", "events"),
        [
            (WrongCredentials(), ["sign_in_failed"]),
            (WrongPassword(), ["sign_in_failed"]),
            (LoginThrottled("Later.", retry_after_seconds=1), ["sign_in_blocked"]),
            (NotFound(), []),
        ],
        ids=lambda value: getattr(value, "slug", None),
    )
    def test_refusal_is_recorded_and_raised(self, error: CatalogError, events: list[str]) -> None:
        with (
            handling(),
            capture_logs() as logs,
            pytest.raises(type(error)),
            recording(UNKNOWN, **AS_SIGN_IN),
        ):
            raise error

        assert [(line["event"], line["user_id"]) for line in logs] == [
            (event, None) for event in events
        ]

    def test_success_is_not_recorded(self) -> None:
        with handling(), capture_logs() as logs, recording(UNKNOWN, **AS_SIGN_IN):
            pass

        assert not logs
