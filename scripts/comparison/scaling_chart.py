"""Draws what `scripts/scaling` wrote: scaling_chart.py FILE.json FILE.svg."""

import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("svg")
# The same data gives the same file.
matplotlib.rcParams["svg.hashsalt"] = "ringmq"
from matplotlib import pyplot, ticker


def main():
    source, target = sys.argv[1:]
    report = json.loads(pathlib.Path(source).read_text())
    axes_used = list(dict.fromkeys(point["axis"] for point in report["points"]))
    figure, panels = pyplot.subplots(2, len(axes_used), figsize=(3.9 * len(axes_used), 6.6), sharex="col", sharey="row", squeeze=False)
    for column, axis_name in enumerate(axes_used):
        own = [point for point in report["points"] if point["axis"] == axis_name]
        draw_times(panels[0][column], axis_name, own)
        draw_instructions(panels[1][column], axis_name, own)
        panels[1][column].set_xlabel(axis_name + ("" if axis_name == "shards" else f", {own[0]['shards']} shards"))
    panels[0][0].set_ylabel("nanoseconds a delivered message")
    panels[1][0].set_ylabel("instructions a delivered message")
    for panel in panels.flat:
        panel.set_ylim(bottom=0)
        panel.grid(True, color="0.9")
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="upper center", ncols=2, frameon=False)
    machine = report["machine"]
    note = f"{report['date']}, {report['commit']}; {machine['processor']}, Linux {machine['kernel']}; core alone, one thread; "
    note += f"medians of {report['rounds']} rounds, from the least to the most"
    figure.text(0.01, 0.005, note, fontsize=7, color="0.35")
    figure.tight_layout(rect=(0, 0.02, 1, 0.95))
    figure.savefig(target, metadata={"Date": None})


def lines(own):
    """The points of each number of receivers."""
    for at, receivers in enumerate(sorted({point["receivers"] for point in own})):
        label = f"{receivers} receivers of a topic, on two shards"
        yield f"C{at}", label, [point for point in own if point["receivers"] == receivers]


def scale(panel, axis_name, own):
    panel.set_xscale("log", base=2 if axis_name == "shards" else 10)
    panel.set_xticks(sorted({point[axis_name] for point in own}))
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.xaxis.set_minor_formatter(ticker.NullFormatter())


def draw_times(panel, axis_name, own):
    for color, label, points in lines(own):
        medians = [statistics.median(point["nanoseconds"]) for point in points]
        below = [median - min(point["nanoseconds"]) for median, point in zip(medians, points)]
        above = [max(point["nanoseconds"]) - median for median, point in zip(medians, points)]
        sizes = [point[axis_name] for point in points]
        panel.errorbar(sizes, medians, yerr=[below, above], fmt="o-", color=color, label=label, markersize=4, capsize=2, linewidth=1)
    scale(panel, axis_name, own)


def draw_instructions(panel, axis_name, own):
    for color, label, points in lines(own):
        counted = [point for point in points if "instructions" in point]
        panel.plot([point[axis_name] for point in counted], [point["instructions"] for point in counted], "o-", color=color, label=label, markersize=4, linewidth=1)
    scale(panel, axis_name, own)


if __name__ == "__main__":
    main()
