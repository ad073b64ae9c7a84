"""Draws what `scripts/scaling` wrote: scaling_chart.py FILE.json FILE.svg."""

import json
import pathlib
import statistics
import sys

sys.dont_write_bytecode = True

import drawing

WIDTH = 4.9
HEIGHT = 3.1

AXES = {"shards": "shards of the broker", "sessions": "sessions", "filters": "filters"}
MARKERS = "osD"
BETTER = "lower is better"


def main():
    source, target = sys.argv[1:]
    report = json.loads(pathlib.Path(source).read_text())
    axes_used = list(dict.fromkeys(point["axis"] for point in report["points"]))
    draws = [draw_times] + [draw_instructions] * any("instructions" in point for point in report["points"])
    figure = drawing.pyplot.figure(figsize=(WIDTH * len(draws), HEIGHT * len(axes_used) + 0.9), layout="constrained")
    panels = figure.subplots(len(axes_used), len(draws), sharex="row", sharey="col", squeeze=False)
    for row, axis_name in zip(panels, axes_used):
        own = [point for point in report["points"] if point["axis"] == axis_name]
        for panel, draw in zip(row, draws):
            draw(panel, own)
            scale(panel, axis_name, own)
            panel.set_xlabel(label(axis_name, own[0]), fontsize=9)
    for row in panels:
        for panel, words in zip(row, ("nanoseconds of CPU", "instructions")):
            panel.set_ylabel(f"{words} for each\ndelivered message ({BETTER})", fontsize=9)
            drawing.plain(panel)
            panel.tick_params(labelbottom=True, labelleft=True)
    # Room for the numbers over the highest points.
    for panel in panels[0]:
        panel.set_ylim(0, panel.get_ylim()[1] * 1.12)
    drawing.heading(figure, "What a delivered message costs all shards together", *panels[0][0].get_legend_handles_labels(), 2)
    remarks = f"The core alone in one thread. {drawing.rounds([report['rounds']])}"
    figure.supxlabel(drawing.note(report, remarks, 62 * len(draws)), x=0.01, ha="left", fontsize=7.5, color=drawing.SOFT)
    drawing.save(figure, target, report, "What a delivered message costs as shards, sessions and filters grow")


def label(axis_name, point):
    return AXES[axis_name] + ("" if axis_name == "shards" else f", at {point['shards']} shards")


def lines(own):
    """The points of each number of receivers."""
    for at, receivers in enumerate(sorted({point["receivers"] for point in own})):
        colour = ("#d55e00", "#0072b2", "#009e73")[at % 3]
        yield at, colour, f"{receivers} receivers of a topic, on two shards", [point for point in own if point["receivers"] == receivers]


def scale(panel, axis_name, own):
    panel.set_xscale("log", base=2 if axis_name == "shards" else 10)
    panel.set_xticks(sorted({point[axis_name] for point in own}))
    panel.xaxis.set_major_formatter(drawing.tick)
    panel.xaxis.set_minor_formatter(drawing.ticker.NullFormatter())
    panel.yaxis.set_major_formatter(drawing.tick)
    panel.margins(x=0.08)


def draw_times(panel, own):
    for at, colour, name, points in lines(own):
        sizes = [point[point["axis"]] for point in points]
        for size, point in zip(sizes, points):
            panel.plot([size] * len(point["nanoseconds"]), point["nanoseconds"], MARKERS[at], color=colour, markersize=3, alpha=0.6)
        medians = [statistics.median(point["nanoseconds"]) for point in points]
        ends = [(min(point["nanoseconds"]), max(point["nanoseconds"])) for point in points]
        draw_line(panel, at, colour, name, sizes, medians, ends)


def draw_instructions(panel, own):
    for at, colour, name, points in lines(own):
        counted = [point for point in points if "instructions" in point]
        values = [point["instructions"] for point in counted]
        draw_line(panel, at, colour, name, [point[point["axis"]] for point in counted], values, [(value, value) for value in values])


def draw_line(panel, at, colour, name, sizes, values, ends):
    """A line through `values`. Numbers stand over the marks of the first line, which is the higher one, and under others."""
    panel.plot(sizes, values, MARKERS[at] + "-", color=colour, label=name, markersize=6, linewidth=1.2)
    for size, value, (low, high), following in zip(sizes, values, ends, values[1:] + values[-1:]):
        end, shift, side = (high, 6, "bottom") if at == 0 else (low, -6, "top")
        # Not where the line goes up.
        aside = "right" if at == 0 and following > 1.2 * value else "center"
        place = dict(xytext=(4 if aside == "right" else 0, shift), textcoords="offset points", ha=aside, va=side, fontsize=7.5, color=colour)
        panel.annotate(drawing.number(value), (size, end), **place)


if __name__ == "__main__":
    main()
