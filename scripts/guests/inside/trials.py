"""Runs in the guest: every trial in every world, a line on the console for each.

    trials.py uring,epoll [--trial=WORDS_OF_ITS_NAME]...

A line is `@ WORLD | TRIAL | ok, FAILED or SKIPPED | SECONDS | DETAIL`; lines that begin with `|` explain a failure."""

import itertools
import os
import sys
import threading
import time
import traceback
from functools import partial

import bench
import bridges
import clients
import start
import take_over
from trial import Trial, World

# RingMQ needs what io_uring can do since then.
URING_SINCE = (6, 1)
TRIAL_MAX_S = 120
EXPLAINED_LINES = 60
# What is longer stands in the explanation.
DETAIL_MAX = 300

# Trials of a group run side by side: they wait more than they work.
GROUPS = [
    [("check", start.check)],
    *[[(f"bench {name}", partial(bench.scenario, name=name))] for name in bench.SCENARIOS],
    [
        *[(f"mosquitto {version}", partial(clients.mosquitto, version=version)) for version in clients.VERSIONS],
        *[(f"paho {script}", partial(clients.paho, script=script)) for script in clients.PAHO_SCRIPTS],
    ],
    [("take-over in turn", take_over.in_turn)],
    [("take-over at once", take_over.at_once)],
    [("bridge", bridges.both_ways)],
]

numbers = itertools.count(1)
printing = threading.Lock()


def main():
    names = sys.argv[1].split(",")
    asked = [word.partition("=")[2].replace("_", " ") for word in sys.argv if word.startswith("--trial=")]
    release = os.uname().release
    has_uring = tuple(int(part) for part in release.split(".")[:2]) >= URING_SINCE
    for name in names:
        world = World(name)
        if name == "uring" and not has_uring:
            run_together(world, [("refused", start.refused)])
            run_together(World("auto"), [("falls back", start.falls_back)])
        else:
            for group in GROUPS:
                run_together(world, [one for one in group if not asked or any(words in one[0] for words in asked)])
    print("@ all trials done", flush=True)


def run_together(world, group):
    threads = []
    for name, run in group:
        trial = Trial(world, name, next(numbers))
        thread = threading.Thread(target=attempt, args=(trial, run), daemon=True)
        thread.start()
        threads.append((trial, thread))
    ends = time.monotonic() + TRIAL_MAX_S
    for trial, thread in threads:
        thread.join(max(0, ends - time.monotonic()))
        if thread.is_alive() and trial.end():
            with printing:
                explain(trial, f"the trial took over {TRIAL_MAX_S} s")
                tell(world, trial.name, "FAILED", TRIAL_MAX_S, "it hangs")


def attempt(trial, run):
    began = time.monotonic()
    wrong = None
    try:
        verdict, detail = "ok", run(trial)
    except Exception as raised:  # one trial's failure must not hide the next one's
        verdict, detail, wrong = "FAILED", f"{type(raised).__name__}: {raised}", traceback.format_exc()
    if trial.end():
        with printing:
            if wrong:
                explain(trial, wrong)
            tell(trial.world, trial.name, verdict, time.monotonic() - began, detail)


def explain(trial, wrong):
    said = "".join(f"{program.name} said:\n{program.said()}\n" for program in trial.programs)
    for line in [*wrong.splitlines()[-EXPLAINED_LINES:], *said.splitlines()[-EXPLAINED_LINES:]]:
        print(f"| {line}")


def tell(world, name, verdict, seconds, detail):
    detail = " ".join(str(detail).split())[:DETAIL_MAX]
    print(f"@ {world.name} | {name} | {verdict} | {seconds:.1f} | {detail}", flush=True)


if __name__ == "__main__":
    main()
