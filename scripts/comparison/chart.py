"""Draws what `scripts/compare` wrote: chart.py FILE.json FILE.svg. Runs in a Python that has matplotlib, see `plot`."""

import json
import pathlib
import subprocess
import sys

TOOLS = pathlib.Path(__file__).resolve().parent.parent.parent / "target" / "tools"
MATPLOTLIB_VERSION = "3.10.0"


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
                print("no chart is drawn: matplotlib cannot be installed", file=sys.stderr)
                return False
    return subprocess.run([python, script, *arguments]).returncode == 0


def main():
    import matplotlib

    matplotlib.use("svg")
    # The same data gives the same file.
    matplotlib.rcParams["svg.hashsalt"] = "ringmq"
    from matplotlib import pyplot

    source, target = sys.argv[1:]
    report = json.loads(pathlib.Path(source).read_text())
    panels = [
        ("CPU, microseconds a delivered message (connection)", cpu),
        ("idle: bytes of memory a connection", lambda row: row["figures"]["connection_size"]),
        ("at a fixed rate: p99 latency, microseconds", lambda row: row["figures"]["p99_us"]),
    ]
    brokers = list(dict.fromkeys(row["broker"] for row in report["rows"]))
    chosen = [(title, points(report["rows"], read)) for title, read in panels]
    chosen = [(title, found) for title, found in chosen if found]
    heights = [1.2 + 0.42 * len({scenario for scenario, _, _ in found}) for _, found in chosen]
    figure, axes = pyplot.subplots(len(chosen), 1, figsize=(9.5, sum(heights) + 0.8), height_ratios=heights, squeeze=False)
    for axis, (title, found) in zip(axes[:, 0], chosen):
        draw(axis, title, found, brokers)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper center", ncols=min(len(brokers), 6), frameon=False)
    machine = report["machine"]
    note = f"{report['date']}, {report['commit']}; {machine['processor']}, {machine['core_count']} cores, Linux {machine['kernel']}; "
    note += f"medians of {report['rounds']} interleaved rounds, lines from the least to the most"
    figure.text(0.01, 0.005, note, fontsize=7, color="0.35")
    figure.tight_layout(rect=(0, 0.02, 1, 1 - 0.3 / sum(heights)))
    figure.savefig(target, metadata={"Date": None})


def cpu(row):
    return row["figures"]["cpu_us"] or row["figures"]["cpu_us_at_rate"]


def points(rows, read):
    return [(row["scenario"], row["broker"], read(row)) for row in rows if read(row)]


def draw(axis, title, found, brokers):
    """One line a scenario, one point a broker, on a logarithmic axis: equal steps are equal ratios."""
    from matplotlib import ticker

    scenarios = list(dict.fromkeys(scenario for scenario, _, _ in found))
    markers = "osD^vP*Xh<>"
    for at, broker in enumerate(brokers):
        own = [(scenarios.index(scenario), figures) for scenario, name, figures in found if name == broker]
        spread = 0.16 * (at - (len(brokers) - 1) / 2) / max(1, len(brokers) - 1)
        lines = [line + spread for line, _ in own]
        medians = [figures["median"] for _, figures in own]
        errors = [[figures["median"] - figures["min"] for _, figures in own], [figures["max"] - figures["median"] for _, figures in own]]
        axis.errorbar(medians, lines, xerr=errors, fmt=markers[at % len(markers)], label=broker, markersize=6, capsize=2, linewidth=1, color=f"C{at}")
    axis.set_xscale("log")
    axis.set_yticks(range(len(scenarios)), scenarios)
    axis.set_ylim(len(scenarios) - 0.5, -0.5)
    axis.set_title(title, fontsize=10, loc="left")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    axis.grid(True, which="major", axis="both", color="0.88")
    axis.grid(True, which="minor", axis="x", color="0.94")
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
