"""A program in the place of `lib`, whose runs take no time: `python -m lib run EXPERIMENT --variant ... --runs ...`.

Its checkpoint is the number of times that a run was begun. `whole` is done at once, `long` the second time; `fails`
fails, `killed` kills the process that started it, and `endless` says that it has begun, and waits.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def after(option: str) -> str:
    return sys.argv[sys.argv.index(option) + 1]


def main() -> None:
    variant = after("--variant")
    name = f"{sys.argv[2]}/{variant}-{after('--profile')}-{after('--seed')}"
    checkpoint = Path(after("--runs")) / name / "checkpoint.safetensors"
    if variant == "killed":
        os.kill(os.getppid(), signal.SIGKILL)
    if variant == "endless":
        write(Path(os.environ["BEGUN"]), "")
        time.sleep(120)
    times = int(checkpoint.read_text()) + 1 if checkpoint.exists() else 1
    write(checkpoint, str(times))
    print(f"{name}, begun {times} times", flush=True)
    if variant == "fails":
        raise SystemExit("error: it fails")
    if variant == "whole" or times == 2:
        write(Path("data") / "checkpoints" / f"{name}.safetensors", "weights")
        environment = {name: os.environ.get(name) for name in ("BOOK_CODE_COMMIT", "CUDA_VISIBLE_DEVICES")}
        seen = {"times": times, "minutes": float(after("--minutes")), "folder": str(Path.cwd()), **environment}
        write(Path(os.environ["BOOK_RESULTS_DIR"]) / f"{name}.json", json.dumps(seen))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    main()
