"""The program that runs decord in a process of its own; started as a script, never imported.

decord can hang where nothing but the end of its process helps. Requests come in on standard input
and answers go out on standard output. Both start with the length of a JSON header (four bytes, most
significant first), then the header; a good answer goes on with the bytes of the frames. An error
of decord is an answer too, ``{"error": ...}``.
"""

import json
import os
import queue
import signal
import struct
import sys
import threading


def main() -> None:
    # Ctrl-C reaches every process at a terminal, and a scheduler's SIGTERM every process of a job.
    # The parent may want to finish its step; this one ends when the parent closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    requests: queue.SimpleQueue[dict] = queue.SimpleQueue()
    source = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    # Whatever a library prints must not get between the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    threading.Thread(target=_listen, args=(source, requests), daemon=True).start()
    try:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
    except Exception as error:  # a broken library raises anything
        _send(answers, {"error": f"{type(error).__name__}: {error}"})
        return
    _send(answers, {"decord": decord.__version__})
    while True:
        request = requests.get()
        try:
            header, frames = _read(decord, request)
        except Exception as error:  # DECORDError is an Exception and nothing more
            header, frames = {"error": f"{type(error).__name__}: {error}"}, None
        _send(answers, header, frames)


def _listen(source, requests) -> None:
    """Reads requests apart from the work: the parent's end is seen even while decord hangs."""
    while True:
        size = source.read(4)
        if len(size) < 4:
            os._exit(0)
        requests.put(json.loads(source.read(struct.unpack(">I", size)[0])))


def _read(decord, request):
    # One thread: with more, decord fails on VP9 ("Error sending packet"). fault_tol makes it
    # raise where it would silently repeat a neighbour in place of a frame that does not decode.
    reader = decord.VideoReader(
        request["path"], ctx=decord.cpu(0), num_threads=1, fault_tol=request["fault_tol"]
    )
    if len(reader) != request["num_frames"]:
        return {"num_frames": len(reader)}, None
    frames = reader.get_batch(request["indices"]).asnumpy()
    return {"num_frames": len(reader), "shape": list(frames.shape)}, frames


def _send(answers, header, frames=None) -> None:
    text = json.dumps(header).encode()
    _write(answers, struct.pack(">I", len(text)) + text)
    if frames is not None:
        _write(answers, memoryview(frames).cast("B"))


def _write(answers, data) -> None:
    data = memoryview(data)
    while data:
        data = data[answers.write(data) :]


if __name__ == "__main__":
    main()
