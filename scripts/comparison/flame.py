"""What stands on a flamegraph besides the flames.

    flame.py words STACKS RESULT.json SCENARIO FOLDER   writes title, subtitle and palette.map to FOLDER; palette.map gives the
                                                        kernel's functions, as inferno-collapse-perf --kernel marks them, other colours
    flame.py legend PICTURE.svg                         says in the picture which colour is whose, and takes the marks away"""

import json
import pathlib
import re
import sys
import zlib

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from comparison import origin

KERNEL = "_[k]"
# Red, green and blue, each with how far a function's colour may be from them: neighbours are told apart.
BROKER_COLOUR = ((235, 120, 20), (20, 45, 20))
KERNEL_COLOUR = ((60, 130, 200), (25, 35, 30))
LEGEND = [(BROKER_COLOUR, "the broker and its libraries"), (KERNEL_COLOUR, "the kernel")]
# Characters that fit beside each other in 1,200 pixels.
SUBTITLE_MAX = 160


def main():
    {"words": write_words, "legend": add_legend}[sys.argv[1]](*sys.argv[2:])


def write_words(stacks, result, scenario, folder):
    lines = [line.rpartition(" ") for line in pathlib.Path(stacks).read_text(errors="replace").splitlines() if " " in line]
    folder = pathlib.Path(folder)
    (folder / "title").write_text(f"ringmq, {scenario}: {rate(json.loads(pathlib.Path(result).read_text()))}")
    machine = origin.machine()
    words = [f"commit {origin.commit()}", f"{machine['processor']}, {machine['core_count']} cores, Linux {machine['kernel']}", parts(lines)]
    (folder / "subtitle").write_text("; ".join(word for word in words if word)[:SUBTITLE_MAX])
    names = {"all"} | {frame for stack, _, _ in lines for frame in stack.split(";")}
    (folder / "palette.map").write_text("".join(f"{name}->{colour(name)}\n" for name in sorted(names)))


def rate(result):
    """What the broker did meanwhile, as the bench measured it."""
    run = result["scenarios"][0]
    outcome = run.get("outcome", run)
    flat_out, at_rate = outcome.get("out_per_s"), outcome.get("out_per_s_at_rate")
    if flat_out:
        return f"{flat_out:,.0f} messages delivered a second, flat out"
    if at_rate:
        return f"{at_rate:,.0f} messages delivered a second, at a fixed rate"
    return "no messages"


def parts(lines):
    """How the samples are divided."""
    kernel = sum(int(count) for stack, _, count in lines if stack.endswith(KERNEL))
    whole = sum(int(count) for _, _, count in lines)
    return f"{kernel / whole:.0%} in the kernel" if whole else ""


def colour(name):
    """The same function has the same colour in every picture."""
    middle, spread = KERNEL_COLOUR if name.endswith(KERNEL) else BROKER_COLOUR
    noise = zlib.crc32(name.encode())
    channels = (base + (noise >> 8 * at & 0xFF) * 2 * width // 255 - width for at, (base, width) in enumerate(zip(middle, spread)))
    return "rgb({})".format(",".join(str(max(0, min(255, channel))) for channel in channels))


def add_legend(picture):
    """Below the flames, where their details stand too when somebody points at one, but farther to the right."""
    picture = pathlib.Path(picture)
    text = picture.read_text().replace(KERNEL, "")
    height = re.search(r'viewBox="0 0 [0-9.]+ ([0-9.]+)"', text)
    if height:
        at, end = float(height.group(1)) - 10, text.rindex("</svg>")
        legend = "".join(
            f'<rect x="{x}%" y="{at - 10:.0f}" width="12" height="12" fill="rgb{middle}"/><text x="{x}%" dx="18" y="{at:.0f}">{words}</text>'
            for x, ((middle, _), words) in zip((60, 84), LEGEND)
        )
        text = f'{text[:end]}<g id="legend">{legend}</g>{text[end:]}'
    picture.write_text(text)


if __name__ == "__main__":
    main()
