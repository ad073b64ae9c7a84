"""The grid of `scripts/compare --relay`, from bench/peers/relay.toml: its rows, its scenarios, and whom it compares."""

import json
import sys
import tomllib

from . import brokers, rounds


def grid():
    return tomllib.loads((brokers.PEERS / "relay.toml").read_text())


def rows(wanted=None):
    """One for each of the clients, each QoS and each batch, or those whose names begin like one of `wanted`."""
    asked = grid()
    cells = [(clients, qos, batch) for clients in asked["clients"] for qos in asked["qos"] for batch in asked["batch"]]
    found = [row(asked, *cell) for cell in cells]
    chosen = [row for row in found if not wanted or any(row["scenario"].startswith(begin) for begin in wanted)]
    if not chosen:
        sys.exit(f"--scenario {' '.join(wanted)}: no row of bench/peers/relay.toml begins so: {', '.join(row['scenario'] for row in found)}")
    return chosen


def row(asked, clients, qos, batch):
    count = batch["messages"]
    about = f"{clients['about']}, QoS {qos}, {count} a write"
    name = f"{clients['name']}-qos{qos}-batch-{count}"
    settings = {**clients, "name": name, "about": about, "qos": qos, "batch": count, "window": batch["window"], "payload": asked["payload"]}
    return {
        "about": about,
        "scenario": name,
        "measure": "cpu_us",
        "broker": "ringmq",
        "base": "relay",
        "base_scenario": name,
        "ratio_max": asked["ratio_max"],
        "settings": settings,
    }


def write(targets):
    """A file for each row, as ringmq-bench takes it: {scenario: file}."""
    folder = rounds.scratch() / "relay"
    folder.mkdir(exist_ok=True)
    files = {}
    for target in targets:
        file = folder / f"{target['scenario']}.toml"
        # Texts and lists of texts are in JSON what they are in TOML.
        file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in target["settings"].items()))
        files[target["scenario"]] = str(file)
    return files


def scenarios(targets, further):
    """What ringmq-bench will do in each row, with its `further` options."""
    files = write(targets)
    settings = rounds.scenario_settings(list(files.values()), further)
    return {name: {**settings[file], "file": file} for name, file in files.items()}


def subjects():
    return [brokers.ringmq(options=grid()["options"]), brokers.relay()]
