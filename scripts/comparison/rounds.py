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

from .brokers import UNSEEN_MAX, release
from .processes import NotReady

# Length of the run in which receives and sends are counted, seconds.
COUNT_S = 1.0

# A run that takes longer than this and so many times its length is stuck, seconds: 10,000 connections take their time.
BENCH_S = 240
BENCH_LENGTHS = 20

# A hypervisor that takes more of the time of the cores than this takes part in the run.
STEAL_MAX = 0.02


def scenario_settings(names, further):
    """What the bench will do in each of the scenarios, with its `further` options."""
    command = [release("ringmq-bench"), "--list", "--json"] + [part for name in names for part in ("--scenario", name)]
    listing = subprocess.run(command + further, stdout=subprocess.PIPE)
    if listing.returncode != 0:
        sys.exit(listing.returncode)
    return dict(zip(names, json.loads(listing.stdout)))


class Results:
    """What came of the rounds: outcomes and failures by scenario and broker."""

    def __init__(self):
        self.outcomes = {}
        # Words for the table and a sentence, where a broker has no outcome at all; and sentences on single rounds.
        self.not_run = []
        self.counted = {}
        self.interrupted = False

    def add(self, scenario, broker, outcome):
        self.outcomes.setdefault(scenario, {}).setdefault(broker.name, []).append(outcome)

    def leave_out(self, scenario, broker, words, sentence):
        entry = {"scenario": scenario, "broker": broker.name, "words": words, "sentence": sentence, "rounds": 1}
        for known in self.not_run:
            if all(known[key] == entry[key] for key in ("scenario", "broker", "words")):
                known["rounds"] += 1
                return
        self.not_run.append(entry)

    def runs(self, scenario, broker):
        return self.outcomes.get(scenario, {}).get(broker.name, [])


def run_all(options, brokers, scenarios, round_counts, results):
    """Measures. `round_counts(scenario, broker)` says how many rounds a pair gets: 0 is none."""
    last = max((round_counts(scenario, broker) for scenario in scenarios for broker in brokers), default=0)
    for round_number in range(1, last + 1):
        for scenario, settings in scenarios.items():
            # Who comes first changes from round to round: the machine may warm up or tire.
            turns = brokers if round_number % 2 else list(reversed(brokers))
            for broker in turns:
                if round_counts(scenario, broker) < round_number:
                    continue
                cannot = what_it_lacks(broker, settings)
                if cannot:
                    if round_number == 1:
                        results.leave_out(scenario, broker, cannot, f"{broker.name} does not speak {cannot.removeprefix('no ')}")
                    continue
                print(f"round {round_number} of {last}: {scenario}, {broker.name}", file=sys.stderr, flush=True)
                try:
                    outcome = measure(options, broker, scenario, settings, options.seconds)
                except NotReady as failure:
                    print(f"compare: {failure}", file=sys.stderr)
                    results.leave_out(scenario, broker, failure.words, str(failure))
                else:
                    results.add(scenario, broker, outcome)


def what_it_lacks(broker, settings):
    """Why a broker cannot do a scenario, in a few words; `None` if it can."""
    protocol = 5 if settings["mqtt"] >= 5 else 3
    if protocol not in broker.mqtt:
        return "no MQTT 5.0" if protocol == 5 else "no MQTT 3.1.1"
    if settings["qos"] > broker.qos_max:
        return f"no QoS {settings['qos']}"
    return None


