import signal
import threading

import pytest

from gasmcast.processes import interrupt_afterwards


@pytest.fixture(autouse=True)
def interruptible():
    """A shell that runs the tests in the background has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(then):
    with interrupt_afterwards():
        signal.raise_signal(signal.SIGINT)
        then()


def test_an_interrupt_comes_when_the_block_is_done():
    done = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(lambda: done.append(True))
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_stays_the_cause_of_an_interrupt():
    def fail():
        raise OSError("no process left")

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted(fail)
    assert isinstance(caught.value.__context__, OSError)


def test_a_handler_of_another_language_is_left_alone(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda _: None)  # as where Python is embedded
    changed = []
    monkeypatch.setattr(signal, "signal", lambda *_: changed.append(True))
    with interrupt_afterwards():
        pass
    monkeypatch.undo()
    assert not changed


def test_another_thread_leaves_the_handler_alone():
    found = []

    def look():
        with interrupt_afterwards():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
