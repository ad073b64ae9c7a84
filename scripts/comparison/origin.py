"""Where figures come from: the commit and the machine."""

import os
import pathlib
import subprocess

from .brokers import REPOSITORY


def commit():
    def git(*arguments):
        run = subprocess.run(["git", *arguments], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return run.stdout.decode().strip() if run.returncode == 0 else None

    head = git("rev-parse", "--short=10", "HEAD") or "no-commit"
    return head + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")


def machine():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    kernel = pathlib.Path("/proc/sys/kernel/osrelease").read_text().strip()
    return {"processor": models[0] if models else os.uname().machine, "core_count": os.cpu_count(), "kernel": kernel}
