"""Checks the figures of a result of ringmq-bench against each other: the histograms, read as HdrHistogram's format says, and
the seconds against the whole. Python's library only.

    check_result.py RESULT"""

import base64
import json
import struct
import sys
import zlib

SUB_BUCKET_BITS = 11


def counts(text):
    """The counts of a V2 compressed histogram, by index."""
    packed = base64.b64decode(text, validate=True)
    cookie, size = struct.unpack(">ii", packed[:8])
    assert cookie == 0x1C849314 and size == len(packed) - 8, (hex(cookie), size)
    data = zlib.decompress(packed[8:])
    cookie, size, offset, digits, low, high, ratio = struct.unpack(">iiiiqqd", data[:40])
    assert (cookie, offset, digits, low, ratio) == (0x1C849313, 0, 3, 1, 1.0), (hex(cookie), offset, digits, low, ratio)
    payload, at, index, found = data[40 : 40 + size], 0, 0, {}
    while at < len(payload):
        value = shift = 0
        for place in range(9):
            byte = payload[at]
            at += 1
            value |= byte << shift if place == 8 else (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        value = (value >> 1) ^ -(value & 1)
        if value < 0:
            index -= value
        else:
            found[index] = value
            index += 1
    return found


def highest_value(index):
    half = 1 << (SUB_BUCKET_BITS - 1)
    bucket, sub = (index >> (SUB_BUCKET_BITS - 1)) - 1, (index & (half - 1)) + half
    if bucket < 0:
        bucket, sub = 0, sub - half
    return ((sub + 1) << bucket) - 1


def value_at(found, rank):
    below, value = 0, 0
    for index in sorted(found):
        below, value = below + found[index], highest_value(index)
        if below >= rank:
            break
    return value


def check_latency(latency):
    found = {index: count for index, count in counts(latency["histogram"]).items() if count}
    total = sum(found.values())
    assert total == latency["count"], (total, latency["count"])
    for percentile in latency["percentiles"]:
        rank = percentile["percentile"] / 100 * total
        # Which of two messages a percentile falls on, where it falls between them, is a matter of rounding.
        near = [value_at(found, rank + off) / 1000 for off in (-1e-6, 1e-6)]
        assert 0.999 * near[0] <= percentile["us"] <= 1.001 * near[1], (percentile, near)
    values = [percentile["us"] for percentile in latency["percentiles"]]
    assert values == sorted(values) and values[-1] == latency["max_us"], values


def check_series(run):
    series, end = run["series"], 0
    assert series, "no points"
    for point in series:
        assert abs(point["at_s"] - point["span_s"] - end) < 1e-6, (point, end)
        end = point["at_s"]
    assert abs(end - run["elapsed_s"]) < 0.2, (end, run["elapsed_s"])
    for figure in ("in_per_s", "out_per_s"):
        of_points = sum(point[figure] * point["span_s"] for point in series)
        whole = run[figure] * run["elapsed_s"]
        # The counts of the whole are read a moment apart from those of the first and the last second.
        assert abs(of_points - whole) <= 0.2 * whole + 50, (figure, of_points, whole)
    if run["latency"]:
        # The last interval holds what came late: an earlier one may be without any.
        highest = max(point["max_us"] or 0 for point in series)
        assert highest == run["latency"]["max_us"], (highest, run["latency"]["max_us"])


runs = [run for scenario in json.load(open(sys.argv[1]))["scenarios"] for run in scenario["outcome"]["runs"]]
for run in runs:
    check_series(run)
    if run["latency"]:
        check_latency(run["latency"])
print(len(runs), "runs,", sum(bool(run["latency"]) for run in runs), "with latency")
