"""Processes that end with the one that started them."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Lets this process end when the one that started it is killed, even in the middle of work."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
