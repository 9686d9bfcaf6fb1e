import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from interaction_study.processes import training_processes

from examples.running import EXAMPLES

OUTLIVED = """
import os, time
from interaction_study.processes import training_processes
with training_processes(1) as pool:
    print(pool.schedule(os.getpid).result(), flush=True)
    pool.schedule(time.sleep, (60,)).result()
"""


def test_each_has_one_thread():
    with training_processes(1) as pool:
        assert pool.schedule(torch.get_num_threads).result() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no signal masks there")
def test_each_leaves_ctrl_c_to_the_study():
    with training_processes(1) as pool:
        blocked = pool.schedule(signal.pthread_sigmask, (signal.SIG_BLOCK, ())).result()
    assert signal.SIGINT in blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_one_that_dies_ends_the_study_with_one_clear_error():
    message = "ended by itself with code 3, .*the same command goes on"
    with pytest.raises(ChildProcessError, match=message), training_processes(1) as pool:
        pool.schedule(os._exit, (3,)).result()


def test_what_is_under_way_is_given_up_when_the_study_is_stopped():
    def stopped():
        with training_processes(1) as pool:
            pool.schedule(os.getpid).result()
            pool.schedule(time.sleep, (60,))
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert time.monotonic() - began < 30


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX only")
def test_none_outlives_a_study_that_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", OUTLIVED],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(EXAMPLES)])},
    ) as study:
        worker = int(study.stdout.readline())
        os.kill(worker, 0)  # it is there
        study.kill()
    until = time.monotonic() + 20
    while _there(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _there(worker)


def _there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