def measure(options, broker, scenario, settings, seconds, watch=None):
    """One run of a scenario against a broker that has just been started. Returns the bench's outcome; `NotReady` if the broker
    did not start or did not last."""
    with tempfile.TemporaryDirectory(dir=scratch(), ignore_cleanup_errors=True) as folder:
        # Mosquitto gives up root before it reads.
        os.chmod(folder, 0o755)
        running = broker.start(options.core, folder)
        stopped = None
        try:
            pinned = cores_of(running.pid) == {options.core}
            watched = watch(running.pid) if watch else None
            before, used = cpu_times(), running.processor_times()
            outcome = run_bench(options, running, scenario, settings, seconds)
            outcome["steal"] = steal_since(before)
            outcome["counts"] = watched() if watched else None
            outcome["pinned"] = pinned
            outcome["unseen"] = running.unseen_since(used)
            if outcome["unseen"]["part"] > UNSEEN_MAX:
                forget_processor_time(outcome)
            outcome["version"] = broker.description()["version"]
        finally:
            stopped = running.stop()
        outcome["stopped"] = stopped
        return outcome


def forget_processor_time(outcome):
    """ringmq-bench measures one process: where others did part of the work its figure is not the broker's."""
    for part in (outcome, *outcome.get("runs", [])):
        forget(part, ("cpu_us_per_message", "cpu_us_per_message_at_rate", "broker_cores_used", "resident_size", "resident_size_max"))
        for point in part.get("series") or []:
            forget(point, ("broker_cores", "resident_size"))
    outcome["measures"] = [entry for entry in outcome.get("measures", []) if entry["name"] not in OF_THE_PROCESS]


def forget(part, keys):
    part.update({key: None for key in keys if key in part})


def cores_of(pid):
    try:
        return os.sched_getaffinity(pid)
    except ProcessLookupError:
        # What became of it is said when the run is over.
        return set()


OF_THE_PROCESS = (
    "memory per idle connection",
    "processor time while idle",
    "memory per connection",
    "processor time while they stay",
)


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
    bench = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=pin, start_new_session=True
    )
    try:
        printed, said = bench.communicate(timeout=BENCH_S + BENCH_LENGTHS * seconds)
    except subprocess.TimeoutExpired:
        raise NotReady("stuck", f"{running.name}: the run of {scenario} did not end") from None
    finally:
        # Also when this process is told to end.
        if bench.poll() is None:
            bench.kill()
            bench.communicate()
    ended = running.how_it_ended()
    if ended:
        raise NotReady("died", ended)
    if bench.returncode not in (0, 1):
        why = said.decode(errors="replace").strip() or f"ringmq-bench ended with {bench.returncode}"
        raise NotReady("failed", f"{running.name}, {scenario}: {why}")
    try:
        return json.loads(printed)["scenarios"][0]["outcome"]
    except (ValueError, LookupError) as wrong:
        raise NotReady("failed", f"{running.name}, {scenario}: ringmq-bench printed no result") from wrong


def count_all(options, brokers, scenarios, results):
    """Messages per receive and per send of each broker in each scenario, as {scenario: {broker: (received, sent)}}, `None` where
    the machine cannot count them."""
    if not can_count():
        print("receives and sends are not counted: perf with the kernel's sock:* tracepoints is needed (as root)", file=sys.stderr)
        return
    for scenario in results.outcomes:
        for broker in brokers:
            if not results.runs(scenario, broker):
                continue
            print(f"counting receives and sends: {scenario}, {broker.name}", file=sys.stderr, flush=True)
            try:
                outcome = measure(options, broker, scenario, scenarios[scenario], COUNT_S, watch_sockets)
            except NotReady as failure:
                print(f"compare: {failure}", file=sys.stderr)
                continue
            counts = outcome["counts"]
            per = lambda messages, calls: messages / calls if messages and calls else None
            if counts:
                pair = (per(outcome["sent"], counts[0]), per(outcome["delivered"], counts[1]))
                results.counted.setdefault(scenario, {})[broker.name] = pair


# Counted in the kernel, for system calls and io_uring alike; what brought nothing is left out.
EVENTS = ["sock:sock_recv_length", "sock:sock_send_length"]


def watch_sockets(pid):
    """Counts the receives and sends of a process until the returned function is called."""
    command = ["perf", "stat", "--field-separator", ",", "--pid", str(pid)]
    for event in EVENTS:
        command += ["--event", event, "--filter", "ret > 0"]
    perf = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
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
