"""Rows: medians over the rounds, ratios, marks, and the tables that are printed."""

import fractions
import statistics
import tomllib

from .brokers import UNSEEN_MAX
from .peer_file import PEERS
from .rounds import STEAL_MAX
from .table import print_notes, print_table

COUNTS = ["lost", "dropped", "duplicated", "reordered", "corrupt", "astray"]


def summaries(results):
    """One row for each broker in each scenario."""
    return [
        summary(name, scenario, outcomes, results.counted.get(scenario, {}).get(name, (None, None)))
        for scenario, peers in results.outcomes.items()
        for name, outcomes in peers.items()
    ]


def summary(name, scenario, outcomes, counts):
    """Medians over the rounds; what a broker did not do in a round is no part of them."""

    # A run that failed is no round: what it came to until then is no figure.
    good = [outcome for outcome in outcomes if not outcome.get("failures")]

    def figures(read):
        values = [value for value in map(read, good) if value is not None]
        return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None

    latency = lambda key: lambda outcome: (outcome["latency"] or {}).get(key)
    above_0 = lambda key: lambda outcome: outcome[key] or None
    batch = lambda run, key: lambda outcome: outcome[run][key]
    return {
        "scenario": scenario,
        "broker": name,
        "rounds": len(good),
        "figures": {
            "out_per_s": figures(above_0("out_per_s")),
            "cpu_us": figures(above_0("cpu_us_per_message")),
            "cpu_us_at_rate": figures(above_0("cpu_us_per_message_at_rate")),
            "per_write": figures(batch("batches", "messages_per_write")),
            "per_read": figures(batch("batches", "messages_per_read")),
            "per_write_at_rate": figures(batch("batches_at_rate", "messages_per_write")),
            "per_read_at_rate": figures(batch("batches_at_rate", "messages_per_read")),
            "p50_us": figures(latency("p50_us")),
            "p99_us": figures(latency("p99_us")),
            "p999_us": figures(latency("p999_us")),
            "resident_size": figures(above_0("resident_size")),
            "connection_size": figures(lambda outcome: measure(outcome, "memory per idle connection", 1024)),
            "idle_percent": figures(lambda outcome: measure(outcome, "processor time while idle", 1)),
        },
        "per_receive": counts[0],
        "per_send": counts[1],
        "faults": {key: sum(outcome["faults"][key] for outcome in outcomes) for key in COUNTS},
        "failures": sorted({failure for outcome in outcomes for failure in outcome.get("failures", [])}),
        "marks": marks(outcomes),
    }


def measure(outcome, name, scale):
    found = [entry["value"] for entry in outcome.get("measures", []) if entry["name"] == name]
    return found[0] * scale if found else None


def marks(outcomes):
    """What must be known of the rounds: how many of them were held back by something else than the broker."""
    reasons = {
        "generator": lambda outcome: "generator" in (outcome["bound"], outcome["bound_at_rate"]),
        "waiting": lambda outcome: outcome["bound"] == "waiting",
        "contested": lambda outcome: outcome["contested"] or outcome["contested_at_rate"],
        "steal": lambda outcome: outcome["steal"] > STEAL_MAX,
        "several processes": lambda outcome: outcome.get("unseen", {}).get("part", 0) > UNSEEN_MAX,
        "not pinned": lambda outcome: not outcome.get("pinned", True),
        "killed": lambda outcome: outcome.get("stopped") is not None,
    }
    counts = {reason: sum(map(holds, outcomes)) for reason, holds in reasons.items()}
    return {reason: count for reason, count in counts.items() if count}


def median(row, key):
    # Runs that were kept before a figure was measured do not have it.
    found = row["figures"].get(key) if row else None
    return found["median"] if found else None


# What was measured flat out and of the whole scenario; at the fixed rate; what the kernel counted of the broker, and the marks.
GROUPS = [
    ["out msg/s", "CPU us", "ratio", "/write", "/read", "MiB", "faults"],
    ["at rate CPU us", "/write", "/read", "p50 us", "p99 us", "p99.9 us"],
    ["msg/recv", "msg/send", "marked rounds"],
]


