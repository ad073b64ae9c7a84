"""Peer files: what a broker is called, how it is found, configured, started and ended, read from TOML and checked."""

import dataclasses
import pathlib
import re
import signal
import tomllib

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
PEERS = REPOSITORY / "bench" / "peers"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SCHEME = re.compile("https://|file://")
SHA256 = re.compile(r"[0-9a-f]{64}")
BRACED = re.compile(r"\{([a-z_]+)\}")
# What stands in braces in a command, an environment and a configuration.
WORDS = {
    "port": "the TCP port to listen on, on 127.0.0.1",
    "core": "the core to run on",
    "folder": "an empty folder for this run, which is deleted behind it",
    "config": "the first [[file]] as written",
    "program": "the program that was found",
    "root": "the folder of what was fetched",
}
REASON_MAX = 200


class PeerError(Exception):
    """A peer file that cannot be used: file, key and remedy in a sentence."""


class Key:
    """A key of a peer file: its type in words, a check, and whether it must be there."""

    def __init__(self, type_, words, required=False, default=None, check=None, remedy=None):
        self.type = type_
        self.words = words
        self.required = required
        self.default = default
        self.check = check or (lambda value: True)
        self.remedy = remedy or words


def is_texts(value):
    return bool(value) and all(isinstance(part, str) and part for part in value)


def is_text_table(value):
    return all(isinstance(part, str) for part in value.values())


TEXTS = dict(check=is_texts)
SECONDS = dict(check=lambda value: 0 < value <= 600)

TOP = {
    "name": Key(str, "a name of letters, digits, '.', '_' and '-'", True, check=NAME.fullmatch),
    "about": Key(str, "a line on what it is", True, check=bool),
    "mqtt": Key(list, "the protocols that it speaks, of 3 (3.1.1) and 5", True, check=lambda value: value and set(value) <= {3, 5}),
    "qos_max": Key(int, "0, 1 or 2", False, 2, lambda value: value in (0, 1, 2)),
    "tried": Key(bool, "true, or false with a reason", True),
    "reason": Key(str, "why it has not been tried", check=lambda value: 0 < len(value) <= REASON_MAX),
    "quirks": Key(list, "sentences that belong beside its figures", False, [], is_texts),
    "find": Key(dict, "a section: how it is found", True),
    "install": Key(dict, "a section: how it is fetched where it is absent", False, {}),
    "start": Key(dict, "a section: how it is started", True),
    "stop": Key(dict, "a section: how it is ended", False, {}),
    "file": Key(list, "sections [[file]]: its configuration", False, []),
}
SECTIONS = {
    "find": {
        "program": Key(str, "the program's name", True, check=bool),
        "paths": Key(list, "further folders to look into", False, [], is_texts),
        "version": Key(list, "the command that prints the version, as [\"{program}\", \"--version\"]", True, **TEXTS),
        "version_pattern": Key(str, "a regular expression whose first group is the version", False, r"(\d+\.\d+(?:\.\d+)?\S*)"),
        "version_prefix": Key(str, "what the version must begin with; others are passed over", False, ""),
    },
    "install": {
        "debian": Key(dict, "a table: suite and package"),
        "cargo": Key(dict, "a table: crate and version"),
        "archive": Key(dict, "a table: url, sha256 and program"),
        "docker": Key(dict, "a table: image"),
        "by_hand": Key(str, "a sentence for whoever wants to install it"),
    },
    "start": {
        "command": Key(list, "the command line, as [\"{program}\", \"-c\", \"{config}\"]", True, **TEXTS),
        "environment": Key(dict, "a table of texts", False, {}, is_text_table),
        "ready_s": Key((int, float), "seconds until it accepts a client, at most 600", False, 15, **SECONDS),
    },
    "stop": {
        "signal": Key(str, "SIGTERM, SIGINT or SIGQUIT", False, "SIGTERM", lambda value: value in ("SIGTERM", "SIGINT", "SIGQUIT")),
        "seconds": Key((int, float), "seconds until it is killed, at most 600", False, 10, **SECONDS),
    },
    "file": {
        "name": Key(str, "the file's name or path below {folder}", True, check=lambda value: is_below(value)),
        "text": Key(str, "its text; what stands in braces is filled in, as {port}", True),
    },
}
WAYS = {
    "debian": {"suite": Key(str, "a suite, as trixie", True, check=NAME.fullmatch), "package": Key(str, "a package", True, check=NAME.fullmatch)},
    "cargo": {
        "crate": Key(str, "a crate", True, check=NAME.fullmatch),
        "version": Key(str, "its version", True, check=bool),
        "debian_tools": Key(list, "Debian packages with programs that its build calls", False, [], lambda value: all(map(NAME.fullmatch, value))),
    },
    "archive": {
        "url": Key(str, "an https:// or file:// address of a .tar.gz, .tar.xz or .zip", True, check=lambda value: SCHEME.match(value)),
        "sha256": Key(str, "64 hexadecimal digits", True, check=SHA256.fullmatch),
        "program": Key(str, "the program's path in it", True, check=lambda value: is_below(value)),
    },
    "docker": {
        "image": Key(str, "an image with its tag, as emqx/emqx:5.8.6", True, check=lambda value: value and not value.startswith("-")),
        "program": Key(str, "the program's path in it", True, check=bool),
    },
}


