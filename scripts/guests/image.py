"""The guest's root: an initramfs of programs of this machine with their libraries, and of what runs inside."""

import os
import pathlib
import re
import shutil
import stat
import subprocess

from . import debian

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
INSIDE = pathlib.Path(__file__).resolve().parent / "inside"
PAHO_SCENARIOS = REPOSITORY / "tests" / "end_to_end" / "paho"

LIBRARIES = "libraries"
WHERE_PYTHON_IS = """
import os, paho, sys, sysconfig
print(os.path.realpath(sys.executable), sysconfig.get_path("stdlib"), os.path.dirname(paho.__file__), sep="\\n")
"""
# Parts of Python that nothing inside needs.
LEFT_OUT = shutil.ignore_patterns(
    "test", "tests", "site-packages", "dist-packages", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data",
    "config-3*", "*.a", "*.opt-*.pyc", "_test*.so", "_tkinter*.so", "__phello__", "distutils",
)


def build(binaries):
    """Writes the initramfs with the programs in `binaries`. Returns its path, and what it had to leave out."""
    image = Archive()
    left_out = []
    programs = {name: binaries / name for name in ("ringmq", "ringmq-bench")}
    mosquitto = interop("mosquitto", left_out)
    if mosquitto:
        programs |= {name: unwrapped(mosquitto) / name for name in ("mosquitto_pub", "mosquitto_sub")}
    for name, path in programs.items():
        image.file(f"bin/{name}", path)
    add_python(image, programs, left_out)
    add_libraries(image, programs.values())
    image.file("bin/busybox", debian.busybox())
    for path in INSIDE.iterdir():
        if path.is_file():
            image.file("init" if path.name == "init" else f"inside/{path.name}", path)
    for name in ("proc", "sys", "dev", "tmp", "disk"):
        image.folder(name)
    output = debian.PLACE / "initramfs"
    image.write(output)
    return output, left_out


def unwrapped(folder):
    """Where the programs themselves are, if scripts/interop has fetched them: beside each stands a script that runs it."""
    fetched = pathlib.Path(folder).parent / "root" / "usr" / "bin"
    return fetched if fetched.is_dir() else pathlib.Path(folder)


def interop(name, left_out):
    done = subprocess.run([REPOSITORY / "scripts" / "interop", name], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        left_out.append((name, done.stderr.strip()))
        return None
    return done.stdout.strip()


def add_python(image, programs, left_out):
    """The interpreter that has paho-mqtt, at the path where it was built for, with its library."""
    python = interop("paho", left_out)
    if not python:
        raise debian.Absent(f"the guest runs its trials in the Python of scripts/interop paho: {left_out[-1][1]}")
    found = subprocess.run([python, "-c", WHERE_PYTHON_IS], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    program, library, paho = map(pathlib.Path, found.stdout.split())
    image.file(str(program).lstrip("/"), program)
    image.link("bin/python3", str(program))
    image.tree(str(library).lstrip("/"), library, LEFT_OUT)
    image.tree("python/paho", paho, LEFT_OUT)
    image.tree("inside/paho_scenarios", PAHO_SCENARIOS, LEFT_OUT)
    programs["python3"] = program
    for number, module in enumerate(sorted(library.glob("lib-dynload/*.so"))):
        if not LEFT_OUT(None, [module.name]):
            programs[f"module {number}"] = module


def add_libraries(image, programs):
    """The shared libraries in one folder, which LD_LIBRARY_PATH names inside; the loader at its own path."""
    # Fetched programs have theirs below a root of their own.
    roots = {parent for program in programs for parent in pathlib.Path(program).parents if parent.match("interop/mosquitto/root")}
    own = sorted({str(path.parent) for root in roots for path in root.rglob("*.so*")})
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(own)}
    told = subprocess.run(["ldd", *programs], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment).stdout
    for path in sorted(set(re.findall(r"=> (/\S+)", told))):
        image.file(f"{LIBRARIES}/{pathlib.Path(path).name}", path)
    for path in sorted(set(re.findall(r"^\s+(/\S*ld-linux\S*)", told, re.MULTILINE))):
        image.file(path.lstrip("/"), path)


class Archive:
    """A cpio archive in the format that the kernel unpacks ("newc")."""

    def __init__(self):
        # Name to (mode, time, path or bytes); folders come before what is in them.
        self.entries = {}

    def folder(self, name):
        parent = os.path.dirname(name)
        if parent:
            self.folder(parent)
        self.entries.setdefault(name, (stat.S_IFDIR | 0o755, 0, b""))

    def file(self, name, path):
        self.folder(os.path.dirname(name) or "bin")
        found = os.stat(path)
        self.entries[name] = (stat.S_IFREG | stat.S_IMODE(found.st_mode), int(found.st_mtime), pathlib.Path(path))

    def link(self, name, target):
        self.folder(os.path.dirname(name))
        self.entries[name] = (stat.S_IFLNK | 0o777, 0, target.encode())

    def tree(self, name, path, ignore):
        self.folder(name)
        names = sorted(os.listdir(path))
        left_out = ignore(path, names)
        for child in names:
            if child in left_out:
                continue
            inner = pathlib.Path(path) / child
            if inner.is_dir():
                self.tree(f"{name}/{child}", inner, ignore)
            else:
                self.file(f"{name}/{child}", inner)

    def write(self, output):
        partial = output.with_name(output.name + ".partial")
        with partial.open("wb") as file:
            for number, (name, (mode, time, content)) in enumerate(self.entries.items(), 1):
                content = content.read_bytes() if isinstance(content, pathlib.Path) else content
                self.entry(file, number, name, mode, time, content)
            self.entry(file, 0, "TRAILER!!!", 0, 0, b"")
        partial.rename(output)

    @staticmethod
    def entry(file, number, name, mode, time, content):
        name = name.encode() + b"\0"
        #        inode  mode  user group links time  size
        fields = [number, mode, 0, 0, 1, time, len(content), 0, 0, 0, 0, len(name), 0]
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        file.write(padded(header + name) + padded(content))


def padded(content):
    return content + b"\0" * (-len(content) % 4)
