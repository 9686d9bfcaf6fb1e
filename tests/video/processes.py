"""What has become of a process."""

import time
from pathlib import Path


def ended(pid):
    """Whether a process is gone, or dead and only waiting for somebody to ask after it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def children_of(pid):
    """Those that a process has started from its main thread."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def spawned_by(pid):
    """How many processes of a pool it has started; none where one has just ended."""
    try:
        commands = [Path(f"/proc/{child}/cmdline").read_text() for child in children_of(pid)]
    except OSError:
        return 0
    return sum("spawn_main" in command for command in commands)


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
