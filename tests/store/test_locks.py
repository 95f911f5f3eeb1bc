import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from copydet.errors import IndexLocked
from copydet.store.locks import write_lock

HOLD = """
import sys, time
from pathlib import Path
from copydet.store.locks import write_lock
with write_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_writer_gets_one_line_that_names_the_first_and_the_lock_ends_with_a_killed_process(
    tmp_path: Path,
) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(IndexLocked, match=f"id {holder.pid}"), write_lock(tmp_path, wait_seconds=0.3):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with write_lock(tmp_path):
        pass


def test_the_lock_is_free_after_an_error_inside(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), write_lock(tmp_path):
        raise ValueError("inside")
    with write_lock(tmp_path):
        pass
