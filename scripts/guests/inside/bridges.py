"""A bridge between two brokers of 7 shards; the remote one is killed, stopped and started while messages wait and flow."""

import os

import mqtt
import trial as trials

MESSAGES = 200
# Each message has a topic of its own and is retained: a subscriber gets it also if it came to the remote first.
CONFIG = """
data_dir = "{data}"

[[bridge]]
name = "north"
addresses = ["127.0.0.1:{north}"]
reconnect_min_ms = 200
reconnect_max_ms = 1000
forward = [{{ filter = "sensors/+/temp/#", to = "site-7/$1/t/$2", retain = "set" }}]
subscribe = [{{ filter = "commands/#", prefix = "north/" }}]
"""


def both_ways(trial):
    north_port = trials.free_port()
    config = trial.folder / "site.toml"
    # On the disk if the guest has one: a log in memory is never waited for.
    file_system, data = ("ext4", "/disk") if os.path.ismount("/disk") else ("tmpfs", "/tmp")
    config.write_text(CONFIG.format(data=f"{data}/{trial.folder.name}", north=north_port))
    north = trial.broker("north", north_port)
    site = trial.broker("site", options=["--config", str(config)])
    watcher = watch(north)
    publisher = mqtt.Client("publisher", site.port)
    publish(publisher, 0, MESSAGES)
    expect(watcher, 0, MESSAGES)
    from_remote(site, north)

    # Killed: what is published meanwhile waits in the log.
    north.kill()
    publish(publisher, MESSAGES, 2 * MESSAGES)
    north = trial.broker("north", north_port)
    expect(watch(north), MESSAGES, 2 * MESSAGES)

    # Stopped while messages flow: what the remote took it delivers, the rest is sent again.
    watcher = watch(north)
    begin, end = 2 * MESSAGES, 3 * MESSAGES
    for number in range(begin, end):
        send(publisher, number)
        if number == (begin + end) // 2:
            north.stop()
    wait_for_acknowledgements(publisher, end)
    watcher.wait_until_closed()
    live = {payload for payload, _ in watcher.messages}
    north = trial.broker("north", north_port)
    expect(watch(north), begin, end, live)
    from_remote(site, north)
    site.stop()
    north.stop()
    return f"{end} messages to a remote that was killed and stopped, {2 * MESSAGES} from it; log on {file_system}"


def watch(north):
    watcher = mqtt.Client("watcher", north.port, clean=True)
    watcher.subscribe("site-7/#", 1)
    return watcher


def publish(publisher, begin, end):
    for number in range(begin, end):
        send(publisher, number)
    wait_for_acknowledgements(publisher, end)


def send(publisher, number):
    publisher.publish(f"sensors/{number}/temp/in", str(number), number + 1)


def wait_for_acknowledgements(publisher, end):
    while len(publisher.acknowledged) < end:
        publisher.packet_or(f"{end - len(publisher.acknowledged)} messages are not acknowledged")


def expect(watcher, begin, end, got=frozenset()):
    wanted = {str(number) for number in range(begin, end)} - got
    while missing := wanted - {payload for payload, _ in watcher.messages}:
        watcher.packet_or(f"{len(missing)} messages are lost: {sorted(map(int, missing))[:20]}")


def from_remote(site, north):
    listener = mqtt.Client("listener", site.port, clean=True)
    listener.subscribe("north/commands/#", 1)
    sender = mqtt.Client("sender", north.port, clean=True)
    trials.wait_until("the bridge has subscribed at the remote", lambda: answers(sender, listener))
    for number in range(MESSAGES):
        sender.publish(f"commands/{number % 9}", str(number), number + 2)
    wanted = {str(number) for number in range(MESSAGES)}
    while missing := wanted - {payload for payload, _ in listener.messages}:
        listener.packet_or(f"{len(missing)} commands are lost: {sorted(map(int, missing))[:20]}")
    sender.close()
    listener.close()


def answers(sender, listener):
    """Whether a message comes through within a second."""
    sender.acknowledged.clear()
    sender.publish_and_wait("commands/probe", "probe", 1)
    listener.socket.settimeout(1)
    try:
        listener.wait_for_messages(1)
    except AssertionError:
        return False
    finally:
        listener.socket.settimeout(trials.PATIENCE_S)
    return True
