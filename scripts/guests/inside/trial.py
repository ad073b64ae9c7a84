"""What a trial works with: brokers of 7 shards and other programs, all of which end with it, and waits that have a bound."""

import pathlib
import signal
import socket
import subprocess
import threading
import time

HOST = "127.0.0.1"
SHARDS = 7
CORES = "0-6"
PATIENCE_S = 40


class World:
    """How RingMQ waits for its sockets: io_uring, epoll, or whichever it finds."""

    def __init__(self, name):
        self.name = name
        self.options = ["--io", name]


class Trial:
    def __init__(self, world, name, number):
        self.world = world
        self.name = name
        self.folder = pathlib.Path(f"/tmp/trial-{number}")
        self.folder.mkdir()
        self.programs = []
        self.has_ended = False
        self.lock = threading.Lock()

    def ringmq(self, *options):
        return ["ringmq", *options, "--shards", str(SHARDS), "--cores", CORES, *self.world.options]

    def broker(self, name="broker", port=0, options=()):
        return Broker(self, name, port or free_port(), options)

    def run(self, command, text="", patience_s=PATIENCE_S):
        """A program that ends by itself: what it said, its exit code included."""
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=patience_s)

    def end(self):
        """Ends its programs. Returns whether it had not ended before."""
        with self.lock:
            is_first, self.has_ended = not self.has_ended, True
        for program in self.programs:
            program.kill()
        return is_first


class Program:
    def __init__(self, trial, name, command, **more):
        self.name = name
        self.log = trial.folder / f"{len(trial.programs)}-{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, **({"stdout": log} | more))
        trial.programs.append(self)

    def said(self):
        return self.log.read_text(errors="replace")

    def wait_until_said(self, text):
        wait_until(f"{self.name} says {text!r}", lambda: text in self.said())

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """In order: the exit code must be 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        assert code == 0, f"{self.name} ended with {code} when it was told to stop"


class Broker(Program):
    def __init__(self, trial, name, port, options):
        self.port = port
        super().__init__(trial, name, trial.ringmq("serve", "--listen", f"{HOST}:{port}", *options))
        wait_until(f"{name} listens", lambda: self.listens() or self.process.poll() is not None)
        assert self.process.poll() is None, f"{name} ended with {self.process.returncode} as it started"

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def wait_until(what, holds):
    ends = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends, f"waited {PATIENCE_S} s in vain until {what}"
        time.sleep(0.05)
