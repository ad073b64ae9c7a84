"""Rounds: every broker in turn in every scenario, and once more to count what it receives and sends."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from .brokers import release

# Length of the run in which receives and sends are counted, seconds.
COUNT_S = 1.0

# A hypervisor that takes more of the time of the cores than this takes part in the run.
STEAL_MAX = 0.02


def scenario_settings(names, further):
    """What the bench will do in each of the scenarios, with its `further` options."""
    command = [release("ringmq-bench"), "--list", "--json"] + [part for name in names for part in ("--scenario", name)]
    listing = subprocess.run(command + further, stdout=subprocess.PIPE)
    if listing.returncode != 0:
        sys.exit(listing.returncode)
    return dict(zip(names, json.loads(listing.stdout)))


def run_all(options, brokers, scenarios, wanted):
    """Measures; `wanted(scenario, broker)` says which pairs. Returns outcomes as {scenario: {broker: [outcome]}}."""
    results = {name: {} for name in scenarios}
    for round_number in range(1, options.rounds + 1):
        for scenario, settings in scenarios.items():
            # Who comes first changes from round to round: the machine may warm up or tire.
            turns = brokers if round_number % 2 else list(reversed(brokers))
            for broker in turns:
                if not wanted(scenario, broker) or not can(broker, settings):
                    continue
                print(f"round {round_number} of {options.rounds}: {scenario}, {broker.name}", file=sys.stderr)
                outcome = measure(options, broker, scenario, settings, options.seconds)
                results[scenario].setdefault(broker.name, []).append(outcome)
    return {scenario: peers for scenario, peers in results.items() if peers}


def can(broker, settings):
    return (broker.speaks_5 or settings["mqtt"] < 5) and (broker.speaks_qos or settings["qos"] == 0)


def measure(options, broker, scenario, settings, seconds, watch=None):
    """One run of a scenario against a broker that has just been started. Returns the bench's outcome."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        # Mosquitto gives up root before it reads.
        os.chmod(folder, 0o755)
        try:
            running = broker.start(options.core, folder)
        except RuntimeError as failure:
            sys.exit(f"compare: {failure}")
        try:
            watched = watch(running.pid) if watch else None
            before = cpu_times()
            outcome = run_bench(options, running, scenario, settings, seconds)
            outcome["steal"] = steal_since(before)
            outcome["counts"] = watched() if watched else None
            return outcome
        finally:
            running.stop()


def scratch():
    """Where temporary files go: below target/, on the repository's disk."""
    place = pathlib.Path(__file__).resolve().parent.parent.parent / "target" / "compare"
    place.mkdir(parents=True, exist_ok=True)
    return place


def run_bench(options, running, scenario, settings, seconds):
    command = [release("ringmq-bench"), "--broker", f"127.0.0.1:{running.port}", "--pid", str(running.pid)]
    command += ["--json", "--seconds", str(seconds), "--scenario", settings.get("file", scenario)] + options.bench
    if options.flat_out_only and settings["flat_out"] and "--rate" not in options.bench:
        command += ["--rate", "0"]
    cores = os.sched_getaffinity(0) - {options.core}
    pin = lambda: os.sched_setaffinity(0, cores)
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=pin)
    if run.returncode not in (0, 1):
        sys.exit(f"ringmq-bench ended with {run.returncode}: {run.stderr.decode(errors='replace').strip()}")
    return json.loads(run.stdout)["scenarios"][0]["outcome"]


def count_all(options, brokers, scenarios, results):
    """Messages per receive and per send of each broker in each scenario: {scenario: {broker: (received, sent)}}, `None` where
    the machine cannot count them."""
    if not can_count():
        print("receives and sends are not counted: perf with the kernel's sock:* tracepoints is needed (as root)", file=sys.stderr)
        return {}
    counted = {}
    for scenario, peers in results.items():
        for broker in brokers:
            if broker.name not in peers:
                continue
            print(f"counting receives and sends: {scenario}, {broker.name}", file=sys.stderr)
            outcome = measure(options, broker, scenario, scenarios[scenario], COUNT_S, watch_sockets)
            counts = outcome["counts"]
            per = lambda messages, calls: messages / calls if messages and calls else None
            if counts:
                pair = (per(outcome["sent"], counts[0]), per(outcome["delivered"], counts[1]))
                counted.setdefault(scenario, {})[broker.name] = pair
    return counted


# Counted in the kernel, for system calls and io_uring alike; what brought nothing is left out.
EVENTS = ["sock:sock_recv_length", "sock:sock_send_length"]


def watch_sockets(pid):
    """Counts the receives and sends of a process until the returned function is called."""
    command = ["perf", "stat", "--field-separator", ",", "--pid", str(pid)]
    for event in EVENTS:
        command += ["--event", event, "--filter", "ret > 0"]
    perf = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(0.3)

    def stop():
        perf.send_signal(signal.SIGINT)
        text = perf.communicate()[1].decode()
        counts = {}
        for line in text.splitlines():
            fields = line.split(",")
            if len(fields) > 2 and fields[2] in EVENTS and fields[0].isdigit():
                counts[fields[2]] = int(fields[0])
        return tuple(counts[event] for event in EVENTS) if len(counts) == 2 else None

    return stop


def can_count():
    if not shutil.which("perf"):
        return False
    probe = ["perf", "stat", "--event", EVENTS[0], "--filter", "ret > 0", "true"]
    return subprocess.run(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def cpu_times():
    """All processor time so far and what the hypervisor took of it, in ticks of all cores."""
    fields = [int(text) for text in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(fields[:8]), fields[7]


def steal_since(before):
    total, steal = (now - then for now, then in zip(cpu_times(), before))
    return steal / total if total else 0.0
