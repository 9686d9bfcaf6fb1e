"""After graphs were built, in any number of threads, the precision of products is as before."""

import threading

import pytest
import torch

from gasmcast.graphs.full_precision import full_precision

matmul = torch.backends.mkldnn.matmul
CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(
    not hasattr(matmul, "fp32_precision"), reason="torch before 2.9 has one setting for all"
)


@pytest.fixture(autouse=True)
def in_bfloat16():
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    yield
    matmul.fp32_precision = before


def test_it_is_full_within_and_as_before_afterwards():
    with full_precision(CPU):
        assert matmul.fp32_precision == "ieee"
        with full_precision(CPU):
            pass
        assert matmul.fp32_precision == "ieee"
    assert matmul.fp32_precision == "bf16"
    with pytest.raises(KeyError), full_precision(CPU):
        raise KeyError
    assert matmul.fp32_precision == "bf16"


def test_the_first_thread_that_leaves_takes_nothing_from_the_others():
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    seen = []

    def first():
        with full_precision(CPU):
            first_is_in.set()
            second_is_in.wait(10)
        first_is_out.set()

    def second():
        first_is_in.wait(10)
        with full_precision(CPU):
            second_is_in.set()
            first_is_out.wait(10)
            seen.append(matmul.fp32_precision)

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["ieee"]
    assert matmul.fp32_precision == "bf16"
