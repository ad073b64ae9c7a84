"""The brokers to measure: how each is found or installed, configured, started on its core and ended."""

import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
PEERS = REPOSITORY / "bench" / "peers"
TOOLS = REPOSITORY / "target" / "tools"
RUMQTTD_VERSION = "0.20.0"

START_S = 15
STOP_S = 10


class Broker:
    """A broker that is started for each run, with a command line in which words in braces are filled in."""

    # MQTT 5.0 as well as 3.1.1, and more than QoS 0.
    speaks_5 = True
    speaks_qos = True

    def __init__(self, name, command, config=None):
        self.name = name
        self.command = command
        self.config = config

    def start(self, core, folder):
        """Runs it on `core`, its files in `folder`. Returns what `Running` says of it."""
        words = {"port": free_port(), "core": core, "folder": folder}
        running = Running(words["port"])
        try:
            if self.config:
                self.configure(core, folder, words, running)
            process = spawn([fill(str(part), words) for part in self.command], {core})
            running.processes.append(process)
            running.pid = process.pid
            wait_for(self.name, words["port"], process)
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


class Given:
    """A broker that runs already."""

    speaks_5 = True
    speaks_qos = True

    def __init__(self, text):
        try:
            self.name, port, pid = text.rsplit(":", 2)
            self.port, self.pid = int(port), int(pid)
            os.sched_getaffinity(self.pid)
        except (ValueError, ProcessLookupError) as wrong:
            sys.exit(f"--peer {text}: expected NAME:PORT:PID of a process that runs ({wrong})")

    def start(self, core, folder):
        del folder
        if os.sched_getaffinity(self.pid) != {core}:
            print(f"{self.name} does not run on core {core} alone: taskset -acp {core} {self.pid}", file=sys.stderr)
        return Running(self.port, self.pid)


class Running:
    """A broker that runs, with the processes that end with it."""

    def __init__(self, port, pid=None):
        self.port = port
        self.pid = pid
        self.processes = []

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def release(name):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return REPOSITORY / target / "release" / name


def build():
    subprocess.run(["cargo", "build", "--release", "--quiet", "--bins"], cwd=REPOSITORY, check=True)


def named(name):
    """A broker by its name; `None`, with a word on why, if it cannot be had."""
    return {"ringmq": ringmq, "relay": relay, "mosquitto": mosquitto, "rumqttd": rumqttd}[name]()


NAMES = ["mosquitto", "rumqttd", "ringmq", "relay"]


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
    return Broker("relay", [release("ringmq-bench"), "__relay", "{core}", "127.0.0.1:{port}", "auto"])


def mosquitto():
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin") or fetched_mosquitto()
    if not program:
        print("mosquitto is left out: it is absent, and scripts/interop could not fetch it", file=sys.stderr)
        return None
    return Broker("mosquitto", [program, "-c", "{config}"], PEERS / "mosquitto.conf")


def fetched_mosquitto():
    """A script that runs it, below target/interop: nothing is installed, so that no broker starts by itself."""
    fetch = [pathlib.Path(__file__).resolve().parents[1] / "interop", "mosquitto"]
    fetched = subprocess.run(fetch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    return shutil.which("mosquitto", path=fetched.stdout.strip()) if fetched.returncode == 0 else None


def rumqttd():
    program = shutil.which("rumqttd") or shutil.which("rumqttd", path=str(TOOLS / "bin")) or install_rumqttd()
    if not program:
        print("rumqttd is left out: cargo could not install it", file=sys.stderr)
        return None
    broker = Broker("rumqttd", [program, "-c", "{config}"], PEERS / "rumqttd.toml")
    broker.speaks_5 = False
    return broker


def install_rumqttd():
    # Not --locked: its lock file names a metrics that does not compile with a current Rust.
    install = ["cargo", "install", "--quiet", "--root", str(TOOLS), "--version", RUMQTTD_VERSION, "rumqttd"]
    # Its own target folder: that of the caller is for this repository.
    environment = {key: value for key, value in os.environ.items() if key != "CARGO_TARGET_DIR"}
    if subprocess.run(install, stdin=subprocess.DEVNULL, env=environment).returncode != 0:
        return None
    return shutil.which("rumqttd", path=str(TOOLS / "bin"))


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
    process = spawn([str(part) for part in command], {other})
    running.processes.append(process)
    wait_for("the bridge's other end", port, process)


def spawn(arguments, cores):
    def prepare():
        os.sched_setaffinity(0, cores)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    null = subprocess.DEVNULL
    return subprocess.Popen(arguments, stdin=null, stdout=null, stderr=null, preexec_fn=prepare)


def fill(text, words):
    for word, value in words.items():
        text = text.replace("{" + word + "}", str(value))
    return text


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(name, port, process):
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended at once with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{name} does not listen on port {port}")
