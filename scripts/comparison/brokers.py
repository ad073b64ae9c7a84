"""The brokers to measure: RingMQ and the relay, those that peer files describe, and those that run already."""

import os
import pathlib
import re
import signal
import subprocess
import sys

from . import install, peer_file
from .peer_file import PEERS, REPOSITORY, fill
from .processes import NotReady, Started, descendants, free_port, processor_times, command_of, wait_until_ready, has_ended

READY_S = 15
STOP_S = 10

# Of the processor time of a broker's processes, what those may take of which ringmq-bench knows nothing.
UNSEEN_MAX = 0.02

INTERRUPTS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

# Measured unless somebody asks for others; the rest of bench/peers on request.
DEFAULT = ["mosquitto", "rumqttd", "ringmq", "relay"]
ALIASES = {"floor": "relay"}


class Broker:
    """A broker that is started for each run, with a command line in which words in braces are filled in."""

    is_own = True
    mqtt = (3, 5)
    qos_max = 2
    peer = None

    def __init__(self, name, command, config=None):
        self.name = name
        self.command = command
        self.config = config

    def start(self, core, folder):
        """Runs it on `core`, its files in `folder`. Returns what `Running` says of it."""
        words = {"port": free_port(), "core": core, "folder": folder}
        running = Running(self.name, words["port"])
        try:
            if self.config:
                self.configure(core, folder, words, running)
            running.add(Started(self.name, [fill(str(part), words) for part in self.command], {core}))
            running.wait_until_ready(self.mqtt[0], READY_S)
        except BaseException:
            running.stop()
            raise
        return running

    def configure(self, core, folder, words, running):
        """Writes the configuration, and brings what it names."""
        text = self.config.read_text()
        if "{c_plugin}" in text:
            words["c_plugin"] = build_c_plugin(folder)
        if "{sink_port}" in text:
            words["sink_port"] = free_port()
            start_sink(core, words["sink_port"], running)
        words["config"] = pathlib.Path(folder) / self.config.name
        words["config"].write_text(fill(text, words))

    def description(self):
        files = {self.config.name: self.config.read_text()} if self.config else {}
        return {"version": version_of(self.command[0]), "command": shown_command(self.command), "files": files}


class PeerBroker(Broker):
    """A broker of a peer file, and the program that was found for it."""

    is_own = False

    def __init__(self, peer, found):
        self.peer = peer
        self.found = found
        self.name = peer.name
        self.mqtt = sorted(peer.mqtt)
        self.qos_max = peer.qos_max

    def start(self, core, folder):
        port = free_port()
        words = {**self.found.words, "port": port, "core": core, "folder": folder}
        paths = [pathlib.Path(folder) / own["name"] for own in self.peer.files]
        if paths:
            words["config"] = paths[0]
        for path, own in zip(paths, self.peer.files):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fill(own["text"], words))
        environment = {key: fill(text, words) for key, text in self.peer.start["environment"].items()}
        command = [fill(part, words) for part in self.peer.start["command"]]
        running = Running(self.name, port, self.peer.stop_signal, self.peer.stop["seconds"])
        try:
            if self.found.container:
                # Whoever runs in it has an id of its own.
                os.chmod(folder, 0o777)
                running.add(Container(self.name, self.found.container, command, core, environment, folder))
            else:
                running.add(Started(self.name, command, {core}, environment, folder))
            running.wait_until_ready(self.mqtt[0], self.peer.start["ready_s"])
        except BaseException:
            running.stop()
            raise
        return running

    def description(self):
        peer = self.peer
        return {
            "about": peer.about,
            "version": self.found.version,
            "file": peer_file.shown(peer.path),
            "command": shown_command(peer.start["command"], self.found.words),
            "environment": peer.start["environment"],
            "files": {own["name"]: own["text"] for own in peer.files},
            "quirks": peer.quirks,
        }


