"""A paho-mqtt client that waits for what it is told to expect."""

import queue
import sys
import time
import traceback

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT = sys.argv[1], int(sys.argv[2])
V311, V5 = mqtt.MQTTv311, mqtt.MQTTv5
PATIENCE_S = 10
# How long it must be quiet where nothing is expected.
QUIET_S = 0.3


def properties(kind, **values):
    made = Properties(getattr(PacketTypes, kind))
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Peer:
    """One client; `connect=False` leaves it unconnected, for its will to be set."""

    def __init__(self, client_id, version=V5, clean=True, expiry=None, connect=True, keep_alive=60, **connect_properties):
        self.version = version
        options = {} if version == V5 else {"clean_session": clean}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, reconnect_on_failure=False, **options
        )
        self.messages = queue.Queue()
        self.events = queue.Queue()
        self.client.on_message = lambda client, data, message: self.messages.put(message)
        self.client.on_connect = lambda client, data, flags, reason, props: self.events.put(("connect", flags, reason, props))
        self.client.on_disconnect = lambda client, data, flags, reason, props: self.events.put(("disconnect", flags, reason, props))
        self.client.on_subscribe = lambda client, data, mid, reasons, props: self.events.put(("subscribe", mid, reasons, props))
        self.client.on_unsubscribe = lambda client, data, mid, reasons, props: self.events.put(("unsubscribe", mid, reasons, props))
        self.options = {}
        if version == V5:
            if expiry is not None:
                connect_properties["SessionExpiryInterval"] = expiry
            self.options["clean_start"] = clean
            self.options["properties"] = properties("CONNECT", **connect_properties)
        self.keep_alive = keep_alive
        if connect:
            self.connect()

    def connect(self):
        self.client.connect(HOST, PORT, keepalive=self.keep_alive, **self.options)
        self.client.loop_start()
        _, self.flags, self.reason, self.connack = self.event("connect")
        assert not self.reason.is_failure, self.reason
        return self

    def event(self, name):
        event = self.events.get(timeout=PATIENCE_S)
        assert event[0] == name, event
        return event

    def subscribe(self, topic, qos=0, **options):
        if self.version == V5:
            sub_id = options.pop("sub_id", None)
            made = properties("SUBSCRIBE", SubscriptionIdentifier=sub_id) if sub_id else None
            self.client.subscribe(topic, options=mqtt.SubscribeOptions(qos=qos, **options), properties=made)
        else:
            self.client.subscribe(topic, qos)
        return self.event("subscribe")[2][0]

    def unsubscribe(self, topic):
        self.client.unsubscribe(topic)
        self.event("unsubscribe")

    def publish(self, topic, payload, qos=0, retain=False, **values):
        made = properties("PUBLISH", **values) if values else None
        info = self.client.publish(topic, payload, qos, retain, made)
        info.wait_for_publish(PATIENCE_S)
        assert info.is_published()

    def expect(self, topic, payload, qos=None, retain=False):
        message = self.messages.get(timeout=PATIENCE_S)
        if isinstance(payload, str):
            payload = payload.encode()
        assert (message.topic, message.payload) == (topic, payload), (message.topic, message.payload[:80])
        assert qos is None or message.qos == qos, message.qos
        assert bool(message.retain) == retain, message.retain
        return message

    def expect_nothing(self):
        try:
            message = self.messages.get(timeout=QUIET_S)
        except queue.Empty:
            return
        raise AssertionError(f"got {message.topic}: {message.payload[:80]}")

    def leave(self):
        self.client.disconnect()
        self.event("disconnect")
        self.client.loop_stop()

    def vanish(self):
        """Closes the socket without DISCONNECT."""
        self.client.loop_stop()
        self.client.socket().close()


def run(scenarios):
    """Runs each `(name, function, arguments)`; exits with 1 when one does not hold."""
    failed = 0
    for name, function, arguments in scenarios:
        began = time.monotonic()
        try:
            function(*arguments)
            print(f"ok {name} ({time.monotonic() - began:.2f} s)", flush=True)
        except Exception as error:  # a failed scenario must not hide the next
            traceback.print_exc()
            print(f"FAILED {name}: {error!r}", flush=True)
            failed += 1
    print(f"{len(scenarios) - failed} of {len(scenarios)} hold", flush=True)
    sys.exit(1 if failed else 0)
