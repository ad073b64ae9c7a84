"""paho-mqtt 3.1.1 and 5: connections, sessions and wills."""

import time

from peer import V311, V5, Peer, properties, run


def lasting(client_id, version, clean=False, **more):
    """A client whose session outlives its connection."""
    expiry = 100 if version == V5 else None
    return Peer(client_id, version, clean=clean, expiry=expiry, **more)


def a_session_keeps_messages_for_its_client(version):
    away, publisher = lasting("away", version), Peer("p", version)
    assert not away.flags.session_present
    away.subscribe("t", 2)
    away.leave()
    for number in range(50):
        publisher.publish("t", str(number), 1 + number // 25)
    back = lasting("away", version)
    assert back.flags.session_present
    # paho hands a QoS 2 message on with its PUBREL: the order is kept within each QoS.
    for number in range(50):
        back.expect("t", str(number), 1 + number // 25)
    back.leave()
    Peer("away", version, clean=True).leave()
    publisher.leave()


def a_clean_start_forgets(version):
    away = lasting("forgotten", version)
    away.subscribe("t", 1)
    away.leave()
    anew = Peer("forgotten", version, clean=True)
    assert not anew.flags.session_present
    anew.publish("t", "x", 1)
    anew.expect_nothing()
    anew.leave()


def a_will_tells_of_a_lost_client(version):
    watcher = Peer("watcher", version)
    watcher.subscribe("wills/#", 1)
    lost = Peer("lost", version, connect=False)
    lost.client.will_set("wills/lost", "gone", 1, retain=True)
    lost.connect()
    watcher.expect_nothing()
    lost.vanish()
    watcher.expect("wills/lost", "gone", 1)
    late = Peer("late", version)
    late.subscribe("wills/lost", 1)
    late.expect("wills/lost", "gone", 1, retain=True)
    late.publish("wills/lost", "", 1, retain=True)
    polite = Peer("polite", version, connect=False)
    polite.client.will_set("wills/polite", "gone", 1)
    polite.connect().leave()
    watcher.expect("wills/lost", "", 1)
    watcher.expect_nothing()
    watcher.leave()
    late.leave()


def a_will_may_wait():
    watcher = Peer("watcher")
    watcher.subscribe("wills/#", 1)
    lost = Peer("lost", connect=False, expiry=100)
    delay = properties("WILLMESSAGE", WillDelayInterval=1, UserProperty=[("b", "1"), ("a", "2")])
    lost.client.will_set("wills/lost", "gone", 1, properties=delay)
    lost.connect().vanish()
    watcher.expect_nothing()
    message = watcher.expect("wills/lost", "gone", 1)
    assert message.properties.UserProperty == [("b", "1"), ("a", "2")], message.properties
    lost = Peer("lost", connect=False, expiry=100)
    lost.client.will_set("wills/lost", "gone", 1, properties=delay)
    lost.connect().vanish()
    Peer("lost", clean=False, expiry=0)
    time.sleep(1.2)
    watcher.expect_nothing()
    watcher.leave()


def a_second_connection_takes_over(version):
    first = lasting("same", version)
    first.subscribe("t", 1)
    second = lasting("same", version)
    assert second.flags.session_present
    reason = first.event("disconnect")[2]
    assert version == V311 or reason.value == 0x8E, reason
    second.publish("t", "x", 1)
    second.expect("t", "x", 1)
    second.leave()
    Peer("same", version, clean=True).leave()


def a_silent_client_is_missed(version):
    watcher = Peer("watcher", version)
    watcher.subscribe("wills/silent", 1)
    silent = Peer("silent", version, connect=False, keep_alive=1)
    silent.client.will_set("wills/silent", "gone", 1)
    silent.connect()
    # Pings keep it; without its loop it is silent.
    time.sleep(2.5)
    watcher.expect_nothing()
    silent.client.loop_stop()
    watcher.expect("wills/silent", "gone", 1)
    watcher.leave()


def an_identifier_is_assigned():
    nameless = Peer("", expiry=100)
    name = nameless.connack.AssignedClientIdentifier
    assert name
    nameless.leave()
    assert lasting(name, V5).flags.session_present


def unfinished_messages_are_sent_again():
    # The receive maximum holds the second one back until the first is acknowledged.
    slow = Peer("slow", expiry=100, clean=False, ReceiveMaximum=1)
    slow.client.manual_ack_set(True)
    slow.subscribe("t", 1)
    publisher = Peer("p")
    publisher.publish("t", "one", 1)
    publisher.publish("t", "two", 1)
    slow.expect("t", "one", 1)
    slow.expect_nothing()
    slow.vanish()
    back = Peer("slow", expiry=100, clean=False, ReceiveMaximum=1)
    assert back.flags.session_present
    assert back.expect("t", "one", 1).dup
    assert not back.expect("t", "two", 1).dup
    back.leave()
    publisher.leave()


for_both = [
    a_session_keeps_messages_for_its_client, a_clean_start_forgets, a_will_tells_of_a_lost_client,
    a_second_connection_takes_over, a_silent_client_is_missed,
]
for_5 = [a_will_may_wait, an_identifier_is_assigned, unfinished_messages_are_sent_again]
run(
    [(f"{f.__name__} in 3.1.1", f, (V311,)) for f in for_both]
    + [(f"{f.__name__} in 5", f, (V5,)) for f in for_both]
    + [(f.__name__, f, ()) for f in for_5]
)
