import platform
import resource

import pytest
import torch

from prefloop.engine.memory import keep_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_buffers_that_were_freed_are_not_mapped_anew():
    assert keep_memory()
    size = 4 * 2**20  # 16 MiB of float32, more than glibc would keep by default

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(size).add_(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert min(faults() for _ in range(5)) < 4 * size / resource.getpagesize() / 10  # a tenth of the pages it has
