"""A broker that is not one: it accepts clients, and does on purpose what a peer does by mistake."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time

READY = b"\x20\x02\0\0"


def answer(client):
    with client, contextlib.suppress(ConnectionError):
        while client.recv(4096):
            client.sendall(READY)


def serve(port):
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("listening", flush=True)
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def never_listens(port):
    print("thinking about it", flush=True)
    time.sleep(600)


def ends_at_once(port):
    print("wrong key in line 7\x1b[31m", file=sys.stderr, flush=True)
    sys.exit(3)


def refuses_clients(port):
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("listening", flush=True)
        while True:
            client = listener.accept()[0]
            client.recv(4096)
            client.sendall(b"\x20\x02\0\x05")
            client.close()


def listens_elsewhere(port):
    # Which port it is, is told by the kernel.
    serve(0)


def accepts_and_is_silent(port):
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("listening", flush=True)
        held = []
        while True:
            held.append(listener.accept())


def ignores_sigterm(port):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(port)


def prints_a_lot(port):
    def babble():
        while True:
            sys.stdout.write("x" * 65536 + "\n")

    threading.Thread(target=babble, daemon=True).start()
    serve(port)


def forks(port):
    """A worker serves; the parent waits for it, and ends it when it is told to end."""
    child = os.fork()
    if child == 0:
        serve(port)
    signal.signal(signal.SIGTERM, lambda *_: (os.kill(child, signal.SIGTERM), os.waitpid(child, 0), sys.exit(0)))
    while True:
        time.sleep(1)


def forks_and_forgets(port):
    """As `forks`, but the worker is left behind, deaf."""
    if os.fork() == 0:
        ignores_sigterm(port)
    while True:
        time.sleep(1)


def becomes_a_daemon(port):
    """Leaves parent, session and all: only its environment still says whose it is."""
    if os.fork() > 0:
        os._exit(0)
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    serve(port)


def works_in_a_helper(port):
    """Another process than the one that listens does the work."""
    if os.fork() == 0:
        while True:
            pass
    serve(port)


if __name__ == "__main__":
    name, port = sys.argv[1:]
    globals()[name](int(port))
