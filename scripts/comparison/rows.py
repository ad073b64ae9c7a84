"""Rows: medians over the rounds, ratios, marks, and the tables that are printed."""

import fractions
import statistics
import tomllib

from .brokers import PEERS
from .rounds import STEAL_MAX

COUNTS = ["lost", "dropped", "duplicated", "reordered", "corrupt", "astray"]


def summaries(results, counted):
    """One row for each broker in each scenario."""
    return [
        summary(name, scenario, outcomes, counted.get(scenario, {}).get(name, (None, None)))
        for scenario, peers in results.items()
        for name, outcomes in peers.items()
    ]


def summary(name, scenario, outcomes, counts):
    """Medians over the rounds; what a broker did not do in a round is no part of them."""

    def figures(read):
        values = [value for value in map(read, outcomes) if value is not None]
        return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None

    latency = lambda key: lambda outcome: (outcome["latency"] or {}).get(key)
    above_0 = lambda key: lambda outcome: outcome[key] or None
    return {
        "scenario": scenario,
        "broker": name,
        "figures": {
            "out_per_s": figures(above_0("out_per_s")),
            "cpu_us": figures(above_0("cpu_us_per_message")),
            "cpu_us_at_rate": figures(above_0("cpu_us_per_message_at_rate")),
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
    }
    counts = {reason: sum(map(holds, outcomes)) for reason, holds in reasons.items()}
    return {reason: count for reason, count in counts.items() if count}


def median(row, key):
    return row["figures"][key]["median"] if row and row["figures"][key] else None


def print_rows(rows, rounds, base_name):
    """All figures. Ratios are to the broker `base_name` in the same scenario."""
    head = ["scenario", "broker", "out msg/s", "CPU us/msg", f"of {base_name}", "at rate", "p50 us", "p99 us", "p99.9 us"]
    head += ["msg/recv", "msg/send", "RSS MiB", "faults", "marked rounds"]
    lines = [head]
    for row in rows:
        base = find(rows, row["scenario"], base_name)
        number = lambda key, text, scale=1: text.format(median(row, key) / scale) if median(row, key) is not None else "-"
        count = lambda key: f"{row[key]:,.1f}" if row[key] else "-"
        key = "cpu_us" if median(row, "cpu_us") else "cpu_us_at_rate"
        lines.append(
            [
                row["scenario"], row["broker"], number("out_per_s", "{:,.0f}"), number("cpu_us", "{:.3f}"),
                ratio_text(ratio(row, base, key)), number("cpu_us_at_rate", "{:.2f}"), number("p50_us", "{:,.0f}"),
                number("p99_us", "{:,.0f}"), number("p999_us", "{:,.0f}"), count("per_receive"), count("per_send"),
                number("resident_size", "{:.1f}", 1 << 20), str(sum(row["faults"].values())),
                " ".join(f"{reason} {count}/{rounds}" for reason, count in row["marks"].items()),
            ]
        )  # fmt: skip
    print_lines(lines, 2, {13})
    print()
    print("generator: its core was busy and the broker's was not. waiting: neither was. contested: other programs used their")
    print("cores. steal: the hypervisor did. CPU per message holds in the first two. '-': not measured, or cannot be known here.")
    for row in rows:
        for failure in row["failures"]:
            print(f"FAILED {row['scenario']} with {row['broker']}: {failure}")


def find(rows, scenario, broker):
    return next((row for row in rows if (row["scenario"], row["broker"]) == (scenario, broker)), None)


def ratio(row, base, key):
    one, other = median(row, key), median(base, key)
    return one / other if one is not None and other else None


def ratio_text(value):
    if value is None:
        return "-"
    return f"1/{1 / value:.1f}" if value < 0.5 else f"{value:.2f}"


def table_rows(name):
    """What a file of targets in bench/peers compares."""
    rows = tomllib.loads((PEERS / name).read_text())["row"]
    defaults = {"measure": "cpu_us", "broker": "ringmq"}
    for row in rows:
        for key, value in defaults.items():
            row.setdefault(key, value)
        if "ratio_max" in row:
            row.setdefault("base", "mosquitto")
            row.setdefault("base_scenario", row["scenario"])
    return rows


def table_pairs(rows):
    """The scenarios that the table needs, each with its brokers."""
    pairs = {}
    for row in rows:
        pairs.setdefault(row["scenario"], {"mosquitto"}).add(row["broker"])
        if "base" in row:
            pairs.setdefault(row["base_scenario"], set()).add(row["base"])
        if "floor_ratio_max" in row:
            pairs[row["scenario"]].add("floor")
    return pairs


def judge(table, rows):
    """The table with what was found: each row gets `value`, `base_value`, `ratio`, `target` and `holds`."""
    judged = []
    for target in table:
        row = find(rows, target["scenario"], target["broker"])
        value = median(row, target["measure"])
        found = dict(target, value=value, base_value=None, ratio=None, holds=None)
        if "max" in target:
            found["target"] = target["max"]
            found["base_value"] = median(find(rows, target["scenario"], "mosquitto"), target["measure"])
            found["holds"] = None if value is None else value <= float(target["max"])
        else:
            base = find(rows, target["base_scenario"], target["base"])
            found["base_value"] = median(base, target["measure"])
            found["target"] = target["ratio_max"]
            if value is not None and found["base_value"]:
                found["ratio"] = value / found["base_value"]
                found["holds"] = found["ratio"] <= float(fractions.Fraction(target["ratio_max"]))
        if "floor_ratio_max" in target:
            over_floor(target, found, median(find(rows, target["scenario"], "floor"), target["measure"]))
        judged.append(found)
    return judged


def over_floor(target, found, floor):
    """The row holds too if the broker is near enough to the floor."""
    found["target"] += f" or {target['floor_ratio_max']} x floor"
    if found["value"] is not None and floor:
        found["floor_ratio"] = found["value"] / floor
        found["holds"] = bool(found["holds"]) or found["floor_ratio"] <= float(target["floor_ratio_max"])


def print_judged(judged):
    lines = [["row", "broker", "figure", "base", "its figure", "ratio", "at most", "holds"]]
    for row in judged:
        digits = 3 if row["measure"].startswith("cpu") else 1
        number = lambda value: "-" if value is None else f"{value:,.{digits}f}"
        ratios = ratio_text(row["ratio"])
        if "floor_ratio" in row:
            ratios += f" ({row['floor_ratio']:.2f} x floor)"
        base = row.get("base", "mosquitto")
        if row.get("base_scenario", row["scenario"]) != row["scenario"]:
            base += f", {row['base_scenario']}"
        holds = {True: "yes", False: "NO", None: "-"}[row["holds"]]
        lines.append([row["about"], row["broker"], number(row["value"]), base, number(row["base_value"]), ratios, row["target"], holds])
    print_lines(lines, 2, {3})
    held = sum(row["holds"] is True for row in judged)
    print(f"\n{held} of {len(judged)} hold")


def print_lines(lines, left_count, also_left):
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        is_left = lambda column: column < left_count or column in also_left
        cells = [cell.ljust(width) if is_left(at) else cell.rjust(width) for at, (cell, width) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())
