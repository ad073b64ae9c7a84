"""What all charts have in common: numbers as people write them, colours, the note on where figures come from, and the mark
of those that are not to be kept."""

import math
import pathlib
import textwrap

import matplotlib

matplotlib.use("svg")
# The same data gives the same file.
matplotlib.rcParams["svg.hashsalt"] = "ringmq"
matplotlib.rcParams["font.family"] = ["DejaVu Sans"]
from matplotlib import pyplot, ticker

# Colours that people with any kind of sight can tell apart; a broker has its own in every chart.
COLOURS = {
    "ringmq": "#d55e00",
    "mosquitto": "#0072b2",
    "relay": "#5f5f5f",
    "floor": "#5f5f5f",
    "rumqttd": "#009e73",
    "rmqtt": "#cc79a7",
    "mosquitto-2.1": "#2a9fd6",
    "flashmq": "#b8860b",
    "2-shards": "#8c2d04",
}
FURTHER = ["#6a3d9a", "#1b9e77", "#a6761d", "#e7298a", "#666666", "#1f78b4", "#b15928"]
MARKERS = "soDD^vP*X<>h"

INK = "#1f2328"
SOFT = "#59636e"
PAPER = "white"
NOTE_WIDTH = 150


def colour(name, at):
    return COLOURS.get(name, FURTHER[at % len(FURTHER)])


def marker(name, at):
    known = list(COLOURS)
    return MARKERS[known.index(name) % len(MARKERS)] if name in COLOURS else MARKERS[(len(known) + at) % len(MARKERS)]


def number(value):
    """Three digits that count, without powers of ten: 0.0213, 4.37, 1,350, 1,000,000."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, digits)}f}"


def tick(value, _=None):
    """A number on an axis: no digit more than it needs."""
    if value == 0:
        return "0"
    text = f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def logarithmic(axis, low, high):
    """Ticks at 1, 2 and 5 of each ten, fewer where many tens are spanned, more where not one is."""
    tens = math.log10(high / low) if low > 0 else 1
    subs = (1, 1.5, 2, 3, 4, 5, 6, 7, 8) if tens < 0.7 else (1, 2, 5) if tens < 3.5 else (1,)
    axis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.set_major_formatter(tick)
    axis.set_minor_formatter(ticker.NullFormatter())


def plain(panel):
    """Without the frame's upper and right side, with a grid behind the points."""
    panel.grid(True, which="major", color="0.88")
    panel.set_axisbelow(True)
    panel.tick_params(colors=INK, labelsize=8)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def is_dirty(report):
    return report["commit"].endswith("-dirty") or report["commit"] == "no-commit"


def heading(figure, text, handles, labels, columns):
    """The title with the legend below it, over all panels."""
    bold = dict(size=13, weight="bold")
    legend = figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=9, title=text, title_fontproperties=bold, alignment="left"
    )
    legend.get_title().set_color(INK)


def rounds(counts, seconds=None):
    """What the marks are."""
    counts = sorted(set(counts))
    many = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    each = f" of {seconds:g} s" if seconds else ""
    if counts == [1]:
        return f"One round{each}."
    return f"{many} interleaved rounds{each}: each is a small mark, the large one and the number are their median."


def note(report, further, width=NOTE_WIDTH):
    machine = report["machine"]
    cores = f", {machine['core_count']} cores" if "core_count" in machine else ""
    text = f"RingMQ at commit {report['commit']}, {report['date'][:10]}. {machine['processor']}{cores}, Linux {machine['kernel']}. {further}"
    return "\n".join(textwrap.wrap(text, width))


def save(figure, target, report, name):
    """Writes the picture with all that is on it: what stands beyond the figure's edge makes the picture larger."""
    if is_dirty(report):
        figure.text(
            0.5, 0.5, "not of a commit (-dirty): do not keep", fontsize=min(34, 6.5 * figure.get_size_inches()[1]),
            color="#d1242f", alpha=0.28, rotation=28, ha="center", va="center", fontweight="bold", zorder=10, in_layout=False,
        )
    pathlib.Path(target).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None, "Title": name}, bbox_inches="tight", pad_inches=0.2, facecolor=PAPER)
    pyplot.close(figure)
