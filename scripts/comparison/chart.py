"""Draws what `scripts/compare` wrote: chart.py FILE.json FILE.svg [SCENARIO...]. Runs in a Python that has matplotlib, see
`plot`."""

import json
import pathlib
import subprocess
import sys
import textwrap

sys.dont_write_bytecode = True

TOOLS = pathlib.Path(__file__).resolve().parent.parent.parent / "target" / "tools"
MATPLOTLIB_VERSION = "3.10.0"

WIDTH = 9.6
# Of a line, which is one broker in one scenario, and of what each panel has besides, inches.
LINE = 0.235
GAP = 0.16
PANEL = 1.15
LABEL_WIDTH = 38


def plot(script, *arguments):
    """Runs `script` in an environment with matplotlib below target/, made if it is absent. `False`, with a word on why, if it
    cannot be made or the script fails."""
    python = TOOLS / "python" / "bin" / "python"
    probe = [python, "-c", "import matplotlib"]
    if not python.exists() or subprocess.run(probe, stderr=subprocess.DEVNULL).returncode != 0:
        make = [sys.executable, "-m", "venv", TOOLS / "python"]
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"matplotlib=={MATPLOTLIB_VERSION}"]
        for command in (make, install):
            if subprocess.run(command).returncode != 0:
                print("SKIPPED the chart: matplotlib cannot be installed", file=sys.stderr)
                return False
    return subprocess.run([python, script, *arguments]).returncode == 0


class Panel:
    """One quantity: its heading, the axis in words, and how it is read from an outcome of a scenario."""

    def __init__(self, heading, axis, read):
        self.heading = heading
        self.axis = axis
        self.read = read

    def values(self, report, scenario, broker):
        settings = report["settings"].get(scenario, {})
        found = (self.read(outcome, settings) for outcome in report["outcomes"].get(scenario, {}).get(broker, []))
        return [value for value in found if value]


def flat_out(kind):
    return lambda outcome, settings: outcome["cpu_us_per_message"] if settings.get("kind", "traffic") == kind else None


def at_rate(outcome, settings):
    # Only where the rate is what the scenario is for.
    return None if settings.get("flat_out", True) else outcome["cpu_us_per_message_at_rate"]


def latency(outcome, settings):
    return (outcome["latency"] or {}).get("p99_us")


def measured(name, scale):
    def read(outcome, settings):
        return next((entry["value"] * scale for entry in outcome.get("measures", []) if entry["name"] == name), None)

    return read


BETTER = "lower is better"
PANELS = [
    Panel("CPU of the broker, flat out", f"microseconds of CPU for each delivered message, logarithmic ({BETTER})", flat_out("traffic")),
    Panel("CPU of the broker, at a fixed rate", f"microseconds of CPU for each delivered message, logarithmic ({BETTER})", at_rate),
    Panel("99th percentile of latency, at a fixed rate", f"microseconds from when a message was due, logarithmic ({BETTER})", latency),
    Panel("CPU of the broker, connections", f"microseconds of CPU for each connection, logarithmic ({BETTER})", flat_out("connect-storm")),
    Panel(
        "Memory of the broker, idle connections", f"bytes for each connection, logarithmic ({BETTER})", measured("memory per idle connection", 1024)
    ),
]


def main():
    source, target, *only = sys.argv[1:]
    report = json.loads(pathlib.Path(source).read_text())
    scenarios = [name for name in report["settings"] if not only or name in only]
    brokers = list(dict.fromkeys(broker for name in scenarios for broker in report["outcomes"].get(name, {})))
    panels = [(panel, lines_of(panel, report, scenarios, brokers)) for panel in PANELS]
    panels = [(panel, lines) for panel, lines in panels if lines]
    if not panels:
        sys.exit(f"{source} has nothing that can be drawn")
    draw_all(report, panels, brokers, target)


def lines_of(panel, report, scenarios, brokers):
    """Scenarios with their brokers and the values of each round, from above to below."""
    found = []
    for scenario in scenarios:
        own = [(broker, panel.values(report, scenario, broker)) for broker in brokers]
        own = [(broker, values) for broker, values in own if values]
        if own:
            found.append((scenario, own))
    return found