class Container(Started):
    """A broker in a docker container on the host's network. Its processes are no children of this one."""

    def __init__(self, name, image, command, core, environment, folder):
        self.container = f"ringmq-compare-{os.getpid()}-{re.sub('[^a-z0-9]', '-', name.lower())}-{free_port()}"
        run = ["docker", "run", "--rm", "--name", self.container, "--network", "host", "--cpuset-cpus", str(core)]
        run += ["--ulimit", "nofile=1048576:1048576", "--volume", f"{folder}:{folder}", "--workdir", str(folder)]
        run += [part for key, value in environment.items() for part in ("--env", f"{key}={value}")]
        super().__init__(name, [*run, image, *command], set(os.sched_getaffinity(0)))

    def tree(self):
        pid = self.inside()
        own = {found for found in descendants({pid}) if not has_ended(found)} if pid else set()
        return own | super().tree()

    def inside(self):
        """The container's first process; `None` before it is there, and when it has ended."""
        ask = ["docker", "inspect", "--format", "{{.State.Pid}}", self.container]
        said = subprocess.run(ask, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.strip()
        return int(said) if said.isdigit() and int(said) > 0 else None

    def stop(self, first, patience_s):
        # Whoever kills the client of docker has not ended the container.
        told = ["docker", "stop", "--signal", first.name, "--time", f"{patience_s:.0f}", self.container]
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(told, **quiet)
        subprocess.run(["docker", "rm", "--force", self.container], **quiet)
        return super().stop(first, STOP_S)


class Given:
    """A broker that runs already."""

    is_own = False
    mqtt = (3, 5)
    qos_max = 2
    peer = None

    def __init__(self, text):
        try:
            self.name, port, pid = text.rsplit(":", 2)
            self.port, self.pid = int(port), int(pid)
            os.sched_getaffinity(self.pid)
        except (ValueError, ProcessLookupError) as wrong:
            sys.exit(f"--peer {text}: expected NAME:PORT:PID of a process that runs ({wrong})")

    def start(self, core, folder):
        del folder
        if has_ended(self.pid):
            raise NotReady("ended", f"{self.name}: process {self.pid} has ended")
        if os.sched_getaffinity(self.pid) != {core}:
            print(f"{self.name} does not run on core {core} alone: taskset -acp {core} {self.pid}", file=sys.stderr)
        return Running(self.name, self.port, pid=self.pid)

    def description(self):
        return {"version": "not asked", "command": f"process {self.pid} on port {self.port}", "files": {}}


class Running:
    """A broker that runs, with the processes that end with it."""

    def __init__(self, name, port, stop_signal=None, stop_s=STOP_S, pid=None):
        self.name = name
        self.port = port
        self.pid = pid
        self.stop_options = (stop_signal, stop_s) if stop_signal else ()
        # The last is the broker, those before serve it.
        self.started = []

    def add(self, started):
        self.started.append(started)

    def wait_until_ready(self, mqtt, patience_s):
        broker = self.started[-1]
        wait_until_ready(broker, self.port, mqtt, patience_s)
        self.pid = broker.serving(self.port)

    def pids(self):
        return self.started[-1].tree() if self.started else descendants({self.pid})

    def processor_times(self):
        return processor_times(self.pids())

    def unseen_since(self, before):
        """Which part of the broker's processor time was not that of the process that is measured, and whose it was."""
        used = {pid: time - before.get(pid, 0.0) for pid, time in self.processor_times().items()}
        others = {pid: time for pid, time in used.items() if pid != self.pid}
        whole = sum(used.values())
        return {
            "part": sum(others.values()) / whole if whole > 0 else 0.0,
            "processes": sorted({command_of(pid) for pid, time in others.items() if time > 0}),
        }

    def how_it_ended(self):
        """`None` while it runs; else a sentence."""
        if not self.started:
            return f"{self.name}: process {self.pid} has ended" if has_ended(self.pid) else None
        broker = self.started[-1]
        ended = broker.how_it_ended()
        if ended:
            return broker.with_last_lines(f"{self.name} {ended} during the run")
        if has_ended(self.pid):
            return broker.with_last_lines(f"{self.name}'s process {self.pid} ended during the run")
        return None

    def stop(self):
        """Ends what was started, the broker first. `None`, or what it took in a few words."""
        said = None
        # Whoever presses Ctrl-C twice still leaves no broker behind: it takes as long as a broker may take to end.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
        try:
            for started in reversed(self.started):
                said = started.stop(*self.stop_options) or said
            self.started.clear()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return said


def shown_command(command, words=None):
    """A command line for whoever repeats it: with the program that was found; the rest is filled in for each run."""
    home = str(REPOSITORY) + "/"
    return " ".join(fill(str(part), {key: words[key] for key in ("program", "root")} if words else {}) for part in command).replace(home, "")


def version_of(program):
    said = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return said.stdout.strip().rpartition(" ")[2] or "unknown"


def release(name):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return REPOSITORY / target / "release" / name


def build():
    subprocess.run(["cargo", "build", "--release", "--quiet", "--bins"], cwd=REPOSITORY, check=True)


def names():
    return ["ringmq", "relay", *peer_file.known()]


def named(text, left_out):
    """A broker by its name or its file; `None` if it cannot be had here: `left_out` then says why."""
    text = ALIASES.get(text, text)
    own = {"ringmq": ringmq, "relay": relay}.get(text)
    if own:
        return own()
    peer = peer_file.find(text)
    try:
        return PeerBroker(peer, install.find(peer))
    except install.Absent as absent:
        left_out[peer.name] = str(absent)
        print(f"{peer.name} is left out: {absent}", file=sys.stderr)
        return None


def not_tried(measured):
    """Peers of bench/peers that nobody has run yet, each with the reason, unless this run does."""
    peers = map(peer_file.read, peer_file.known().values())
    return {peer.name: peer.reason for peer in peers if not peer.tried and peer.name not in measured}


def ringmq(name="ringmq", config=None, options=()):
    # One core has one shard, unless the configuration or the options want more.
    command = [release("ringmq"), "serve", "--listen", "127.0.0.1:{port}", "--cores", "{core}"]
    if config:
        command += ["--config", "{config}"]
    # What is given twice on a command line is refused.
    for option in options:
        if option in command:
            at = command.index(option)
            del command[at : at + 2]
    return Broker(name, command + list(options), config)


def variant(text):
    """A RingMQ of its own name: NAME=FILE with a configuration, or NAME=OPTIONS as "two=--shards 2"."""
    name, _, what = text.partition("=")
    if not name or not what:
        sys.exit(f"--variant {text}: expected NAME=FILE or NAME=--OPTION VALUE ...")
    if what.startswith("-"):
        return ringmq(name, options=what.split())
    config = pathlib.Path(what)
    if not config.is_file():
        sys.exit(f"--variant {text}: there is no file {config}")
    return ringmq(name, config=config.resolve())


def relay():
    broker = Broker("relay", [release("ringmq-bench"), "__relay", "{core}", "127.0.0.1:{port}", "auto"])
    broker.is_own = False
    return broker


def build_c_plugin(folder):
    library = pathlib.Path(folder) / "user_property.so"
    header = pathlib.Path(folder) / "ringmq_plugin.h"
    with header.open("w") as file:
        subprocess.run([release("ringmq"), "plugin-header"], stdout=file, check=True)
    source = REPOSITORY / "tests" / "plugins" / "user_property.c"
    compiler = ["cc", "-std=c11", "-shared", "-fPIC", "-O2", "-I", folder, "-o", library, source]
    subprocess.run([str(part) for part in compiler], check=True)
    return library


def start_sink(core, port, running):
    """The other end of a bridge: a RingMQ beside the measured one, on another core."""
    other = min(os.sched_getaffinity(0) - {core})
    command = [release("ringmq"), "serve", "--listen", f"127.0.0.1:{port}", "--cores", str(other), "--shards", "1"]
    running.add(Started("the bridge's other end", command, {other}))
    wait_until_ready(running.started[-1], port, 3, READY_S)
