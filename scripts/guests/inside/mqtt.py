"""The least MQTT 5.0 client, on a plain socket: what it sends and gets is what a trial says and sees."""

import socket

from trial import HOST, PATIENCE_S

CONNACK, PUBLISH, PUBACK, SUBACK, DISCONNECT = 0x20, 0x30, 0x40, 0x90, 0xE0
SESSION_TAKEN_OVER = 0x8E


class Closed(Exception):
    pass


class Client:
    """Connected with a session that outlives it. Messages that arrive are acknowledged and kept in `messages`."""

    def __init__(self, client_id, port, clean=False):
        self.socket = socket.create_connection((HOST, port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.bytes = b""
        # (payload, whether it is marked as sent before)
        self.messages = []
        self.acknowledged = set()
        flags = b"\x02" if clean else b"\x00"
        session_expiry = b"\x05\x11" + (300).to_bytes(4, "big")
        self.send(0x10, text("MQTT") + b"\x05" + flags + b"\x00\x3c" + session_expiry + text(client_id))
        kind, body = self.packet()
        assert kind == CONNACK and body[1] == 0, (kind, body)
        self.is_session_present = body[0] == 1

    def send(self, kind, body):
        self.socket.sendall(bytes([kind]) + variable(len(body)) + body)

    def subscribe(self, topic_filter, qos):
        self.send(0x82, b"\x00\x01\x00" + text(topic_filter) + bytes([qos]))
        _, body = self.wait_for(SUBACK)
        assert body[-1] == qos, body

    def publish(self, topic, payload, packet_id):
        self.send(PUBLISH | 0x02, text(topic) + packet_id.to_bytes(2, "big") + b"\x00" + payload.encode())

    def publish_and_wait(self, topic, payload, packet_id):
        self.publish(topic, payload, packet_id)
        while packet_id not in self.acknowledged:
            self.wait_for(PUBACK)

    def wait_for(self, kind):
        while True:
            found = self.packet()
            if found[0] & 0xF0 == kind:
                return found

    def wait_for_messages(self, count):
        while len(self.messages) < count:
            self.packet()

    def wait_until_closed(self):
        """The reason of the broker's DISCONNECT, or `None` if it closed without."""
        reason = None
        try:
            while True:
                kind, body = self.packet()
                if kind == DISCONNECT:
                    reason = body[0] if body else 0
        except Closed:
            return reason

    def packet_or(self, wrong):
        """The same as `packet`; silence means `wrong`."""
        try:
            return self.packet()
        except (AssertionError, Closed) as silence:
            raise AssertionError(wrong) from silence

    def packet(self):
        """The next packet's first byte and body."""
        while True:
            found = split(self.bytes)
            if found:
                break
            try:
                arrived = self.socket.recv(65_536)
            except ConnectionResetError:
                arrived = b""
            except TimeoutError:
                raise AssertionError(f"nothing arrived for {PATIENCE_S} s, and the connection is open") from None
            if not arrived:
                raise Closed
            self.bytes += arrived
        kind, body, self.bytes = found
        if kind & 0xF0 == PUBLISH:
            self.take(kind, body)
        elif kind == PUBACK:
            self.acknowledged.add(int.from_bytes(body[:2], "big"))
        return kind, body

    def take(self, kind, body):
        at = 2 + int.from_bytes(body[:2], "big")
        qos = (kind >> 1) & 3
        packet_id, at = (body[at : at + 2], at + 2) if qos else (None, at)
        size, at = number(body, at)
        self.messages.append((body[at + size :].decode(), bool(kind & 0x08)))
        if qos:
            try:
                self.send(PUBACK, packet_id)
            except (BrokenPipeError, ConnectionResetError):
                # The broker has closed; what it said before is still to be read.
                pass

    def close(self):
        self.socket.close()


def text(value):
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def variable(value):
    made = b""
    while True:
        value, digit = value >> 7, value & 0x7F
        made += bytes([digit | (0x80 if value else 0)])
        if not value:
            return made


def number(body, at):
    """A variable byte integer, and where it ends."""
    value, shift = 0, 0
    while True:
        value |= (body[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not body[at - 1] & 0x80:
            return value, at


def split(arrived):
    """The first packet and the rest, or `None` while it is not whole."""
    if len(arrived) < 2 or all(byte & 0x80 for byte in arrived[1:5]) and len(arrived) < 5:
        return None
    size, at = number(arrived, 1)
    if len(arrived) < at + size:
        return None
    return arrived[0], arrived[at : at + size], arrived[at + size :]
