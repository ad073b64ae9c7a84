"""Scenarios of ringmq-bench against 7 shards: every message is verified, speed means nothing here."""

import json

from trial import CORES, SHARDS

SCENARIOS = [
    "fan-out", "fan-in", "p2p-qos0", "p2p-qos1", "p2p-qos2", "p2p-qos0-v5", "p2p-qos0-4k", "shared", "wildcards", "connect-churn",
]  # fmt: skip
# The bench fails when a measured run has delivered nothing: long enough for large messages on a busy machine.
SECONDS = "1.5"
WARM_UP_S = "0.3"
PATIENCE_S = 100


def scenario(trial, name):
    command = [
        "ringmq-bench", "--shards", str(SHARDS), "--cores", CORES, "--scenario", name, "--seconds", SECONDS,
        "--warm-up", WARM_UP_S, "--rate", "0", "--json", *trial.world.options,
    ]  # fmt: skip
    done = trial.run(command, patience_s=PATIENCE_S)
    assert done.returncode == 0, f"it ended with {done.returncode}: {outcome(done.stdout)} {done.stderr[-2000:]}"
    return outcome(done.stdout)


def outcome(text):
    try:
        found = json.loads(text)["scenarios"][0]["outcome"]
    except (ValueError, LookupError):
        return text[-500:]
    faults = {name: count for name, count in found["faults"].items() if count}
    # The bench leaves the key out when there are none.
    failures = "; ".join(["", *found.get("failures", [])])
    return f"{found['delivered']} delivered; {faults or 'no faults'}{failures}"
