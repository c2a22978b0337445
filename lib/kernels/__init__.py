"""Small C kernels for the CPU, built on first use with the machine's own compiler and kept in the cache folder.

They do nothing that the plain code of `lib` does not do, only faster; where there is no compiler the plain code runs.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from lib.data.store import cache_dir

FLAGS = ("-std=gnu11", "-O3", "-ffast-math", "-fPIC")
C_NAMES = {torch.float32: "float", torch.float64: "double"}


class NoCompiler(RuntimeError):
    """No kernel can be built here; the message says why."""


def compiler() -> tuple[str, ...] | None:
    """The command of a C compiler: `CC` of the environment, else cc, gcc or clang on the path; None without any."""
    if named := os.environ.get("CC"):
        return tuple(shlex.split(named))
    found = (shutil.which(name) for name in ("cc", "gcc", "clang"))
    return next(((path,) for path in found if path), None)


@functools.cache
def load(name: str, dtype: torch.dtype = torch.float32) -> ctypes.CDLL:
    """The kernels of `lib/kernels/<name>.c` for one dtype, built unless the cache has them.

    Raises NoCompiler if they cannot be built or loaded here.
    """
    source = Path(__file__).with_name(f"{name}.c")
    command = compiler()
    if command is None:
        raise NoCompiler("there is no C compiler (cc, gcc or clang) on the path")
    flags = (*FLAGS, f"-DREAL={C_NAMES[dtype]}")
    sources = [path.read_bytes() for path in sorted(source.parent.glob("*.[ch]"))]  # one may include another
    built_for = (sources, command, flags, _machine(), torch.__version__)
    path = cache_dir() / "kernels" / f"{name}-{hashlib.sha256(repr(built_for).encode()).hexdigest()[:16]}.so"
    try:
        if not path.exists():
            _build(command, flags, source, path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoCompiler(f"{path} cannot be loaded ({error}); delete it to build it anew") from error


@functools.cache
def available(name: str, dtype: torch.dtype = torch.float32) -> bool:
    """Whether the kernels can be used here; if not, says so once in the log, and does not try again."""
    try:
        load(name, dtype)
    except NoCompiler as error:
        logging.getLogger(__name__).warning("the plain code runs in place of the fast kernels: %s", error)
        return False
    return True


def _build(compiler: tuple[str, ...], flags: tuple[str, ...], source: Path, path: Path) -> None:
    reason = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # moved when whole: others may build it too
            compiled, whole = Path(folder) / f"{path.stem}.o", Path(folder) / path.name
            tunings = _tunings()
            best, _ = tunings[0]
            for tuning, libraries in tunings:
                # Linked apart, without the flags: -ffast-math at linking would flush denormals in the whole process.
                compiling = [*compiler, *flags, *tuning, "-c", str(source), "-o", str(compiled)]
                linking = [*compiler, "-shared", str(compiled), "-o", str(whole), "-lm", *libraries]
                for command in (compiling, linking):
                    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
                    if done.returncode:
                        break
                else:
                    os.replace(whole, path)
                    if lost := [flag for flag in best if flag not in tuning]:
                        message = "%s is slower than it could be, built without %s: %s"
                        logging.getLogger(__name__).warning(message, source.name, shlex.join(lost), reason)
                    return
                reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(error)
    raise NoCompiler(f"{source.name} cannot be built with {shlex.join(compiler)}: {reason}")


def _tunings() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Flags and libraries to build with, the fastest first: not every compiler knows OpenMP, or the machine.

    Threads need the very OpenMP library that PyTorch runs on: a second one would bring threads that fight for the same
    cores. Where there is none of its own, the kernels do without threads.
    """
    native = ("-march=native",)
    threads = [
        ((*native, "-fopenmp"), ("-Wl,-z,defs", str(path)))  # without `defs` a compiler's other OpenMP would fail later
        for path in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*")
    ]
    return [*threads, (native, ()), ((), ())]


def _machine() -> str:
    """What a build depends on besides its source: a cache folder may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU ", "Features", "isa")
        processor = {line for line in lines if line.startswith(names)}
    except OSError:
        processor = {platform.node(), platform.processor()}
    return repr((platform.system(), platform.machine(), platform.libc_ver(), sorted(processor)))
