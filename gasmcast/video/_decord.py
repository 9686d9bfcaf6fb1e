"""decord, kept at arm's length: the calling process's side of its helper process.

decord can hang inside its own threads, and a reader that it made before a fork hangs in the child.
So it runs in a helper, one for each process that reads, started at the first need. The helper is
killed when it takes too long, and ends by itself when its parent does.
"""

import atexit
import importlib.util
import json
import math
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from gasmcast.video._contents import Contents

_WORKER = str(Path(__file__).with_name("_decord_worker.py"))
_START_SECONDS = 60.0  # importing numpy and decord, on a busy machine


class DecordFailure(Exception):
    """decord gave no frames that can be trusted; the message says why."""


def decord_installed() -> bool:
    # Without the interpreter's path (embedded Python) no helper can be started.
    return bool(sys.executable) and importlib.util.find_spec("decord") is not None


def decode(
    path: str, contents: Contents, indices: np.ndarray, timeout_seconds: float
) -> np.ndarray:
    """Frames of a file through this process's helper.

    Args:
        path: The file.
        contents: What PyAV found in it; an answer that does not fit is refused.
        indices: int64 [N], sorted, without repetition, all below ``contents.num_packets``.
        timeout_seconds: After this the helper is killed.

    Returns:
        uint8 [N, H, W, 3].

    Raises:
        DecordFailure: If decord fails, hangs, dies or does not agree with ``contents``.
    """
    request = {
        "path": os.path.abspath(path),
        "num_frames": contents.num_packets,
        "indices": indices.tolist(),
        "fault_tol": 0.5 / contents.num_packets,  # not even one frame
    }
    shape = (len(indices), contents.height, contents.width, 3)
    return _helper.ask(request, shape, timeout_seconds)


class _Helper:
    """The helper process and the pipes to it. One request at a time, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._unusable: str | None = None

    def ask(self, request: dict, shape: tuple[int, ...], timeout_seconds: float) -> np.ndarray:
        with self._lock:
            self._start()
            with _KillAfter(self._process, timeout_seconds) as limit:
                try:
                    self._send(request)
                    header = self._receive_header()
                    if "error" in header:
                        raise DecordFailure(header["error"])
                    found, expected = header["num_frames"], request["num_frames"]
                    if found != expected:
                        raise DecordFailure(
                            f"decord counts {found} frames, the file has {expected}"
                        )
                    frames = np.empty(header["shape"], dtype=np.uint8)
                    self._receive(memoryview(frames).cast("B"))
                except DecordFailure:
                    raise  # the helper answered, and waits for the next request
                except (OSError, EOFError) as error:
                    code = self._stop()
                    if limit.passed:
                        raise DecordFailure(
                            f"decord did not answer within {timeout_seconds:g} s"
                        ) from error
                    raise DecordFailure(f"decord's process ended with code {code}") from error
                except BaseException:
                    # Ctrl-C half way through an answer: the rest must not meet the next request.
                    self._stop()
                    raise
            if limit.passed:
                self._stop()  # killed just after its answer
            if frames.shape != shape:
                raise DecordFailure(
                    f"decord gave frames of shape {list(frames.shape)}, expected {list(shape)}"
                )
            return frames

    def _start(self) -> None:
        if self._unusable is not None:
            raise DecordFailure(self._unusable)
        if self._process is not None and self._process.poll() is None:
            return
        self._stop()
        # -P: the worker's folder must not come first on its import path, where our files would
        # stand in for packages of the same name.
        self._process = subprocess.Popen(
            [sys.executable, "-P", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decord's errors come as answers; FFmpeg's remarks end here
            bufsize=0,
        )
        _widen(self._process.stdout)
        try:
            with _KillAfter(self._process, _START_SECONDS):
                greeting = self._receive_header()
        except (OSError, EOFError):
            greeting = {"error": "its process ended before it was ready"}
        except BaseException:
            self._stop()
            raise
        if "error" in greeting:
            self._stop()
            # Starting costs a quarter of a second: not again for every clip.
            self._unusable = f"decord cannot be used here: {greeting['error']}"
            raise DecordFailure(self._unusable)

    def _send(self, request: dict) -> None:
        text = json.dumps(request).encode()
        data = memoryview(struct.pack(">I", len(text)) + text)
        while data:
            data = data[self._process.stdin.write(data) :]

    def _receive_header(self) -> dict:
        size = bytearray(4)
        self._receive(memoryview(size))
        text = bytearray(struct.unpack(">I", size)[0])
        self._receive(memoryview(text))
        return json.loads(text)

    def _receive(self, space: memoryview) -> None:
        while space:
            count = self._process.stdout.readinto(space)
            if not count:
                raise EOFError
            space = space[count:]

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        code = process.wait()  # so that no zombie stays behind
        process.stdin.close()
        process.stdout.close()
        return code

    def close(self) -> None:
        """Ends the helper; the next request starts another."""
        with self._lock:
            self._stop()

    def abandon(self) -> None:
        """Forgets a helper that belongs to the parent of this process.

        The child closes its copies of the pipes: the helper sees its parent's end only when nobody
        holds them open any more.
        """
        process = self._process
        self.__init__()  # the lock too: another thread of the parent may have held it
        if process is not None:
            process.returncode = 0  # not ours to wait for
            process.stdin.close()
            process.stdout.close()


class _KillAfter:
    """Kills a process still at work after so many seconds, which ends the reading of its pipe."""

    def __init__(self, process: subprocess.Popen, seconds: float) -> None:
        self.passed = False
        self._process = process
        # Reading a pipe with a time limit has no form that works on every system; killing does.
        self._timer = None if math.isinf(seconds) else threading.Timer(seconds, self._kill)

    def _kill(self) -> None:
        self.passed = True
        self._process.kill()

    def __enter__(self) -> "_KillAfter":
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _widen(pipe) -> None:
    """A megabyte in the pipe instead of 64 KB, where the system allows it: fewer turns a clip."""
    try:
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)
    except (ImportError, AttributeError, OSError):
        pass


_helper = _Helper()
atexit.register(_helper.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _helper.abandon())
