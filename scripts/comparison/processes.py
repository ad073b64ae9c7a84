"""Processes that are measured: how they are started on a core, found again whatever they fork, and ended by their ids."""

import collections
import contextlib
import ctypes
import itertools
import os
import pathlib
import resource
import signal
import socket
import subprocess
import threading
import time

# How much of what a broker prints is kept for a message about it, bytes; all of it is read.
PRINTED_MAX = 8 << 10

# From <sys/prctl.h>.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None, use_errno=True)

LISTENING = "0A"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

MARK = "RINGMQ_COMPARED"
NUMBERS = itertools.count()

KILLED_S = 5
POLL_S = 0.05
LISTINGS = 3


class NotReady(Exception):
    """What a broker did instead of accepting a client: `words` for a table, the message for a person."""

    def __init__(self, words, sentence):
        super().__init__(sentence)
        self.words = words


def adopt():
    """Processes whose parent has ended become children of this one, and so are found and ended with their broker."""
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Started:
    """A program that has been started, with all that it forks."""

    def __init__(self, name, arguments, cores, environment=None, folder=None):
        self.name = name
        self.before = set(children(os.getpid()))
        self.seen = set()
        # What forks twice and leaves its session still has the environment.
        self.mark = f"{MARK}={os.getpid()}-{next(NUMBERS)}"
        self.printed = collections.deque()
        self.printed_size = 0
        self.process = subprocess.Popen(
            [str(part) for part in arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {}), MARK: self.mark.partition("=")[2]},
            cwd=folder,
            # Ctrl-C is for the comparison, which ends its brokers in order.
            start_new_session=True,
            preexec_fn=lambda: prepare(cores),
        )
        self.pid = self.process.pid
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        """Reads what is printed, so that nobody waits in a write, and keeps the end of it."""
        kept = 0
        with self.process.stdout as pipe:
            while block := pipe.read1(1 << 16):
                self.printed.append(block)
                self.printed_size += len(block)
                kept += len(block)
                while kept - len(self.printed[0]) > PRINTED_MAX:
                    kept -= len(self.printed.popleft())

    def last_lines(self, count=3):
        text = b"".join(tuple(self.printed))[-PRINTED_MAX:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return "; ".join(printable(line)[:200] for line in lines[-count:])

    def tree(self):
        """All its processes that live. Those whose parent has ended are children of this process, see `adopt`."""
        # Who changes its parent while they are listed may be missed, but not again and again.
        for _ in range(LISTINGS):
            of = parents()
            own = {pid for pid, parent in of.items() if parent == os.getpid()}
            found = descendants({pid for pid in own if pid == self.pid or pid not in self.before and self.is_own(pid)}, of)
            self.seen |= found
            living = {pid for pid in found if not has_ended(pid)}
            if living:
                return living
            time.sleep(POLL_S / 5)
        return set()

    def is_own(self, pid):
        """Whether an adopted child was forked by this program."""
        return pid in self.seen or session_of(pid) in {self.pid, *self.seen} or has_environment(pid, self.mark)

    def serving(self, port):
        """The process to measure: the one that listens on `port`, of several the one that has worked most."""
        tree = self.tree()
        listeners = [pid for pid in tree if port in listening_ports(pid)]
        return max(listeners or tree or {self.pid}, key=processor_time)

    def how_it_ended(self):
        """`None` while any of its processes lives."""
        code = self.process.poll()
        if code is None or self.tree():
            return None
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def with_last_lines(self, sentence):
        lines = self.last_lines()
        return f"{sentence}; it printed: {lines}" if lines else sentence

    def stop(self, first=signal.SIGTERM, patience_s=10):
        """Ends it and all that it forked. `None`, or what it took in a few words."""
        tree = self.tree()
        # The first process ends the others: a child that got the signal as well would be missed by its parent.
        told = {self.pid} & tree or tree
        for pid in told:
            send(pid, first)
        if self.wait_for_end(patience_s, told):
            return None
        for pid in self.tree():
            send(pid, signal.SIGKILL)
        if not self.wait_for_end(KILLED_S):
            return f"process {min(self.tree())} could not be ended"
        return f"ignored {first.name} for {patience_s:g} s and was killed"

    def wait_for_end(self, patience_s, told=()):
        told = set(told)
        end = time.monotonic() + patience_s
        while True:
            self.process.poll()
            self.reap()
            tree = self.tree()
            if not tree:
                self.process.wait()
                return True
            # A process that its parent has left alone is told itself, once.
            if self.process.returncode is not None:
                for pid in tree - told:
                    send(pid, signal.SIGTERM)
                told |= tree
            if time.monotonic() > end:
                return False
            time.sleep(POLL_S)

    def reap(self):
        """Takes leave of adopted processes that have ended."""
        for pid in children(os.getpid()) - self.before - {self.pid}:
            if self.is_own(pid) and has_ended(pid):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def prepare(cores):
    """In the new process, before the program."""
    # Should this process be killed, the program does not stay.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.sched_setaffinity(0, cores)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def send(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def stat_fields(pid):
    """Fields of /proc/PID/stat behind the name; `None` if there is no such process."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def has_ended(pid):
    fields = stat_fields(pid)
    return fields is None or fields[0] in "ZX"


def session_of(pid):
    fields = stat_fields(pid)
    return int(fields[3]) if fields else None


def has_environment(pid, entry):
    try:
        return entry.encode() in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def parents():
    """The parent of each process."""
    found = {}
    for entry in os.listdir("/proc"):
        fields = stat_fields(entry) if entry.isdigit() else None
        if fields:
            found[int(entry)] = int(fields[1])
    return found


def children(pid):
    return {child for child, parent in parents().items() if parent == pid}


def descendants(roots, of=None):
    """`roots` and all below them, by the parents that `of` has."""
    of, found = of or parents(), set(roots)
    while more := {child for child, parent in of.items() if parent in found} - found:
        found |= more
    return found


def processor_time(pid):
    """Seconds that a process and its threads have used."""
    fields = stat_fields(pid)
    return sum(int(field) for field in fields[11:13]) / CLOCK_TICKS if fields else 0.0


def processor_times(pids):
    return {pid: processor_time(pid) for pid in pids}


def command_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return str(pid)


def listening_ports(pid):
    """TCP ports on which a process listens."""
    sockets = set()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                sockets.add(os.readlink(entry.path))
    except OSError:
        return set()
    ports = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in sockets:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def printable(text):
    """What brokers print may hold what terminals obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect_packet(mqtt):
    """A CONNECT of MQTT 3.1.1 or 5.0, with a clean session."""
    client_id = b"is-it-ready"
    properties = b"\0" if mqtt == 5 else b""
    body = b"\0\4MQTT" + bytes([5 if mqtt == 5 else 4, 2, 0, 60]) + properties + len(client_id).to_bytes(2, "big") + client_id
    return bytes([0x10, len(body)]) + body


def accepts_a_client(port, mqtt, patience_s=1.0):
    """Whether a client is accepted: `None`, or what happened instead."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience_s) as client:
            client.sendall(connect_packet(mqtt))
            answer = b""
            while len(answer) < 4:
                block = client.recv(4 - len(answer))
                if not block:
                    return "closes the connection of a client"
                answer += block
            if answer[0] != 0x20:
                return "answers a CONNECT with something else than a CONNACK"
            if answer[3] != 0:
                return f"refuses a client with code {answer[3]}"
            client.sendall(b"\xe0\0")
            return None
    except ConnectionRefusedError:
        return "does not listen"
    except TimeoutError:
        return "answers no CONNECT"
    except OSError as wrong:
        return f"answers a CONNECT with {wrong}"


def wait_until_ready(started, port, mqtt, patience_s):
    """Waits until a client is accepted on `port`."""
    end = time.monotonic() + patience_s
    while True:
        ended = started.how_it_ended()
        if ended:
            raise NotReady("ended at once", started.with_last_lines(f"{started.name} {ended} before it was ready"))
        wrong = accepts_a_client(port, mqtt)
        if wrong is None:
            return
        if time.monotonic() > end:
            break
        time.sleep(POLL_S)
    others = sorted(set().union(*map(listening_ports, started.tree())) - {port})
    listens = f", but on {', '.join(map(str, others))}: its file must use {{port}}" if others and wrong == "does not listen" else ""
    words = "on another port" if listens else "never ready"
    sentence = f"{started.name} {wrong} on port {port} after {patience_s:g} s{listens}"
    raise NotReady(words, started.with_last_lines(sentence))