def is_below(path):
    parts = pathlib.PurePosixPath(path).parts
    return bool(parts) and ".." not in parts and not path.startswith("/")


@dataclasses.dataclass
class Peer:
    """A broker as its file has it."""

    path: pathlib.Path
    name: str
    about: str
    mqtt: list
    qos_max: int
    tried: bool
    reason: str
    quirks: list
    find: dict
    install: dict
    start: dict
    stop: dict
    files: list

    @property
    def stop_signal(self):
        return signal.Signals[self.stop["signal"]]


def read(path):
    path = pathlib.Path(path)
    try:
        table = tomllib.loads(path.read_text())
    except OSError as wrong:
        raise PeerError(f"{shown(path)}: {wrong.strerror or wrong}; a peer is a file as those in bench/peers") from wrong
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as wrong:
        raise PeerError(f"{shown(path)}: this is no TOML: {wrong}; mend it there") from wrong
    return checked(path, table)


def checked(path, table):
    where = shown(path)
    top = section(where, "", table, TOP)
    for name in ("find", "install", "start", "stop"):
        top[name] = section(where, name + ".", top[name], SECTIONS[name])
    for way, keys in WAYS.items():
        if top["install"][way] is not None:
            top["install"][way] = section(where, f"install.{way}.", top["install"][way], keys)
    files = []
    for at, own in enumerate(top.pop("file")):
        if not isinstance(own, dict):
            raise PeerError(f"{where}: file must be sections: write [[file]] over name and text")
        files.append(section(where, f"file[{at}].", own, SECTIONS["file"]))
    if not top["tried"] and not top["reason"]:
        raise PeerError(f"{where}: reason is missing, and tried is false: add reason = \"...\", {TOP['reason'].words}")
    if top["tried"] and top["reason"]:
        raise PeerError(f"{where}: reason says why a broker has not been tried, but tried is true: delete one of both")
    check_words(where, top, files)
    try:
        if re.compile(top["find"]["version_pattern"]).groups < 1:
            raise PeerError(f"{where}: find.version_pattern has no group: put parentheses around the version")
    except re.error as wrong:
        raise PeerError(f"{where}: find.version_pattern is no regular expression ({wrong})") from wrong
    return Peer(path=path, files=files, **top)


def check_words(where, top, files):
    """A command with a word that nothing fills in would be a riddle when it runs."""
    places = [("start.command", part) for part in top["start"]["command"]]
    places += [("find.version", part) for part in top["find"]["version"]]
    places += [(f"start.environment.{key}", part) for key, part in top["start"]["environment"].items()]
    for key, text in places:
        for word in BRACED.findall(text):
            if word not in WORDS:
                raise PeerError(f"{where}: {key} has {{{word}}}, which nothing fills in: use {', '.join('{' + known + '}' for known in WORDS)}")
            if word == "config" and not files:
                raise PeerError(f"{where}: {key} has {{config}}, but there is no [[file]]: add one")
    texts = [text for _, text in places] + [own["text"] for own in files]
    if not any("{port}" in text for text in texts):
        raise PeerError(f"{where}: {{port}} stands nowhere: start.command or a [[file]] must tell the broker its port")


def section(where, prefix, table, keys):
    """The table with what is absent filled in; refused if a key is unknown, missing or of another kind."""
    if not isinstance(table, dict):
        raise PeerError(f"{where}: {prefix.rstrip('.')} must be a section: {', '.join(keys)}")
    for key in table:
        if key not in keys:
            raise PeerError(f"{where}: there is no key {prefix}{key}: delete it or use one of {', '.join(keys)}")
    found = {}
    for name, key in keys.items():
        if name not in table:
            if key.required:
                raise PeerError(f"{where}: {prefix}{name} is missing: add {key.words}")
            found[name] = key.default
            continue
        value = table[name]
        is_kind = isinstance(value, key.type) and (key.type is bool or not isinstance(value, bool))
        if not is_kind or not key.check(value):
            raise PeerError(f"{where}: {prefix}{name} = {briefly(value)} is wrong: it must be {key.words}")
        found[name] = value
    return found


def briefly(value):
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def shown(path):
    path = pathlib.Path(path).absolute()
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


def known():
    """The files of bench/peers that are peers, by name: the others there are tables and RingMQ's configurations."""
    return {path.stem: path for path in sorted(PEERS.glob("*.toml"), key=lambda path: path.stem) if is_peer(path)}


def is_peer(path):
    return re.search(r"^\[start\]", path.read_text(), re.MULTILINE) is not None


def find(name):
    """The peer that a name or a path means."""
    if name.endswith(".toml") or "/" in name:
        return read(name)
    path = known().get(name)
    if path is None:
        raise PeerError(f"there is no broker {name}: it is none of {', '.join(known())}, and a file of your own ends in .toml")
    peer = read(path)
    if peer.name != name:
        raise PeerError(f"{shown(path)}: name = {peer.name!r} is wrong: in bench/peers it is the file's, {name!r}")
    return peer


def fill(text, words):
    """`text` with the words in braces filled in; braces around anything else stay."""
    return BRACED.sub(lambda match: str(words.get(match.group(1), match.group(0))), text)