def print_rows(report, base_name):
    """All figures. Ratios are to the broker `base_name` in the same scenario."""
    rows, not_run = report["rows"], report.get("not_run", [])
    order = list(report.get("brokers", {}))
    sections = {}
    for row in rows:
        base = find(rows, row["scenario"], base_name)
        run = (row["broker"], row_cells(row, base, rounds_of(row, report)))
        sections.setdefault(row["scenario"], []).append(run)
    blank = [""] * (sum(map(len, GROUPS)) - 1)
    for entry in not_run:
        if not find(rows, entry["scenario"], entry["broker"]):
            sections.setdefault(entry["scenario"], []).append((entry["broker"], blank + [entry["words"]]))
    for runs in sections.values():
        runs.sort(key=lambda run: order.index(run[0]) if run[0] in order else -1)
    scenarios = [name for name in report["settings"] if name in sections]
    print_table(GROUPS, [(name, report["settings"][name].get("words", ""), sections[name]) for name in scenarios])
    print()
    print_notes(
        f"CPU us: of the broker, a delivered message; ratio: of it to {base_name}'s. /write: messages a write of the generator; "
        "/read: messages a read at a subscriber: what the broker has put together, or more where the generator was the limit. "
        "msg/recv, msg/send: published messages a receive and delivered ones a send of the broker.",
        "generator: its core was busy and the broker's was not. waiting: neither was. contested: other programs used their cores. "
        "steal: the hypervisor did. CPU per message holds in the first two. several processes: other processes of the broker than the "
        "measured one took part, so that its processor time is not known. not pinned: it chose its cores itself. killed: it did not end "
        "when it was told to. '-': not measured, or cannot be known here.",
        *(f"FAILED {row['scenario']} with {row['broker']}: {failure}" for row in rows for failure in row["failures"]),
        *(f"NOT RUN{times(entry, rows, report)}: {entry['scenario']} with {entry['broker']}: {entry['sentence']}" for entry in not_run),
    )


def times(entry, rows, report):
    """In how many rounds of several a broker did not run."""
    row = find(rows, entry["scenario"], entry["broker"])
    whole = entry["rounds"] + (rounds_of(row, report) if row else 0)
    return f" in {entry['rounds']} of {whole} rounds" if row else ""


def rounds_of(row, report):
    return row.get("rounds", report["rounds"])


def row_cells(row, base, rounds):
    number = lambda key, text="{:,.0f}", scale=1: text.format(median(row, key) / scale) if median(row, key) is not None else "-"
    batch = lambda key: batch_text(median(row, key))
    count = lambda key: f"{row[key]:,.1f}" if row[key] else ""
    key = "cpu_us" if median(row, "cpu_us") else "cpu_us_at_rate"
    ratios = ratio_text(ratio(row, base, key))
    cells = [number("out_per_s"), number("cpu_us", "{:.3f}"), ratios, batch("per_write"), batch("per_read")]
    cells += [number("resident_size", "{:.1f}", 1 << 20), f"{sum(row['faults'].values()):,}"]
    at_rate = [number("cpu_us_at_rate", "{:.2f}"), batch("per_write_at_rate"), batch("per_read_at_rate")]
    at_rate += [number("p50_us"), number("p99_us"), number("p999_us")]
    cells += at_rate if any(cell != "-" for cell in at_rate) else [""] * len(at_rate)
    marks = ", ".join(f"{reason} {count}/{rounds}" for reason, count in row["marks"].items())
    return cells + [count("per_receive"), count("per_send"), marks]


def batch_text(value):
    """How many messages go together."""
    return "-" if value is None else f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def find(rows, scenario, broker):
    return next((row for row in rows if (row["scenario"], row["broker"]) == (scenario, broker)), None)


def ratio(row, base, key):
    one, other = median(row, key), median(base, key)
    return one / other if one is not None and other else None


def ratio_text(value):
    if value is None:
        return "-"
    return f"1/{1 / value:.1f}" if value < 0.5 else f"{value:.2f}"


# Of a row that says nothing else.
ROUNDS_DEFAULT = 5

KEYS = {"about", "scenario", "measure", "broker", "base", "base_scenario", "ratio_max", "max", "relay_ratio_max", "rounds"}


def table_rows(name):
    """What a file of targets in bench/peers compares."""
    rows = tomllib.loads((PEERS / name).read_text())["row"]
    defaults = {"measure": "cpu_us", "broker": "ringmq"}
    for row in rows:
        unknown = set(row) - KEYS
        assert not unknown, f"bench/peers/{name}: there is no key {unknown} in a row"
        for key, value in defaults.items():
            row.setdefault(key, value)
        if "max" not in row:
            row.setdefault("base", "mosquitto")
            row.setdefault("base_scenario", row["scenario"])
    return rows


def table_pairs(rows):
    """The scenarios that the table needs, each with its brokers and the rounds of each."""
    pairs = {}

    def ask(scenario, broker, rounds):
        brokers = pairs.setdefault(scenario, {})
        brokers[broker] = max(brokers.get(broker, 0), rounds)

    for row in rows:
        rounds = row.get("rounds", ROUNDS_DEFAULT)
        ask(row["scenario"], "mosquitto", rounds)
        ask(row["scenario"], row["broker"], rounds)
        if "base" in row:
            ask(row["base_scenario"], row["base"], rounds)
        if "relay_ratio_max" in row:
            ask(row["scenario"], "relay", rounds)
    return pairs


