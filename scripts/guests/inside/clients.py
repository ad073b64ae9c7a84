"""Clients that others wrote: Mosquitto's, and paho-mqtt with the scenarios of tests/end_to_end/paho."""

import os
import pathlib
import pty
import threading
import tty

from trial import HOST, PATIENCE_S, Program

VERSIONS = ["3.1.1", "5.0"]
NAMES = {"3.1.1": "mqttv311", "5.0": "mqttv5"}
MESSAGES = "".join(f"{number}\n" for number in range(20))

PAHO_SCRIPTS = ["messages", "sessions"]
PAHO_MAX_S = 100


def paho(trial, script):
    broker = trial.broker()
    command = ["python3", f"/inside/paho_scenarios/{script}.py", HOST, str(broker.port)]
    done = trial.run(command, patience_s=PAHO_MAX_S)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert done.returncode == 0, f"{failed} {done.stderr}"
    broker.stop()
    return done.stdout.splitlines()[-1]


def mosquitto(trial, version):
    if not pathlib.Path("/bin/mosquitto_pub").exists():
        return "left out: this machine has no clients of Mosquitto"
    broker = trial.broker()
    peers = Mosquitto(trial, version, broker.port)
    for qos in "012":
        messages_arrive(peers, qos)
    retained_messages_are_kept(peers)
    a_session_is_resumed(peers)
    a_will_tells_of_a_killed_client(peers)
    broker.stop()
    return "QoS 0, 1, 2, retained, session, will"


def messages_arrive(peers, qos):
    topic = f"live/{qos}"
    subscriber = peers.subscriber("-t", topic, "-q", qos, "-C", "20")
    peers.run("mosquitto_pub", "-t", topic, "-q", qos, "-l", text=MESSAGES)
    subscriber.ends_with(MESSAGES)


def retained_messages_are_kept(peers):
    peers.run("mosquitto_pub", "-t", "kept/1", "-m", "one", "-r", "-q", "1")
    peers.run("mosquitto_pub", "-t", "kept/2", "-m", "two", "-r", "-q", "1")
    peers.run("mosquitto_pub", "-t", "kept/1", "-n", "-r", "-q", "1")
    got = peers.run("mosquitto_sub", "-t", "kept/#", "-C", "1", "-W", "30", "-F", "%t %p %r")
    assert got == "kept/2 two 1\n", got


def a_session_is_resumed(peers):
    expiry = ["-x", "100"] if peers.version == "5.0" else []
    session = ["-c", "-i", "away", "-q", "2", "-t", "away/#", *expiry]
    peers.run("mosquitto_sub", *session, "-E")
    peers.run("mosquitto_pub", "-t", "away/t", "-q", "2", "-l", text=MESSAGES)
    got = peers.run("mosquitto_sub", *session, "-C", "20", "-W", "30")
    assert got == MESSAGES, got


def a_will_tells_of_a_killed_client(peers):
    watcher = peers.subscriber("-t", "wills/+", "-q", "1", "-C", "1")
    lost = peers.subscriber("-t", "x", "--will-topic", "wills/lost", "--will-payload", "gone", "--will-qos", "1")
    lost.kill()
    watcher.ends_with("gone\n")


class Mosquitto:
    """Mosquitto's clients of one version of MQTT, towards one broker."""

    def __init__(self, trial, version, port):
        self.trial = trial
        self.version = version
        self.options = ["-V", NAMES[version], "-h", HOST, "-p", str(port)]

    def run(self, program, *options, text=""):
        done = self.trial.run([program, *self.options, *options], text)
        assert done.returncode == 0, f"{program} {options} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def subscriber(self, *options):
        """One whose subscription the broker has acknowledged."""
        program = Subscriber(self.trial, ["mosquitto_sub", "-d", *self.options, *options])
        program.wait_until_said("Subscribed")
        return program


class Subscriber(Program):
    """On a terminal: into a file, Mosquitto's clients hold their lines back until they end."""

    def __init__(self, trial, command):
        own, terminal = pty.openpty()
        tty.setraw(terminal)
        super().__init__(trial, "mosquitto_sub", command, stdout=terminal)
        os.close(terminal)
        self.reader = threading.Thread(target=self.read, args=(own,), daemon=True)
        self.reader.start()

    def read(self, own):
        with self.log.open("ab", buffering=0) as log:
            try:
                while arrived := os.read(own, 65_536):
                    log.write(arrived)
            except OSError:
                # The program has ended, and with it the terminal.
                pass
        os.close(own)

    def ends_with(self, expected):
        """Waits for its end, and compares the messages that it got."""
        code = self.process.wait(PATIENCE_S)
        self.reader.join(PATIENCE_S)
        # The other lines are of the option -d.
        got = "".join(f"{line}\n" for line in self.said().splitlines() if not line.startswith(("Client ", "Subscribed ")))
        assert (code, got) == (0, expected), (code, got)
