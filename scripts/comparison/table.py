"""Tables that fit the terminal, as those of ringmq-bench: what a row is about stands beside its figures where there is
room, above them else, and groups of columns take a line each before anything is cut."""

import itertools
import os
import sys
import textwrap

WIDTH_DEFAULT = 80
WIDTH_MIN = 40

# Of what a row is about, beside its figures.
ABOUT_MAX = 34
MARGIN = 2
GAP_MAX = 3
# Rather than to be closer than this, figures take a second line.
GAP_WHOLE_MIN = 2


def screen_width():
    """Columns of the terminal that stdout is; else those that COLUMNS names."""
    try:
        width = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        named = os.environ.get("COLUMNS", "")
        width = int(named) if named.isdecimal() else 0
    return max(width or WIDTH_DEFAULT, WIDTH_MIN)


def has_colour():
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_table(groups, sections):
    """`groups` of headings; each of `sections` is (name, words, [(label, cells)]) with a cell for each heading, "" where
    there is nothing to say."""
    paint = (lambda text: f"\033[1m{text}\033[0m") if has_colour() else (lambda text: text)
    for line in lines(groups, sections, screen_width(), paint):
        print(line)


def print_notes(*notes):
    """Sentences, broken where the screen ends."""
    width = min(screen_width(), 110)
    for note in notes:
        for line in note.splitlines():
            print("\n".join(broken(line, width)))


def broken(text, width):
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False) or [""]


def lines(groups, sections, width, paint=lambda text: text):
    """The table, line by line; none is wider than `width`, if a single column can be."""
    groups, sections = without_blank_columns(groups, sections)
    headings = [heading for group in groups for heading in group]
    runs = [run for _, _, own in sections for run in own]
    widths = [max(len(heading), *(len(cells[at]) for _, cells in runs), 0) for at, heading in enumerate(headings)]
    label = max((len(label) for label, _ in runs), default=0)
    about, parts, gap = choose(groups, sections, width, widths, label)

    # A column that has a line of its own is broken where that is too narrow for it.
    for part in parts:
        if len(part) == 1:
            widths[part[0]] = min(widths[part[0]], max(1, width - MARGIN - about - label - gap))

    def figures(label_text, cells, style=lambda text: text):
        found = []
        for part in parts:
            if found and not any(cells[at] for at in part):
                continue
            own = [broken(cells[at], widths[at]) if len(cells[at]) > widths[at] else [cells[at]] for at in part]
            for texts in itertools.zip_longest(*own, fillvalue=""):
                line = [" " * (gap + widths[at] - len(text)) + (style(text) if text else "") for at, text in zip(part, texts)]
                found.append(("" if found else label_text).ljust(label) + "".join(line))
        return found

    def beside(words, found):
        for at in range(max(len(words), len(found))):
            text, size = words[at] if at < len(words) else ("", 0)
            yield (text + " " * (MARGIN + about - size) + (found[at] if at < len(found) else "")).rstrip()

    yield from beside([], figures("", headings, paint))
    for name, words, own in sections:
        found = [line for run in own for line in figures(*run)]
        names = broken(name, about or width)
        if about:
            texts = [(paint(line), len(line)) for line in names]
            texts += [(line, len(line)) for line in broken(words, about)] if words else []
            yield from beside(texts, found)
        else:
            first, *rest = broken(f"{name}  {words}".rstrip(), width)
            yield paint(name) + first[len(name) :] if first.startswith(name) else first
            yield from rest
            yield from beside([], found)


def without_blank_columns(groups, sections):
    """Without those in which nobody has anything to say."""
    kept = [any(cells[at] for _, _, runs in sections for _, cells in runs) for at in range(sum(map(len, groups)))]
    has = iter(kept)
    groups = [[heading for heading in group if next(has)] for group in groups]
    only = lambda cells: [cell for cell, keep in zip(cells, kept) if keep]
    sections = [(name, words, [(label, only(cells)) for label, cells in runs]) for name, words, runs in sections]
    return [group for group in groups if group], sections


def choose(groups, sections, width, widths, label):
    """Room for what rows are about (0: they stand above), the columns of each line, and the gap."""

    def room(about, part):
        return (width - MARGIN - about - label - sum(widths[at] for at in part)) // len(part)

    longest = max((len(text) for name, words, _ in sections for text in (name, words)), default=0)
    whole = range(len(widths))
    for about in (min(longest, ABOUT_MAX), 0):
        if room(about, whole) >= GAP_WHOLE_MIN:
            return about, [whole], min(GAP_MAX, room(about, whole))
    parts = []
    for end, size in zip(itertools.accumulate(map(len, groups)), map(len, groups)):
        group = range(end - size, end)
        joined = range(parts[-1].start, end) if parts else group
        if parts and room(0, joined) >= GAP_WHOLE_MIN:
            parts[-1] = joined
            continue
        # Fewer a line, until each fits.
        chunks = lambda count: [range(at, min(at + count, end)) for at in range(group.start, end, count)]
        counts = (count for count in range(size, 0, -1) if count == 1 or all(room(0, part) >= 1 for part in chunks(count)))
        parts += chunks(next(counts))
    return 0, parts, max(1, min(GAP_MAX, *(room(0, part) for part in parts)))
