"""Peer files: those of bench/peers are whole, and what is wrong in one is said with file, key and remedy."""

import hashlib
import os
import pathlib
import sys
import tarfile
import tempfile
import types
import unittest

sys.dont_write_bytecode = True
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

from comparison import install, peer_file

GOOD = """
name = "one"
about = "a broker"
mqtt = [3, 5]
tried = true
[find]
program = "one"
version = ["{program}", "--version"]
[start]
command = ["{program}", "-c", "{config}"]
[[file]]
name = "one.conf"
text = "port {port} and { braces }"
"""


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name) / "one.toml"

    def read(self, text):
        self.path.write_text(text)
        return peer_file.read(self.path)

    def refused(self, text, *parts):
        with self.assertRaises(peer_file.PeerError) as raised:
            self.read(text)
        sentence = str(raised.exception)
        self.assertTrue(sentence.startswith(str(self.path)), sentence)
        self.assertNotIn("\n", sentence)
        for part in parts:
            self.assertIn(part, sentence)

    def test_a_good_file_is_taken_with_its_defaults(self):
        peer = self.read(GOOD)
        self.assertEqual((peer.qos_max, peer.start["ready_s"], peer.stop["seconds"], peer.stop_signal.name), (2, 15, 10, "SIGTERM"))
        self.assertEqual(peer_file.fill(peer.files[0]["text"], {"port": 7}), "port 7 and { braces }")

    def test_a_wrong_or_missing_key_is_refused_with_file_key_and_remedy(self):
        self.refused(GOOD.replace("about", "abuot"), "there is no key abuot", "use one of name, about")
        self.refused(GOOD.replace('about = "a broker"\n', ""), "about is missing: add a line on what it is")
        self.refused(GOOD.replace("[3, 5]", "[4]"), "mqtt = [4] is wrong", "of 3 (3.1.1) and 5")
        self.refused(GOOD.replace("[3, 5]", "true"), "mqtt = True is wrong")
        self.refused(GOOD.replace("program =", "programme ="), "there is no key find.programme")
        self.refused(GOOD.replace("tried = true", "tried = false"), "reason is missing", "tried is false")
        self.refused(GOOD.replace("tried = true", "tried = 1"), "tried = 1 is wrong")
        self.refused(GOOD.replace('"one"', '"a b"', 1), "name = 'a b' is wrong")
        self.refused(GOOD.replace("{config}", "{confg}"), "start.command has {confg}", "{config}")
        self.refused(GOOD.replace("port {port}", "port 1883"), "{port} stands nowhere")
        self.refused(GOOD.replace('name = "one.conf"', 'name = "../one.conf"'), "name = '../one.conf' is wrong")
        self.refused(GOOD + "[install]\ndocker = 5\n", "install.docker = 5 is wrong")
        archive = '[install]\narchive = { url = "http://x/y.tar.gz", sha256 = "00", program = "one" }\n'
        self.refused(GOOD + archive, "install.archive.url", "https://")
        self.refused(GOOD + archive.replace("http:", "https:"), "install.archive.sha256", "64 hexadecimal digits")
        self.refused(GOOD + '[stop]\nseconds = 0\n', "stop.seconds = 0 is wrong")
        self.refused(GOOD + '[start.more]\n', "there is no key start.more")

    def test_what_does_not_parse_is_refused_with_the_line(self):
        self.refused(GOOD + "\nname = = 3\n", "this is no TOML", "line")
        self.path.write_bytes(b"\xff\xfe")
        with self.assertRaises(peer_file.PeerError):
            peer_file.read(self.path)
        with self.assertRaises(peer_file.PeerError) as raised:
            peer_file.read(self.path.with_name("absent.toml"))
        self.assertIn("No such file", str(raised.exception))

    def test_an_unknown_name_is_answered_with_those_that_there_are(self):
        with self.assertRaises(peer_file.PeerError) as raised:
            peer_file.find("no-such")
        self.assertIn("mosquitto", str(raised.exception))

    def test_the_files_of_the_repository_are_whole(self):
        known = peer_file.known()
        for name in ["mosquitto", "mosquitto-2.1", "flashmq", "nanomq", "emqx", "rumqttd", "rmqtt", "hivemq-ce", "vernemq"]:
            self.assertEqual(peer_file.find(name).name, name)
        self.assertTrue(all(peer_file.read(path).path == path for path in known.values()))
        self.assertNotIn("table", known)


class Installing(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.place = pathlib.Path(self.folder.name)
        self.addCleanup(setattr, install, "PLACE", install.PLACE)
        install.PLACE = self.place / "peers"

    def peer(self, program="one", version=("{program}",), prefix="", **ways):
        find = {"program": program, "paths": [str(self.place)], "version": list(version), "version_pattern": r"(\d\S*)", "version_prefix": prefix}
        kinds = dict.fromkeys(["debian", "cargo", "archive", "docker", "by_hand"])
        return types.SimpleNamespace(name="one", find=find, install=kinds | ways)

    def program(self, folder, says):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "one"
        path.write_text(f"#!/bin/sh\necho {says}\n")
        path.chmod(0o755)
        return path

    def packed(self, says="2.5"):
        self.program(self.place / "content" / "bin", says)
        path = self.place / "one.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(self.place / "content", arcname="one")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return {"url": path.as_uri(), "sha256": digest, "program": "one/bin/one"}

    def absent(self, peer, part):
        with self.assertRaises(install.Absent) as raised:
            install.find(peer)
        self.assertIn(part, str(raised.exception))

    def test_a_program_of_this_machine_is_taken_only_in_the_version_asked_for(self):
        self.program(self.place, "one version 2.0.1")
        self.assertEqual(install.find(self.peer(prefix="2.0")).version, "2.0.1")
        self.absent(self.peer(prefix="2.1"), "is 2.0.1, not 2.1")
        self.absent(self.peer(program="no-such-broker", by_hand="build it from source"), "build it from source")

    def test_an_archive_is_unpacked_only_with_its_digest(self):
        way = self.packed()
        found = install.find(self.peer(program="no-such", archive=way))
        self.assertEqual(found.version, "2.5")
        # Once: the archive is not needed again.
        pathlib.Path(way["url"].removeprefix("file://")).unlink()
        self.assertEqual(install.find(self.peer(program="no-such", archive=way)).version, "2.5")
        self.absent(self.peer(program="no-such", archive=way | {"sha256": "0" * 64}), "cannot be fetched")

    def test_an_archive_with_another_digest_leaves_nothing_behind(self):
        way = self.packed() | {"sha256": "0" * 64}
        self.absent(self.peer(program="no-such", archive=way), "not the one that install.archive.sha256 names")
        self.assertEqual([path for path in install.PLACE.rglob("*") if path.is_file() and path.name == "one"], [])

    def test_an_image_that_cannot_be_pulled_is_said_to_be(self):
        stub = self.place / "bin"
        stub.mkdir()
        (stub / "docker").write_text("#!/bin/sh\nexit 1\n")
        (stub / "docker").chmod(0o755)
        self.addCleanup(os.environ.__setitem__, "PATH", os.environ["PATH"])
        os.environ["PATH"] = f"{stub}:{os.environ['PATH']}"
        self.absent(self.peer(program="no-such", docker={"image": "some/image:1.2", "program": "one"}), "docker cannot pull some/image:1.2")


if __name__ == "__main__":
    unittest.main()
