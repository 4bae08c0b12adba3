import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
import resource
from prefloop.engine.memory import keep_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
size = 16 * 2**20  # more than glibc would keep by default

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def pages_mapped_anew():
    faults()
    return min(faults() for _ in range(5)) / (size / resource.getpagesize())

libc.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: with huge pages, where the system has some left, one fault maps 512
libc.mallopt(-3, 128 * 1024)  # as it is at first; glibc raises it by itself when a larger block is freed
before = pages_mapped_anew()
assert keep_memory()
print(before, pages_mapped_anew())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_buffers_that_were_freed_are_not_mapped_anew():
    # A process of its own: glibc moves a thread to another arena for good when an allocation has failed in it, as some
    # test's has, and an arena that was made later gives its memory back whatever it is told.
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(float, said.stdout.split())
    assert before > 0.9
    assert after < 0.1
