"""Brokers that misbehave are noticed, said to be and ended, with all that they forked."""

import os
import pathlib
import signal
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "scripts"))

from comparison import processes
from comparison.brokers import Container, Running

READY_S = 20
SHORT_S = 0.3

processes.adopt()


def running(behaviour, ready_s=READY_S, stop_s=5):
    port = processes.free_port()
    found = Running(behaviour, port, signal.SIGTERM, stop_s)
    command = [sys.executable, HERE / "double.py", behaviour, port]
    found.add(processes.Started(behaviour, command, os.sched_getaffinity(0)))
    try:
        if ready_s < READY_S:
            # Patience is short from when it does what it is there for, however slow the machine is.
            until(lambda: found.started[-1].printed_size > 0)
        found.wait_until_ready(3, ready_s)
    except BaseException:
        found.stop()
        raise
    return found


def until(holds):
    end = time.monotonic() + READY_S
    while not holds():
        assert time.monotonic() < end, "it never comes"
        time.sleep(0.02)


class Misbehaviour(unittest.TestCase):
    def refused(self, behaviour, words, sentence, ready_s=SHORT_S):
        before = processes.descendants({os.getpid()})
        with self.assertRaises(processes.NotReady) as raised:
            running(behaviour, ready_s)
        self.assertEqual(raised.exception.words, words)
        self.assertRegex(str(raised.exception), sentence)
        self.assertEqual({pid for pid in processes.descendants({os.getpid()}) - before if not processes.has_ended(pid)}, set())

    def ended(self, found, said=None):
        """Stops it; nothing is left of it."""
        pids = found.pids()
        self.assertTrue(pids)
        self.assertEqual(found.stop(), said)
        self.assertEqual([pid for pid in pids if not processes.has_ended(pid)], [])

    def test_a_broker_that_never_listens_is_given_up(self):
        self.refused("never_listens", "never ready", "never_listens does not listen on port .* after 0.3 s; it printed: thinking about it")

    def test_a_broker_that_ends_at_once_is_quoted_without_escapes(self):
        self.refused("ends_at_once", "ended at once", r"ended with exit code 3 before it was ready; it printed: wrong key in line 7\?\[31m", READY_S)

    def test_a_broker_that_refuses_clients_is_not_ready(self):
        self.refused("refuses_clients", "never ready", "refuses a client with code 5")

    def test_a_broker_that_answers_nothing_is_not_ready(self):
        self.refused("accepts_and_is_silent", "never ready", "answers no CONNECT")

    def test_a_broker_on_another_port_is_told_which(self):
        self.refused("listens_elsewhere", "on another port", r"but on \d+: its file must use \{port\}")

    def test_a_broker_that_ignores_sigterm_is_killed_and_said_to_be(self):
        self.ended(running("ignores_sigterm", stop_s=0.5), "ignored SIGTERM for 0.5 s and was killed")

    def test_a_broker_that_prints_a_lot_is_read_and_little_is_kept(self):
        found = running("prints_a_lot")
        broker = found.started[-1]
        until(lambda: broker.printed_size > 16 << 20)
        self.assertLessEqual(sum(map(len, tuple(broker.printed))), processes.PRINTED_MAX + (1 << 17))
        self.assertLess(len(broker.last_lines()), 1000)
        self.ended(found)

    def test_a_broker_that_dies_is_said_to_have(self):
        found = running("serve")
        self.assertIsNone(found.how_it_ended())
        os.kill(found.pid, signal.SIGKILL)
        until(lambda: found.how_it_ended() is not None)
        self.assertRegex(found.how_it_ended(), "^serve ended by SIGKILL during the run; it printed: listening")
        found.stop()

    def test_the_worker_that_listens_is_measured_and_ends_with_its_parent(self):
        found = running("forks")
        self.assertNotEqual(found.pid, found.started[-1].pid)
        self.assertEqual(len(found.pids()), 2)
        self.ended(found)

    def test_a_worker_that_its_parent_forgets_is_ended_too(self):
        found = running("forks_and_forgets", stop_s=1)
        self.ended(found, "ignored SIGTERM for 1 s and was killed")

    def test_a_daemon_is_found_again_and_ended(self):
        found = running("becomes_a_daemon")
        self.assertNotEqual(found.pid, found.started[-1].pid)
        self.assertIsNone(found.how_it_ended())
        self.ended(found)

    def test_work_of_other_processes_is_seen(self):
        found = running("works_in_a_helper")
        used = found.processor_times()
        time.sleep(1)
        self.assertGreater(found.unseen_since(used)["part"], 0.5)
        self.ended(found)
        found = running("serve")
        used = found.processor_times()
        time.sleep(0.2)
        self.assertEqual(found.unseen_since(used)["part"], 0)
        self.ended(found)

    def test_other_processes_are_left_alone(self):
        one, other = running("becomes_a_daemon"), running("becomes_a_daemon")
        self.assertFalse(one.pids() & other.pids())
        self.ended(one)
        self.assertIsNone(other.how_it_ended())
        self.ended(other)


# Keeps the process of a container as docker does: in a place of its own, by its name.
DOCKER = """#!/bin/sh
case $1 in
run)
    while [ "$1" != some/image ]; do [ "$1" = --name ] && name=$2; shift; done
    shift
    (setsid env -u RINGMQ_COMPARED "$@" & echo $! >"$DOCKERS/$name")
    while kill -0 "$(cat "$DOCKERS/$name")" 2>/dev/null; do sleep 0.1; done ;;
inspect) cat "$DOCKERS/$4" ;;
stop) kill -TERM "$(cat "$DOCKERS/$6")" ;;
rm) kill -KILL "$(cat "$DOCKERS/$3")"; rm "$DOCKERS/$3" ;;
esac
"""


class Containers(unittest.TestCase):
    def test_the_process_in_a_container_is_measured_and_ended(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        docker = pathlib.Path(place.name) / "docker"
        docker.write_text(DOCKER)
        docker.chmod(0o755)
        before = dict(os.environ)
        self.addCleanup(os.environ.update, before)
        os.environ.update(PATH=f"{place.name}:{os.environ['PATH']}", DOCKERS=place.name)
        port = processes.free_port()
        found = Running("boxed", port, signal.SIGTERM, 5)
        command = [sys.executable, str(HERE / "double.py"), "serve", str(port)]
        found.add(Container("boxed", "some/image", command, min(os.sched_getaffinity(0)), {}, place.name))
        found.wait_until_ready(3, READY_S)
        inside = found.started[-1].inside()
        self.assertEqual(found.pid, inside)
        self.assertIn(port, processes.listening_ports(inside))
        self.assertIsNone(found.stop())
        self.assertTrue(processes.has_ended(inside))
        self.assertEqual([path for path in pathlib.Path(place.name).iterdir() if path != docker], [])


if __name__ == "__main__":
    unittest.main()
