"""Settings that only the process that starts can make; `copydet doctor` prints what is in force.

Four things make copydet on CPU slower out of the box, most of them several times. glibc hands every large tensor back
to the kernel when it is freed and takes it again at the next layer: half of torch's time goes into page faults. OpenMP
threads spin while they wait, which starves the decoding threads that share the cores. OpenBLAS divides NumPy's
products, which are small and many here, among threads that only wait for each other. And Python's threads, whose calls
are as small, wait up to 5 ms for each other's turn, which costs a tenth of indexing. All are set here, before a heavy
library loads; whoever set one of the variables himself keeps his value. Python programs that use copydet as a library
can call `prepare_process` first thing; where they don't, products are undivided while copydet works, which matters
most.
"""

import os
import sys
import threading
from typing import Any

OPENMP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
BLAS = {"OPENBLAS_NUM_THREADS": "1"}
TURN_SECONDS = 0.0002  # Python's own is 0.005

# glibc's M_* numbers (malloc.h). The variables would act the same but are read before Python runs: hence mallopt.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 1 << 30),
    "MALLOC_TRIM_THRESHOLD_": (-1, 1 << 30),
    "MALLOC_TOP_PAD_": (-2, 256 << 20),
}


def prepare_process() -> dict[str, str]:
    """Make the settings above where the user has not; return each by name with its value or why it is not set."""
    made = {name: os.environ.setdefault(name, value) for name, value in OPENMP.items()}
    for name, value in BLAS.items():
        if "numpy" in sys.modules and name not in os.environ:
            made[name] = "not set: NumPy is loaded already"
        else:
            made[name] = os.environ.setdefault(name, value)
    return made | prepare_worker()


def prepare_worker() -> dict[str, str]:
    """Those of the settings that a worker process does not inherit. BLAS has one thread in both (UNDIVIDED_PRODUCTS):
    sums come out a little different with another number.
    """
    sys.setswitchinterval(TURN_SECONDS)
    made = {"sys.setswitchinterval": f"{sys.getswitchinterval():g}"}
    for name, (number, amount) in MALLOC.items():
        if name in os.environ:
            made[name] = os.environ[name]
        else:
            made[name] = str(amount) if _mallopt(number, amount) else "not glibc: left as it is"
    return made


class _UndividedProducts:
    """While any thread is in here, NumPy's products have one thread each, unless the environment says how many: what
    `prepare_process` does, for a program where NumPy was there first. Indexing takes three times as long without.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1 and not BLAS.keys() & os.environ.keys():
                from threadpoolctl import ThreadpoolController

                # What OpenMP divides (FAISS has such a BLAS), the variable does not limit either.
                self._limit = ThreadpoolController().select(threading_layer="pthreads").limit(limits=1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._limit is not None:
                self._limit.restore_original_limits()
                self._limit = None


UNDIVIDED_PRODUCTS = _UndividedProducts()


def _mallopt(number: int, amount: int) -> bool:
    import ctypes

    try:
        return bool(ctypes.CDLL(None).mallopt(number, amount))
    except (AttributeError, OSError, TypeError):
        return False


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
