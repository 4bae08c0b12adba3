"""The process a side lives in: ``python -m benchmarks.worker ours|theirs SPEC.json``, in the side's own environment."""

import json
import sys
from pathlib import Path

from benchmarks.turns import Turns


def main(side: str, spec_file: str) -> None:
    turns = Turns()
    import torch  # before anything else, so that its memory can be told from the rest

    spec = json.loads(Path(spec_file).read_text())
    turns.imported_torch()
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    if side == "ours":
        from benchmarks.ours import SIDES
    else:
        from benchmarks.peers import SIDES
    SIDES[spec["kind"]](spec, turns)
    raise RuntimeError(f"{side} of {spec['name']} ended by itself; it should go on as long as it is asked")


if __name__ == "__main__":
    main(*sys.argv[1:])
