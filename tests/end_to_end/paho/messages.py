"""paho-mqtt 3.1.1 and 5: publishing and subscribing."""

import os

from peer import V311, V5, Peer, properties, run


def every_qos_arrives_in_order(version):
    subscriber, publisher = Peer("s", version), Peer("p", version)
    subscriber.subscribe("a/+/c", 2)
    for qos in (0, 1, 2):
        for number in range(100):
            publisher.client.publish(f"a/{qos}/c", f"{qos}-{number}", qos)
        for number in range(100):
            subscriber.expect(f"a/{qos}/c", f"{qos}-{number}", qos)
    subscriber.leave()
    publisher.leave()


def retained_messages_are_kept_and_deleted(version):
    publisher = Peer("p", version)
    publisher.publish("kept/1", "one", 1, retain=True)
    publisher.publish("kept/2", "two", 2, retain=True)
    publisher.publish("kept/2", "", 1, retain=True)
    subscriber = Peer("s", version)
    subscriber.subscribe("kept/#", 1)
    subscriber.expect("kept/1", "one", 1, retain=True)
    subscriber.expect_nothing()
    publisher.publish("kept/1", "live", 1, retain=True)
    subscriber.expect("kept/1", "live", 1)
    publisher.publish("kept/1", b"", 1, retain=True)
    subscriber.expect("kept/1", "", 1)
    subscriber.leave()
    publisher.leave()


def a_big_payload_arrives_whole(version):
    subscriber, publisher = Peer("s", version), Peer("p", version)
    subscriber.subscribe("big", 2)
    for size in (1 << 10, 65_535, 200_000, 1_000_000):
        payload = os.urandom(size)
        publisher.publish("big", payload, 2)
        subscriber.expect("big", payload, 2)
    subscriber.leave()
    publisher.leave()


def unsubscribe_ends_the_messages(version):
    subscriber, publisher = Peer("s", version), Peer("p", version)
    subscriber.subscribe("t", 1)
    publisher.publish("t", "one", 1)
    subscriber.expect("t", "one", 1)
    subscriber.unsubscribe("t")
    publisher.publish("t", "two", 1)
    subscriber.expect_nothing()
    subscriber.leave()
    publisher.leave()


def user_properties_keep_their_order():
    subscriber, publisher = Peer("s"), Peer("p")
    subscriber.subscribe("t", 1)
    pairs = [("b", "1"), ("a", "2"), ("b", "3"), ("", ""), ("b", "1")]
    publisher.publish(
        "t", "x", 1, UserProperty=pairs, ContentType="text/plain", CorrelationData=b"\x00\xff", ResponseTopic="re/ply",
        PayloadFormatIndicator=1, MessageExpiryInterval=60,
    )
    got = subscriber.expect("t", "x", 1).properties
    assert got.UserProperty == pairs, got.UserProperty
    assert (got.ContentType, got.CorrelationData, got.ResponseTopic) == ("text/plain", b"\x00\xff", "re/ply")
    assert got.PayloadFormatIndicator == 1 and 58 <= got.MessageExpiryInterval <= 60
    subscriber.leave()
    publisher.leave()


def subscription_identifiers_come_along():
    subscriber, publisher = Peer("s"), Peer("p")
    subscriber.subscribe("a/b", 0, sub_id=1)
    subscriber.subscribe("a/+", 1, sub_id=268_435_455)
    publisher.publish("a/b", "x", 1)
    message = subscriber.expect("a/b", "x", 1)
    assert sorted(message.properties.SubscriptionIdentifier) == [1, 268_435_455], message.properties
    subscriber.expect_nothing()
    subscriber.leave()
    publisher.leave()


