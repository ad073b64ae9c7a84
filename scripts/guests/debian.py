"""Debian's packages, by an apt of their own below target/kernels: the machine's sources and packages stay as they are."""

import pathlib
import re
import shutil
import subprocess
import time

PLACE = pathlib.Path(__file__).resolve().parent.parent.parent / "target" / "kernels"
APT = PLACE / "apt"
PACKAGES = PLACE / "packages"
LOG = PLACE / "log"

MIRROR = "http://deb.debian.org/debian"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITES = ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports"]
KERNEL = "linux-image-cloud-amd64"

# A list of packages is fetched again after a week.
LISTS_AGE_MAX_S = 7 * 86_400
APT_PATIENCE_S = 300


class Absent(Exception):
    """What this machine does not have and cannot install, and why."""


class Kernel:
    def __init__(self, suite, package, version):
        self.suite = suite
        self.package = package
        # 6.1.176-1~bpo becomes 6.1.176, as people call it.
        self.version = re.match(r"[0-9.]+", version).group()

    def image(self):
        """The file that the machine boots."""
        # Newer packages of this name only depend on the one with the file.
        for package in (self.package, self.package.replace("linux-image-", "linux-binary-")):
            found = sorted(unpacked(package, self.suite).rglob("vmlinuz*"))
            if found:
                return found[0]
        raise Absent(f"{self.package} of {self.suite} has no kernel in it")

    def is_named(self, text):
        return text in (self.suite, self.version) or self.version.startswith(text + ".")


def kernels():
    """The newest kernel of each suite, once each, the oldest first."""
    update()
    found = {}
    for suite in SUITES:
        shown = apt("apt-cache", "show", f"{KERNEL}/{suite}")
        package = re.search(rf"^Depends:.*?(linux-image-[^ ,]+)", shown or "", re.MULTILINE)
        version = re.search(r"^Version: (\S+)", shown or "", re.MULTILINE)
        if package and version:
            kernel = Kernel(suite, package.group(1), version.group(1))
            found.setdefault(kernel.package, kernel)
    if not found:
        raise Absent(f"{MIRROR} has no {KERNEL}: see {LOG}")
    return sorted(found.values(), key=lambda kernel: [int(part) for part in kernel.version.split(".")])


def busybox():
    folder = unpacked("busybox-static", "bookworm")
    return next(path for path in (folder / "bin" / "busybox", folder / "usr" / "bin" / "busybox") if path.is_file())


def qemu():
    """The emulator's program, installed if it is absent and this is root."""
    program = shutil.which("qemu-system-x86_64")
    if not program:
        install = "apt-get install -y --no-install-recommends qemu-system-x86".split()
        try:
            run(["apt-get", "update", "-qq"])
            run(["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", *install])
        except (OSError, subprocess.SubprocessError) as wrong:
            raise Absent(f"qemu-system-x86_64 is absent and cannot be installed ({wrong}): see {LOG}") from wrong
        program = shutil.which("qemu-system-x86_64")
    if not program:
        raise Absent("qemu-system-x86_64 is absent although qemu-system-x86 is installed")
    return program


def update():
    if not shutil.which("apt-get") or not pathlib.Path(KEYS).exists():
        raise Absent(f"this machine has no apt-get with Debian's keys ({KEYS}), which brings kernels and busybox")
    for folder in (APT / "state" / "lists" / "partial", APT / "cache" / "archives" / "partial", PACKAGES):
        folder.mkdir(parents=True, exist_ok=True)
    (APT / "preferences.d").mkdir(exist_ok=True)
    sources = "".join(f"deb [arch=amd64 signed-by={KEYS}] {MIRROR} {suite} main\n" for suite in SUITES)
    stamp = APT / "updated"
    file = APT / "sources.list"
    is_same = file.exists() and file.read_text() == sources and stamp.exists()
    if is_same and time.time() - stamp.stat().st_mtime < LISTS_AGE_MAX_S:
        return
    file.write_text(sources)
    # A suite that the mirror does not have is no error of the others.
    apt("apt-get", "update", "-q")
    if not list((APT / "state" / "lists").glob("*_Packages*")):
        raise Absent(f"{MIRROR} cannot be reached: see {LOG}")
    stamp.touch()


def unpacked(package, suite):
    """The folder of a package's files, downloaded once."""
    folder = PACKAGES / package
    if folder.is_dir():
        return folder
    apt("apt-get", "download", f"{package}/{suite}", cwd=PACKAGES)
    archives = sorted(PACKAGES.glob(f"{package}_*.deb"))
    if not archives:
        raise Absent(f"{package} of {suite} cannot be downloaded: see {LOG}")
    partial = PACKAGES / f"{package}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    run(["dpkg-deb", "-x", archives[-1], partial])
    partial.rename(folder)
    for archive in archives:
        archive.unlink()
    return folder


def apt(program, *words, cwd=None):
    """What apt says; `None` if it fails, with the reason in the log."""
    own = {
        "Dir::Etc::sourcelist": APT / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": APT / "preferences.d",
        "Dir::State": APT / "state",
        "Dir::Cache": APT / "cache",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
    try:
        return run([program, *options, *words], cwd=cwd)
    except (OSError, subprocess.SubprocessError):
        return None


def run(command, cwd=None):
    PLACE.mkdir(parents=True, exist_ok=True)
    command = [str(word) for word in command]
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        done = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, timeout=APT_PATIENCE_S
        )
        if done.returncode:
            log.write(done.stdout)
        done.check_returncode()
    return done.stdout