def draw_all(report, panels, brokers, target):
    import drawing

    heights = [PANEL + sum(LINE * len(own) + GAP for _, own in lines) for _, lines in panels]
    figure = drawing.pyplot.figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, (panel, lines) in zip(axes, panels):
        draw(drawing, axis, panel, lines, report, brokers)
    handles = [
        drawing.pyplot.Line2D([], [], linestyle="", marker=drawing.marker(name, at), color=drawing.colour(name, at), label=labelled(report, name))
        for at, name in enumerate(brokers)
    ]
    labels = [handle.get_label() for handle in handles]
    drawing.heading(figure, "RingMQ and other brokers on one core", handles, labels, min(4, len(handles)))
    figure.supxlabel(drawing.note(report, remarks(report, panels)), x=0.01, ha="left", fontsize=7.5, color=drawing.SOFT)
    drawing.save(figure, target, report, "RingMQ and other brokers")


def labelled(report, name):
    version = report.get("brokers", {}).get(name, {}).get("version")
    return f"{name} {version}" if version else name


def remarks(report, panels):
    import drawing

    text = drawing.rounds((len(values) for _, lines in panels for _, own in lines for _, values in own), report["seconds"])
    # Before the generator was measured its time was kept as 0.
    blind = {
        panel.heading for panel, lines in panels for scenario, own in lines for broker, _ in own
        if not any(outcome.get("generator_cores_used") for outcome in report["outcomes"][scenario][broker] if outcome.get("sent"))
        and any(outcome.get("sent") for outcome in report["outcomes"][scenario][broker])
    }
    if blind:
        text += f" The generator was not measured{'' if len(blind) == len(panels) else ' where messages are published'}."
    if not any("batches" in outcome for peers in report["outcomes"].values() for outcomes in peers.values() for outcome in outcomes):
        text += " Flat out many messages went together in a write; how many was not measured."
    if report.get("interrupted"):
        text += " The run was interrupted."
    return text


def draw(drawing, axis, panel, lines, report, brokers):
    """A line for each broker in each scenario, on a logarithmic axis: equal steps are equal ratios."""
    import statistics

    at, places, labels, borders = 0.0, [], [], []
    low = min(min(values) for _, own in lines for _, values in own)
    high = max(max(values) for _, own in lines for _, values in own)
    for scenario, own in lines:
        first = at
        for broker, values in own:
            number = brokers.index(broker)
            style = dict(marker=drawing.marker(broker, number), color=drawing.colour(broker, number), linestyle="")
            axis.plot([min(values), max(values)], [at, at], color=style["color"], linewidth=1, alpha=0.45)
            axis.plot(values, [at] * len(values), **style, markersize=3, alpha=0.6)
            median = statistics.median(values)
            axis.plot([median], [at], **style, markersize=7)
            place = dict(xytext=(7, 0), textcoords="offset points", va="center", fontsize=8, color=style["color"])
            axis.annotate(drawing.number(median), (max(values), at), **place)
            at += 1
        places.append((first + at - 1) / 2)
        labels.append(words(scenario, report["settings"][scenario]))
        at += GAP / LINE
        borders.append(at - (1 + GAP / LINE) / 2)
    for border in borders[:-1]:
        axis.axhline(border, color="0.85", linewidth=0.8)
    axis.set_yticks(places, labels)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(at - GAP / LINE - 0.3, -0.7)
    axis.set_xscale("log")
    # Room for the numbers behind the last marks.
    span = max(high / low, 1.5)
    axis.set_xlim(low / span**0.06, high * span**0.14)
    drawing.logarithmic(axis.xaxis, low, high)
    drawing.plain(axis)
    axis.grid(False, axis="y")
    axis.set_title(panel.heading, fontsize=10.5, loc="left", fontweight="bold", color=drawing.INK)
    axis.set_xlabel(panel.axis, fontsize=8.5, color=drawing.INK)


def words(scenario, settings):
    """What a scenario is about, in lines that fit beside the axis."""
    text = settings.get("words") or settings.get("about") or scenario
    # What belongs together stays together.
    for unit in ("QoS", "MQTT", "batch"):
        text = text.replace(unit + " ", unit + "\N{NO-BREAK SPACE}")
    text = text.replace(" KiB", "\N{NO-BREAK SPACE}KiB").replace(" B,", "\N{NO-BREAK SPACE}B,")
    return "\n".join(textwrap.wrap(text, LABEL_WIDTH))


if __name__ == "__main__":
    main()
