"""One guest: a kernel booted in QEMU without hardware help, its console, and the results that it prints there."""

import collections
import queue
import re
import shutil
import subprocess
import threading
import time

PROCESSORS = 8
MEMORY_MIB = 3072
# Without a line for so long, the guest hangs; each trial inside is bounded below it.
SILENCE_MAX_S = 180
TAIL_LINES = 40
DISK_MIB = 256

# Without cmpxchg16b: QEMU 7.2 emulates it wrongly, and Linux 6.12 crashes as it boots.
PROCESSOR = "max,-cx16"
# Threads of the emulator: one for each processor, or one for all.
PARALLEL, IN_TURN = "multi", "single"

# What the guest's clock and watchdogs take amiss in emulated time.
KERNEL_OPTIONS = (
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nowatchdog rcupdate.rcu_cpu_stall_suppress=1 "
    "tsc=reliable no_timer_check"
)

RESULT = re.compile(
    r"@ (?P<world>\S+) \| (?P<trial>[^|]+) \| (?P<verdict>ok|FAILED|SKIPPED) \| (?P<seconds>[0-9.]+) \| (?P<detail>.*)"
)
ENDED = "@ all trials done"
CRASHED = re.compile(r"Kernel panic|Oops")

Result = collections.namedtuple("Result", "world trial verdict seconds detail")


def run(qemu, threads, kernel, initramfs, words, log, whole_s, heard):
    """Boots and hears out one guest. Returns its results; `heard` is called with each of them.

    The last one is FAILED if the guest hangs, crashes or ends early: then its console's tail is the detail."""
    disk = log.with_name("disk")
    has_disk = make_disk(disk)
    said = [KERNEL_OPTIONS, *(["disk=/dev/nvme0n1"] if has_disk else []), "--", *words]
    command = [
        qemu, "-accel", f"tcg,thread={threads}", "-machine", "pc", "-cpu", PROCESSOR, "-smp", str(PROCESSORS),
        "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
        "-kernel", kernel, "-initrd", initramfs, "-append", " ".join(said),
    ]  # fmt: skip
    if has_disk:
        # Debian's cloud kernels have drivers for this disk and its file system built in.
        command += ["-drive", f"file={disk},if=none,format=raw,id=disk", "-device", "nvme,drive=disk,serial=disk"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = queue.Queue()
    threading.Thread(target=read, args=(process.stdout, lines), daemon=True).start()
    try:
        return hear(lines, log, whole_s, heard)
    finally:
        process.kill()
        process.wait()
        disk.unlink(missing_ok=True)


def make_disk(path):
    """An empty ext4; without one the logs of bridges are in the guest's memory."""
    mke2fs = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin")
    if not mke2fs:
        return False
    with path.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    done = subprocess.run([mke2fs, "-q", "-F", "-t", "ext4", path], stdin=subprocess.DEVNULL, capture_output=True)
    return done.returncode == 0


def read(console, lines):
    for line in console:
        lines.put(line.decode(errors="replace").rstrip())
    lines.put(None)


def hear(lines, log, whole_s, heard):
    results, tail = [], collections.deque(maxlen=TAIL_LINES)
    ends = time.monotonic() + whole_s
    with log.open("w") as file:
        while True:
            try:
                line = lines.get(timeout=max(0.0, min(SILENCE_MAX_S, ends - time.monotonic())))
            except queue.Empty:
                why = f"the guest was ended: it said nothing for {SILENCE_MAX_S} s, or took over {whole_s} s"
                return results + [broken(why, tail)]
            if line is None:
                return results + [broken("the guest ended before its trials did", tail)]
            file.write(line + "\n")
            file.flush()
            tail.append(line)
            found = RESULT.search(line)
            if found:
                results.append(Result(**found.groupdict()))
                heard(results[-1])
            elif ENDED in line:
                return results


def broken(why, tail):
    return Result("-", "the guest itself", "FAILED", "0", "\n    ".join([why + "; its console's last lines:", *tail]))


def crash(log):
    """What the kernel said when it crashed."""
    return next((line for line in log.read_text().splitlines() if CRASHED.search(line)), None)
