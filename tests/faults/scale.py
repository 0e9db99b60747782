"""Sizes of the fault suite: short for every change, full for a release."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Size of each check.

    Attributes:
        name: ``short`` (all checks within some 7 minutes) or ``full`` (within 2 hours).
        acknowledgements: of writes, over all kills.
        kills: of the database and of processes, at random moments.
        worker_kills: of each worker, under load.
        reloads: rolling ones, under load.
        requests: through nginx during kills and reloads.
        deadlocks: forced ones.
        resets: of connections between service and database.
        slow_clients: connections of each kind: heads, bodies, readers.
        idle_clients: idle connections through nginx.
        cases: generated requests for each operation of the OpenAPI document.
        machine_runs: runs of the state machines on each engine.
        machine_steps: steps of each run.
        generated_requests: requests compared between the engines.
        fast_path_requests: requests that fast path and framework answer alike.
        mutated_files: imported on each engine.
        fuzz_inputs: inputs for each parser.
        warm_up_requests: before the mixed load; see ``test_soak.WARM_UP``.
        soak_seconds: of mixed load.
        timeout_seconds: time-out of one check, unless it has one of its own.
        grace_seconds: allowance on each deadline, for network round trip and rendering; more in the
            short form, which runs on machines of any speed, beside other work.
        recovery_seconds: from the database's return to the first success.
        latency_factor: maximum ratio of p99 under attack to p99 without.
        added_ms: maximum latency that a failed store adds, in milliseconds.
    """

    name: str
    acknowledgements: int
    kills: int
    worker_kills: int
    reloads: int
    requests: int
    deadlocks: int
    resets: int
    slow_clients: int
    idle_clients: int
    cases: int
    machine_runs: int
    machine_steps: int
    generated_requests: int
    fast_path_requests: int
    mutated_files: int
    fuzz_inputs: int
    warm_up_requests: int
    soak_seconds: int
    timeout_seconds: int
    grace_seconds: float
    recovery_seconds: float
    latency_factor: float
    added_ms: float


SHORT = Scale(
    name="short",
    acknowledgements=2_000,
    kills=2,
    worker_kills=2,
    reloads=2,
    requests=4_000,
    deadlocks=20,
    resets=100,
    slow_clients=100,
    idle_clients=500,
    cases=10,
    machine_runs=10,
    machine_steps=30,
    generated_requests=200,
    fast_path_requests=500,
    mutated_files=300,
    fuzz_inputs=5_000,
    warm_up_requests=200,
    soak_seconds=10,
    timeout_seconds=600,
    grace_seconds=1.5,
    recovery_seconds=6.0,
    latency_factor=5.0,
    added_ms=8.0,
)

FULL = Scale(
    name="full",
    acknowledgements=50_000,
    kills=10,
    worker_kills=20,
    reloads=20,
    requests=100_000,
    deadlocks=500,
    resets=1_000,
    slow_clients=500,
    idle_clients=10_000,
    cases=2_000,
    machine_runs=500,
    machine_steps=50,
    generated_requests=5_000,
    fast_path_requests=20_000,
    mutated_files=20_000,
    fuzz_inputs=500_000,
    warm_up_requests=65_000,
    soak_seconds=1_800,
    timeout_seconds=3_600,
    grace_seconds=0.2,
    recovery_seconds=2.0,
    latency_factor=2.0,
    added_ms=5.0,
)
