"""Rows of a comparison: how many rounds they hold over, and what must be known of the machine."""

import contextlib
import io
import os
import pathlib
import sys
import unittest

sys.dont_write_bytecode = True
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

from comparison import rounds, rows

BATCHES = {"messages_per_write": 1.0, "messages_per_read": 1.0}


def outcome(p99_us=100.0, cpu_us=1.0, **more):
    """As ringmq-bench tells it, and what `rounds.measure` adds."""
    return {
        "out_per_s": 10_000.0, "cpu_us_per_message": None, "cpu_us_per_message_at_rate": cpu_us, "batches": dict.fromkeys(BATCHES),
        "batches_at_rate": BATCHES, "latency": {"p50_us": 50.0, "p99_us": p99_us, "p999_us": 500.0}, "resident_size": 1 << 20,
        "measures": [], "faults": dict.fromkeys(rows.COUNTS, 0), "bound": "unknown", "bound_at_rate": None, "contested": False,
        "contested_at_rate": False, "steal": 0.0, "unseen": {"part": 0.0}, "pinned": True, "stopped": None,
    } | more


def results(**outcomes):
    found = rounds.Results()
    found.outcomes = {"p2p-rate": outcomes}
    return rows.summaries(found)


P99 = [row for row in rows.table_rows("table.toml") if row["scenario"] == "p2p-rate" and row["measure"] == "p99_us"]


def printed(judged, width="200"):
    os.environ["COLUMNS"] = width
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        rows.print_judged(judged)
    return screen.getvalue()


class Rounds(unittest.TestCase):
    def test_rows_of_latency_name_nine_rounds_and_others_five(self):
        table = rows.table_rows("table.toml")
        self.assertTrue(P99)
        for row in table:
            self.assertEqual(row.get("rounds"), 9 if row["measure"].startswith("p") else None, row)
        pairs = rows.table_pairs(table)
        self.assertEqual(pairs["p2p-rate"], {"mosquitto": 9, "ringmq": 9, "relay": 5})
        self.assertEqual(pairs["p2p-qos2"], {"mosquitto": 5, "ringmq": 5})

    def test_a_row_holds_over_its_rounds_only(self):
        for count, holds, text in [(9, True, r" 9$"), (8, None, r" 8 of 9$")]:
            found = results(ringmq=[outcome(100 + at) for at in range(count)], mosquitto=[outcome(200.0)] * count)
            judged = rows.judge(P99, found)
            self.assertIs(judged[0]["holds"], holds)
            screen = printed(judged)
            self.assertRegex(screen.splitlines()[1], text)
            self.assertIn(f"100.0 - {100 + count - 1}.0", screen)

    def test_a_machine_that_was_not_quiet_is_said_in_the_row(self):
        noisy = [outcome(contested_at_rate=True)] * 2 + [outcome(steal=0.5)] + [outcome()] * 6
        judged = rows.judge(P99, results(ringmq=noisy, mosquitto=[outcome()] * 9))
        for width in ("40", "80", "100"):
            screen = printed(judged, width)
            self.assertIn("not quiet: ringmq contested 2/9, steal 1/9", " ".join(screen.split()))
            self.assertNotIn("mosquitto contested", screen)
            self.assertIn("1 of 1 hold", screen)
            self.assertLessEqual(max(map(len, screen.splitlines())), int(width), screen)

    def test_processor_time_of_unseen_processes_is_not_made_up(self):
        lost = outcome(unseen={"part": 0.3}, measures=[{"name": "memory per idle connection", "value": 1.0}])
        rounds.forget_processor_time(lost)
        row = results(ringmq=[lost])[0]
        self.assertIsNone(row["figures"]["cpu_us_at_rate"])
        self.assertIsNone(row["figures"]["connection_size"])
        self.assertEqual(row["marks"], {"several processes": 1})

    def test_a_broker_that_failed_in_some_rounds_is_said_to_have(self):
        found = rounds.Results()
        broker = type("Broker", (), {"name": "mortal"})
        for _ in range(2):
            found.leave_out("p2p-rate", broker, "died", "mortal ended by SIGKILL during the run")
        found.add("p2p-rate", broker, outcome())
        report = {
            "rows": rows.summaries(found), "not_run": found.not_run, "rounds": 3, "brokers": {"mortal": {}},
            "settings": {"p2p-rate": {"words": "50 pairs"}},
        }
        with contextlib.redirect_stdout(io.StringIO()) as screen:
            os.environ["COLUMNS"] = "200"
            rows.print_rows(report, "mortal")
        self.assertIn("NOT RUN in 2 of 3 rounds: p2p-rate with mortal: mortal ended by SIGKILL", screen.getvalue())


if __name__ == "__main__":
    unittest.main()