def subscription_options_are_obeyed():
    both, publisher = Peer("s"), Peer("p")
    publisher.publish("kept", "old", 1, retain=True)
    both.subscribe("kept", 1, retainHandling=2, noLocal=True)
    both.publish("kept", "own", 1)
    both.expect_nothing()
    both.subscribe("kept", 1, retainAsPublished=True, retainHandling=2)
    publisher.publish("kept", "new", 1, retain=True)
    both.expect("kept", "new", 1, retain=True)
    publisher.publish("kept", "", 1, retain=True)
    both.expect("kept", "", 1, retain=True)
    both.leave()
    publisher.leave()


def topic_aliases_work_both_ways():
    subscriber = Peer("s", TopicAliasMaximum=5)
    publisher = Peer("p")
    assert publisher.connack.TopicAliasMaximum > 0
    subscriber.subscribe("a/#", 0)
    publisher.publish("a/long/topic", "first", TopicAlias=3)
    for number in range(20):
        publisher.publish("", str(number), TopicAlias=3)
    # paho hands on the alias instead of the topic it stands for.
    aliases = {}
    for payload in ["first"] + [str(number) for number in range(20)]:
        message = subscriber.messages.get(timeout=10)
        alias = getattr(message.properties, "TopicAlias", None)
        if message.topic:
            aliases[alias] = message.topic
        assert (message.topic or aliases[alias]) == "a/long/topic", message.topic
        assert message.payload == payload.encode(), message.payload
    assert len([alias for alias in aliases if alias]) == 1, aliases
    subscriber.leave()
    publisher.leave()


def a_request_is_answered():
    server, client = Peer("server"), Peer("client")
    server.subscribe("service", 1)
    client.subscribe("answers/client", 1)
    client.publish("service", "2+2", 1, ResponseTopic="answers/client", CorrelationData=b"7")
    request = server.expect("service", "2+2", 1)
    server.publish(request.properties.ResponseTopic, "4", 1, CorrelationData=request.properties.CorrelationData)
    answer = client.expect("answers/client", "4", 1)
    assert answer.properties.CorrelationData == b"7"
    server.leave()
    client.leave()


def members_of_a_group_share(version):
    members = [Peer(f"m{number}", version) for number in range(3)]
    publisher = Peer("p", version)
    for member in members:
        member.subscribe("$share/group/work/#", 1)
    for number in range(90):
        publisher.publish(f"work/{number}", str(number), 1)
    got = []
    for member in members:
        mine = 0
        while True:
            try:
                got.append(int(member.messages.get(timeout=0.5).payload))
                mine += 1
            except Exception:
                break
        assert mine > 0, "a member got nothing"
    assert sorted(got) == list(range(90)), f"{len(got)} messages"
    for peer in members + [publisher]:
        peer.leave()


def versions_meet():
    old, new = Peer("old", V311), Peer("new", V5)
    old.subscribe("t/#", 2)
    new.subscribe("t/#", 2)
    old.publish("t/old", "x", 2)
    new.publish("t/new", "y", 2, UserProperty=[("a", "b")])
    for peer in (old, new):
        topics = sorted(peer.messages.get(timeout=10).topic for _ in range(2))
        assert topics == ["t/new", "t/old"], topics
        peer.leave()


def the_broker_tells_of_itself():
    watcher = Peer("watcher")
    watcher.subscribe("$SYS/broker/version", 0)
    message = watcher.messages.get(timeout=15)
    assert message.topic == "$SYS/broker/version" and b"ringmq" in message.payload.lower(), message.payload
    watcher.leave()


for_both = [
    every_qos_arrives_in_order, retained_messages_are_kept_and_deleted, a_big_payload_arrives_whole,
    unsubscribe_ends_the_messages, members_of_a_group_share,
]
for_5 = [
    user_properties_keep_their_order, subscription_identifiers_come_along, subscription_options_are_obeyed,
    topic_aliases_work_both_ways, a_request_is_answered, versions_meet, the_broker_tells_of_itself,
]
run(
    [(f"{f.__name__} in 3.1.1", f, (V311,)) for f in for_both]
    + [(f"{f.__name__} in 5", f, (V5,)) for f in for_both]
    + [(f.__name__, f, ()) for f in for_5]
)
