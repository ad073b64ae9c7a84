"""Take-over on 7 shards: the same client identifier again and again, while messages flow to it and from it."""

import threading

import mqtt
from trial import PATIENCE_S

TAKE_OVERS = 60
# Messages that go to the client, and from it, between two take-overs.
BETWEEN = 5
RIVALS, TIMES = 8, 10


def in_turn(trial):
    """Each connection gets a few messages and is taken over by the next one, with more on their way."""
    broker = trial.broker()
    publisher, watcher = mqtt.Client("publisher", broker.port), mqtt.Client("watcher", broker.port)
    watcher.subscribe("from/#", 1)
    roamer = mqtt.Client("roamer", broker.port)
    assert not roamer.is_session_present
    roamer.subscribe("to/#", 1)
    got, accepted = [], set()
    for turn in range(TAKE_OVERS):
        first, end = turn * BETWEEN, (turn + 1) * BETWEEN
        for number in range(first, end):
            publisher.publish("to/roamer", str(number), number + 1)
            roamer.publish(f"from/{number % 3}", str(number), number + 1)
        # Every other time messages are still under way, in both directions.
        while turn % 2 and last_of(roamer) < end - 1:
            roamer.packet()
        following = mqtt.Client("roamer", broker.port)
        assert following.is_session_present, f"take-over {turn}: the session is gone"
        reason = roamer.wait_until_closed()
        assert reason == mqtt.SESSION_TAKEN_OVER, f"take-over {turn}: the old connection's reason is {reason}"
        got += roamer.messages
        accepted |= {str(packet_id - 1) for packet_id in roamer.acknowledged}
        roamer = following
        if turn % 3 == 0:
            roamer.subscribe("to/#", 1)
    count = TAKE_OVERS * BETWEEN
    while len({payload for payload, _ in got + roamer.messages}) < count:
        roamer.packet_or(f"after the last take-over, of {count} messages there are {len(got + roamer.messages)}, repeats included")
    again = check_order(got + roamer.messages, count)
    watcher_gets(watcher, accepted)
    broker.stop()
    to_it = f"{count} messages to it in order, {again} of them again"
    return f"{TAKE_OVERS} take-overs; {to_it}; {len(accepted)} accepted from it arrived"


def last_of(client):
    return int(client.messages[-1][0]) if client.messages else -1


def check_order(got, count):
    """Every message, in order; one that came before may come again, marked. Returns how many came again."""
    expected, again = 0, 0
    for payload, is_marked in got:
        if int(payload) == expected:
            expected += 1
        else:
            assert is_marked and int(payload) < expected, f"got {payload}, expected {expected}: {got}"
            again += 1
    assert expected == count, f"{expected} of {count} messages arrived"
    return again


def watcher_gets(watcher, accepted):
    """What the broker acknowledged to the client that was taken over has to arrive, once."""
    while missing := accepted - {payload for payload, _ in watcher.messages}:
        watcher.packet_or(f"acknowledged and lost: {sorted(map(int, missing))}")
    arrived = [payload for payload, _ in watcher.messages]
    assert len(arrived) == len(set(arrived)), f"a message arrived twice: {arrived}"


def at_once(trial):
    """Rivals take a session from each other at the same time; in the end one has it, and all that was accepted is in it."""
    broker = trial.broker()
    mqtt.Client("contested", broker.port).subscribe("to/#", 1)
    failures, left = [], []

    def rival(own):
        try:
            for time in range(TIMES):
                left.append(contend(broker.port, own * TIMES + time))
        except Exception as wrong:
            failures.append(wrong)

    rivals = [threading.Thread(target=rival, args=(own,), daemon=True) for own in range(RIVALS)]
    for thread in rivals:
        thread.start()
    for thread in rivals:
        thread.join(2 * PATIENCE_S)
        assert not thread.is_alive(), "a rival hangs"
    assert not failures, failures
    last = mqtt.Client("contested", broker.port)
    assert last.is_session_present
    let_in = [client for client in left if client]
    reasons = [client.wait_until_closed() for client in let_in]
    assert all(reason in (mqtt.SESSION_TAKEN_OVER, None) for reason in reasons), reasons
    accepted = {str(packet_id) for client in let_in for packet_id in client.acknowledged}
    while missing := accepted - {payload for payload, _ in last.messages}:
        last.packet_or(f"acknowledged and lost: {sorted(map(int, missing))}")
    broker.stop()
    closed = f"{len(let_in)} of {len(left)} connections let in, {reasons.count(None)} closed without a reason"
    return f"{RIVALS} rivals, {closed}; {len(accepted)} messages accepted arrived"


def contend(port, number):
    """Connects, publishes and stays; `None` if a rival took over before CONNACK."""
    try:
        client = mqtt.Client("contested", port)
    except mqtt.Closed:
        return None
    try:
        client.publish("to/contested", str(number + 1), number + 1)
    except (BrokenPipeError, ConnectionResetError):
        # What the broker said before is still to be read.
        pass
    return client
