"""The caller's own things: products, account, tokens; and log-ins beside reads."""

from catalog.auth.seed_data import username_of
from tests.load import wrk
from tests.load.contestants import CATALOG, EARLIER, HOT_PATH, LIMIT, PASSWORD, Contestant
from tests.load.report import LogIns
from tests.load.sign_in import Load, login_of, percentile
from tests.load.workloads.turns import FEWEST, Turns, say
from tests.load.wrk import Script

ACCOUNTS = 300
LOG_IN_CLIENTS = 4
LISTS_A_SECOND = 50


async def account(turns: Turns) -> None:
    """Request the caller's products and account, and refresh its access token."""

    def reading(path: str, contestant: Contestant) -> Script:
        return wrk.authorized("GET", path, turns.token(contestant))

    def refreshing(contestant: Contestant) -> Script:
        return wrk.authorized("POST", "/api/auth/refresh", contestant.refresh_token())

    own = f"/api/products/my?limit={LIMIT}"
    names = turns.with_accounts
    await turns.rates("my", names, lambda each: reading(own, each), usual=FEWEST)
    await turns.rates("me", names, lambda each: reading("/api/auth/me", each), usual=FEWEST)
    await turns.rates("refresh", names, refreshing, usual=FEWEST)


async def log_ins(turns: Turns) -> None:
    """Log in at full speed beside reads at a moderate rate."""
    names = turns.present(CATALOG, EARLIER, "obvious")
    requests = [login_of(username_of(number), PASSWORD) for number in range(1, ACCOUNTS + 1)]
    seconds = turns.options.seconds
    for number in range(1, turns.options.rounds + 1):
        for name in names:
            contestant = turns.contestants[name]
            load = Load(contestant.url, HOT_PATH, LISTS_A_SECOND, LOG_IN_CLIENTS, seconds, requests)
            try:
                alone = await load.run(with_log_ins=False)
                beside = await load.run(with_log_ins=True)
            except (OSError, EOFError) as error:
                say(f"{contestant.title}: {error!r}")
                continue
            outcomes = alone.outcomes + beside.outcomes
            wrong = sum(outcomes.values()) - outcomes["list 200"] - outcomes["log-in 200"]
            turns.results.log_ins.append(
                LogIns(
                    name=name,
                    rate=len(beside.log_ins) / seconds,
                    p50=percentile(beside.log_ins, 50),
                    p99=percentile(beside.log_ins, 99),
                    calm_p99=percentile(alone.lists, 99),
                    list_p50=percentile(beside.lists, 50),
                    list_p99=percentile(beside.lists, 99),
                    failed=wrong,
                )
            )
            say(f"logins, round {number}: {contestant.title}")
