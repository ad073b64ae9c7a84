"""Checks the CSV, the HTML page and the percentile texts that ringmq-bench wrote of a result against its JSON, with readers
that are not the bench's: Python's library only.

    check_files.py RESULT.json FILE.csv FILE.html HGRM-FOLDER"""

import csv
import html.parser
import json
import math
import pathlib
import sys

result, table, page, folder = map(pathlib.Path, sys.argv[1:5])
report = json.loads(result.read_text())
runs = [(scenario, run) for scenario in report["scenarios"] for run in scenario["outcome"]["runs"]]


def same(text, number):
    """The last of seventeen digits may differ: not all readers of JSON keep it."""
    return text == "" if number is None else math.isclose(float(text), number, rel_tol=1e-14)


def check_csv():
    text = table.read_bytes().decode()
    assert text.count("\r\n") == text.count("\n"), "RFC 4180 ends lines with CRLF"
    rows = list(csv.DictReader(text.splitlines(), strict=True))
    assert len(rows) == len(runs), (len(rows), len(runs))
    for row, (scenario, run) in zip(rows, runs):
        assert None not in row and None not in row.values(), row
        assert row["scenario"] == scenario["settings"]["name"] and row["words"] == scenario["words"], row
        assert row["pace"] == run["pace"] and same(row["out_per_s"], run["out_per_s"]), row
        expected = run["latency"] and run["latency"]["p99_us"]
        assert same(row["latency_p99_us"], expected), row
        assert int(row["scenario_lost"]) == scenario["outcome"]["faults"]["lost"], row


class Page(html.parser.HTMLParser):
    VOID = {"meta", "br", "link", "img"}

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text, self.data = [], [], [], {}

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1][0] == tag, (tag, self.getpos(), self.open[-3:])
        self.open.pop()

    def handle_data(self, text):
        if self.open and self.open[-1][0] == "script":
            key = self.open[-1][1]["id"]
            self.data[key] = self.data.get(key, "") + text
        elif self.open and self.open[-1][0] != "style":
            self.text.append(text)


def check_page():
    parsed = Page()
    parsed.feed(page.read_text())
    parsed.close()
    assert not parsed.open, parsed.open
    policy = next(of["content"] for tag, of in parsed.tags if of.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy, policy
    for tag, of in parsed.tags:
        assert tag not in ("img", "link", "iframe", "object", "embed", "base", "form"), tag
        assert not any(name.startswith("on") or name in ("src", "xlink:href") for name in of), (tag, of)
        assert of.get("href", "#").startswith("#"), of
        assert tag != "script" or of["type"] == "application/json", of
    ids = [of["id"] for _, of in parsed.tags if "id" in of]
    assert len(ids) == len(set(ids)), ids
    assert all(of["href"][1:] in ids for tag, of in parsed.tags if tag == "a"), ids
    assert json.loads(parsed.data["result-1"]) == report, "the page holds another JSON"
    text = "".join(parsed.text)
    for scenario, run in runs:
        assert scenario["words"] in text, scenario["words"]
        if run["out_per_s"]:
            assert f"{run['out_per_s']:,.0f}" in text, run["out_per_s"]
    assert report["command"] in text, report["command"]
    drawn = sum(tag == "svg" for tag, _ in parsed.tags)
    assert drawn >= len(runs), (drawn, len(runs))


def check_distributions():
    files = list(folder.glob("*.hgrm"))
    recorded = [run["latency"] for _, run in runs if run["latency"]]
    assert len(files) == len(recorded), files
    found = []
    for file in files:
        lines = file.read_text().splitlines()
        assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"], lines[0]
        rows = [[float(field) for field in line.split()] for line in lines[2:] if not line.startswith("#")]
        assert all(len(row) == 4 for row in rows[:-1]) and len(rows[-1]) == 3, file
        for one, following in zip(rows, rows[1:]):
            assert one[0] <= following[0] and one[1] <= following[1] and one[2] <= following[2], (one, following)
        assert rows[-1][1] == 1.0, rows[-1]
        total = int(lines[-2].split("Total count    =")[1].strip(" ]"))
        assert rows[-1][2] == total, (rows[-1], total)
        found.append((total, round(rows[-1][0] * 1000)))
    assert sorted(found) == sorted((one["count"], round(one["max_us"])) for one in recorded), (found, recorded)


check_csv()
check_page()
check_distributions()
print(len(runs), "runs")
