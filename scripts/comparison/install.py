"""How a peer is found or fetched: a program of this machine, a Debian package, a crate, an archive, a docker image. What is
fetched stays below target/peers: nothing is installed on the machine, and no service starts."""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile

from .peer_file import REPOSITORY, fill

PLACE = REPOSITORY / "target" / "peers"
CRATES = REPOSITORY / "target" / "tools"
LOG = PLACE / "log"

DEBIAN_MIRROR = "http://deb.debian.org/debian"
DEBIAN_KEYS = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS_SUITE = "trixie"
LISTS_AGE_MAX_S = 7 * 86_400

FETCH_S = 600
BUILD_S = 3600
VERSION_S = 30
ARCHIVE_SIZE_MAX = 2 << 30


class Absent(Exception):
    """Why a broker cannot be had here."""


class Found:
    """A program that can be started: its command, the version that it tells, and the words that its file may use."""

    def __init__(self, version, words, container=None):
        self.version = version
        self.words = words
        self.container = container


def find(peer):
    """What is on this machine, else what can be fetched. Raises `Absent` with all reasons."""
    reasons = []
    for look in (on_this_machine, debian, cargo, archive, docker):
        try:
            found = look(peer)
            if found:
                return found
        except Absent as absent:
            reasons.append(str(absent))
    if peer.install["by_hand"]:
        reasons.append(peer.install["by_hand"])
    raise Absent("; ".join(reasons) or f"there is no {peer.find['program']} in PATH")


def on_this_machine(peer):
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *peer.find["paths"]])
    program = shutil.which(peer.find["program"], path=path)
    if not program:
        return None
    found = with_version(peer, program, pathlib.Path(program).parent)
    if not found.version.startswith(peer.find["version_prefix"]):
        raise Absent(f"{program} is {found.version}, not {peer.find['version_prefix']}")
    return found


def with_version(peer, program, root):
    """Asks a program for its version: what does not run is not taken."""
    words = {"program": program, "root": root}
    command = [fill(part, words) for part in peer.find["version"]]
    try:
        asked = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=VERSION_S)
    except (OSError, subprocess.TimeoutExpired) as wrong:
        raise Absent(f"{program} does not tell its version: {wrong}") from wrong
    said = asked.stdout.decode(errors="replace")
    version = re.search(peer.find["version_pattern"], said)
    if not version:
        line = next(iter(said.strip().splitlines()), "nothing")[:120]
        raise Absent(f"{' '.join(command)} says no version that find.version_pattern finds, but: {line}")
    return Found(version.group(1), words)


def log_to(command, what, patience_s, cwd=None, environment=None):
    """Runs what fetches or builds; its output goes to the log."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("ab") as log:
        log.write(f"$ {' '.join(map(str, command))}\n".encode())
        log.flush()
        try:
            run = subprocess.run(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=patience_s, cwd=cwd, env=environment
            )
        except (OSError, subprocess.TimeoutExpired) as wrong:
            raise Absent(f"{what}: {wrong}") from wrong
    if run.returncode != 0:
        raise Absent(f"{what}: see {LOG.relative_to(REPOSITORY)}")


def whole(folder, make):
    """A folder that `make(partial)` fills, once: one that was left in the middle is made again."""
    if not folder.is_dir():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(partial)
        partial.rename(folder)
    return folder


def debian(peer):
    """A package with the libraries that it needs, unpacked: it runs with its own C library, whatever this machine's is."""
    way = peer.install["debian"]
    if not way:
        return None
    apt = Apt(way["suite"])
    root = whole(PLACE / f"{way['package']}-{way['suite']}", lambda partial: apt.unpack(way["package"], partial))
    program = next((path for place in ("usr/sbin", "usr/bin", "sbin", "bin") if (path := root / place / peer.find["program"]).is_file()), None)
    if not program:
        raise Absent(f"Debian's {way['package']} of {way['suite']} has no program {peer.find['program']}")
    return with_version(peer, wrapped(root, program), root)


def wrapped(root, program):
    """A script that runs a program of `root` with its libraries."""
    loader = next(iter(sorted(root.rglob("ld-linux-*.so.*"))), None)
    folders = sorted({str(path.parent) for path in root.rglob("*.so*")})
    # Some packages leave the names under which programs look for libraries to ldconfig.
    link = shutil.which("ldconfig", path="/sbin:/usr/sbin")
    if link:
        log_to([link, "-n", *folders], f"the libraries of {program.name} cannot be named", VERSION_S)
    script = root / "run" / program.name
    script.parent.mkdir(exist_ok=True)
    start = f'exec "{loader}" --library-path "{":".join(folders)}"' if loader else f'LD_LIBRARY_PATH="{":".join(folders)}" exec'
    script.write_text(f'#!/bin/sh\n{start} "{program}" "$@"\n')
    script.chmod(0o755)
    return script


