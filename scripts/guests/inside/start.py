"""Whether RingMQ starts, or says in a sentence why not."""

import os


def check(trial):
    done = trial.run(trial.ringmq("check"))
    assert done.returncode == 0, done.stdout + done.stderr
    return f"Linux {os.uname().release}; {'; '.join(line for line in done.stdout.splitlines() if line.startswith('warn'))}"


def refused(trial):
    """On a kernel that is too old for io_uring."""
    done = trial.run(trial.ringmq("serve"))
    said = done.stdout + done.stderr
    assert done.returncode == 1, f"it ended with {done.returncode}: {said}"
    sentences = [line for line in said.splitlines() if "6.1" in line]
    assert sentences and "panicked" not in said, said
    return sentences[0]


def falls_back(trial):
    broker = trial.broker()
    warnings = [line for line in broker.said().splitlines() if "epoll" in line]
    assert any("warn" in line.lower() for line in warnings), f"no warning that names epoll: {broker.said()}"
    broker.stop()
    return warnings[0]