def judge(table, rows):
    """The table with what was found: each row gets `value`, `base_value`, `ratio`, `target` and `holds`."""
    judged = []
    for target in table:
        row = find(rows, target["scenario"], target["broker"])
        value = median(row, target["measure"])
        found = dict(target, value=value, base_value=None, ratio=None, holds=None)
        run = "_at_rate" if row and not median(row, "per_write") else ""
        found["per_write"], found["per_read"] = median(row, "per_write" + run), median(row, "per_read" + run)
        if "max" in target:
            base = find(rows, target["scenario"], "mosquitto")
            found["target"] = target["max"]
            found["base_value"] = median(base, target["measure"])
            found["holds"] = None if value is None else value <= float(target["max"])
        else:
            base = find(rows, target["base_scenario"], target["base"])
            found["base_value"] = median(base, target["measure"])
            found["target"] = target.get("ratio_max", "-")
            if value is not None and found["base_value"]:
                found["ratio"] = value / found["base_value"]
                if "ratio_max" in target:
                    found["holds"] = found["ratio"] <= float(fractions.Fraction(target["ratio_max"]))
        if "relay_ratio_max" in target:
            over_relay(target, found, median(find(rows, target["scenario"], "relay"), target["measure"]))
        say_rounds(target, found, row, base if "base" in target else None)
        judged.append(found)
    return judged


def over_relay(target, found, relay):
    """The row holds too if the broker is near enough to the relay."""
    found["target"] += f" or {target['relay_ratio_max']} x relay"
    if found["value"] is not None and relay:
        found["relay_ratio"] = found["value"] / relay
        found["holds"] = bool(found["holds"]) or found["relay_ratio"] <= float(target["relay_ratio_max"])


def say_rounds(target, found, row, base):
    """How far the rounds lie apart, how many there were, and in how many the machine was not quiet."""
    both = [side for side in (row, base) if side]
    found["rounds_done"] = min((side["rounds"] for side in both), default=0)
    spread = lambda side: [side["figures"][target["measure"]][key] for key in ("min", "max")] if median(side, target["measure"]) is not None else None
    found["spread"], found["base_spread"] = spread(row), spread(base)
    unquiet = {}
    for side in both[:1] if row is base else both:
        for reason in UNQUIET:
            if reason in side["marks"]:
                unquiet.setdefault(side["broker"], []).append(f"{reason} {side['marks'][reason]}/{side['rounds']}")
    found["unquiet"] = unquiet
    # A row that names its rounds holds over as many, and over fewer nobody knows.
    if found["rounds_done"] < target.get("rounds", 0):
        found["holds"] = None


# Marks of a machine that did something else meanwhile.
UNQUIET = ("contested", "steal")


def print_judged(judged):
    """Each target with what was found, and whether it holds."""
    sections = []
    for row in judged:
        digits = 3 if row["measure"].startswith("cpu") else 1
        number = lambda value: "-" if value is None else f"{value:,.{digits}f}"
        base = row.get("base", "mosquitto")
        if row.get("base_scenario", row["scenario"]) != row["scenario"]:
            base += f", {row['base_scenario']}"
        holds = {True: "yes", False: "NO", None: "-"}[row["holds"]]
        cells = [number(row["value"]), number(row["base_value"]), "of " + base, ratio_text(row["ratio"]), row["target"], holds]
        # Runs that were kept call the relay the floor.
        relay = row.get("relay_ratio", row.get("floor_ratio"))
        batches = ["" if row.get(key) is None else batch_text(row[key]) for key in ("per_write", "per_read")]
        spreads = [spread_text(row.get(key), number) if "rounds" in row else "" for key in ("spread", "base_spread")]
        last = ["" if relay is None else f"{relay:.2f}", *spreads, rounds_text(row)]
        sections.append((row["about"], unquiet_text(row.get("unquiet", {})), [(row["broker"], cells + batches + last)]))
    print_table([HOLDS, ["/write", "/read", "x relay"], ["from, to", "base from, to", "rounds"]], sections)
    held = sum(row["holds"] is True for row in judged)
    have = sum(row["target"] != "-" for row in judged)
    print(f"\n{held} of {have} hold")
    if any("rounds" in row for row in judged):
        print_notes(
            "from, to: the least and the most of the rounds. not quiet: rounds in which other programs (contested) or the "
            "hypervisor (steal) used the cores."
        )


HOLDS = ["figure", "to", "", "ratio", "at most", "holds"]


def spread_text(spread, number):
    return f"{number(spread[0])} - {number(spread[1])}" if spread else ""


def rounds_text(row):
    """Rounds of a row that names them: what it has, of what it needs."""
    if "rounds" not in row or "rounds_done" not in row:
        return ""
    done, needed = row["rounds_done"], row["rounds"]
    return f"{done} of {needed}" if done < needed else f"{done}"


def unquiet_text(unquiet):
    found = "; ".join(f"{broker} {', '.join(marks)}" for broker, marks in unquiet.items())
    return f"not quiet: {found}" if found else ""