class Apt:
    """An apt with lists, cache and sources of its own, as whoever calls it."""

    def __init__(self, suite):
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb") or not DEBIAN_KEYS.exists():
            raise Absent(f"this machine has no apt-get with Debian's keys ({DEBIAN_KEYS})")
        self.suite = suite
        self.place = PLACE / "apt" / suite
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (self.place / folder).mkdir(parents=True, exist_ok=True)
        (self.place / "sources.list").write_text(f"deb [signed-by={DEBIAN_KEYS}] {DEBIAN_MIRROR} {suite} main\n")
        # No package counts as installed, so that all libraries come from one suite.
        (self.place / "status").touch()
        user = subprocess.run(["id", "-un"], stdout=subprocess.PIPE, text=True).stdout.strip()
        settings = {
            "Dir::State::Lists": self.place / "state" / "lists",
            "Dir::State::status": self.place / "status",
            "Dir::Cache": self.place / "cache",
            "Dir::Etc::SourceList": self.place / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Debug::NoLocking": "1",
            "APT::Sandbox::User": user,
        }
        self.options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]

    def update(self):
        stamp = self.place / "updated"
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > LISTS_AGE_MAX_S:
            log_to(["apt-get", *self.options, "update", "-q"], f"Debian's list of {self.suite} cannot be fetched", FETCH_S)
            stamp.touch()

    def unpack(self, package, root):
        self.update()
        what = f"Debian's {package} of {self.suite} cannot be fetched"
        simulate = ["apt-get", *self.options, "install", "--simulate", "--no-install-recommends", package]
        plan = subprocess.run(simulate, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        needed = re.findall(r"^Inst (\S+)", plan.stdout, re.MULTILINE)
        if package not in needed:
            raise Absent(f"{what}: {(plan.stdout.strip().splitlines() or ['apt says nothing'])[-1]}")
        archives = PLACE / "apt" / self.suite / "archives"
        shutil.rmtree(archives, ignore_errors=True)
        archives.mkdir()
        # Of what it needs only libraries matter to a program that is started by hand.
        names = [name for name in needed if name == package or name.startswith("lib")]
        log_to(["apt-get", *self.options, "download", "-q", *names], what, FETCH_S, cwd=archives)
        for archive in sorted(archives.glob("*.deb")):
            log_to(["dpkg-deb", "-x", archive, root], what, FETCH_S)


def cargo(peer):
    way = peer.install["cargo"]
    if not way:
        return None
    program = CRATES / "bin" / peer.find["program"]
    if program.exists():
        try:
            found = with_version(peer, program, CRATES)
            if found.version.startswith(peer.find["version_prefix"]):
                return found
        except Absent:
            pass
    if not shutil.which("cargo"):
        raise Absent("there is no cargo")
    tools = [built_tool(package) for package in way["debian_tools"]]
    print(f"installing {way['crate']} {way['version']} with cargo: some minutes", file=sys.stderr, flush=True)
    # Not --locked: lock files name crates that do not compile with a current Rust. A target folder of its own: the caller's is
    # for this repository.
    install = ["cargo", "install", "--quiet", "--force", "--root", CRATES, "--version", way["version"], way["crate"]]
    environment = {key: value for key, value in os.environ.items() if key != "CARGO_TARGET_DIR"}
    environment["PATH"] = os.pathsep.join([*tools, environment.get("PATH", "")])
    log_to(install, f"cargo cannot install {way['crate']} {way['version']}", BUILD_S, environment=environment)
    return with_version(peer, program, CRATES)


def built_tool(package):
    """The folder of a Debian package's programs, which a crate needs to be built."""
    root = whole(PLACE / f"{package}-{TOOLS_SUITE}", lambda partial: Apt(TOOLS_SUITE).unpack(package, partial))
    for program in sorted((root / "usr" / "bin").iterdir()):
        wrapped(root, program)
    return str(root / "run")


def archive(peer):
    way = peer.install["archive"]
    if not way:
        return None
    root = whole(PLACE / f"{peer.name}-{way['sha256'][:12]}", lambda partial: unpack_archive(way, partial))
    program = root / way["program"]
    if not program.is_file():
        raise Absent(f"{way['url']} has no file {way['program']}")
    return with_version(peer, program, root)


def unpack_archive(way, folder):
    """Only what has the digest that its file names is unpacked."""
    file = folder / "archive"
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(way["url"], timeout=VERSION_S) as source, file.open("wb") as target:
            while block := source.read(1 << 20):
                size += len(block)
                if size > ARCHIVE_SIZE_MAX:
                    raise Absent(f"{way['url']} is larger than {ARCHIVE_SIZE_MAX >> 30} GiB")
                digest.update(block)
                target.write(block)
    except OSError as wrong:
        raise Absent(f"{way['url']} cannot be fetched: {getattr(wrong, 'reason', wrong)}") from wrong
    if digest.hexdigest() != way["sha256"]:
        raise Absent(f"{way['url']} has the SHA-256 {digest.hexdigest()}, not the one that install.archive.sha256 names")
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as packed:
                for entry in packed.infolist():
                    mode = entry.external_attr >> 16 & 0o777
                    path = pathlib.Path(packed.extract(entry, folder))
                    if mode and path.is_file():
                        path.chmod(mode)
        else:
            with tarfile.open(file) as packed:
                packed.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, OSError) as wrong:
        raise Absent(f"{way['url']} cannot be unpacked: {wrong}") from wrong
    file.unlink()


def docker(peer):
    way = peer.install["docker"]
    if not way:
        return None
    image = way["image"]
    if not shutil.which("docker"):
        raise Absent(f"there is no docker for {image}")
    inspect = ["docker", "image", "inspect", image]
    if subprocess.run(inspect, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        log_to(["docker", "pull", "--quiet", image], f"docker cannot pull {image}", FETCH_S)
    return Found(image.partition(":")[2] or "latest", {"program": way["program"], "root": "/"}, image)
