"""Commands in processes that have the libraries imported already, but nothing of this project.

A server imports the libraries, four seconds' work, and forks for each command. What a command imports of this project
it imports anew, with its own environment, as when it is started from a shell. Tests of what happens while libraries are
imported, or with `torchrun`, start processes of their own.
"""

import atexit
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["Started", "run", "start"]

REPO = Path(__file__).resolve().parents[2]
LIBRARIES = [
    "cv2",
    "faster_coco_eval",
    "fvcore.nn",
    "matplotlib.pyplot",
    "omegaconf",
    "pycocotools.mask",
    "detectron2.config",
    "detectron2.data",
    "detectron2.engine",
    "detectron2.evaluation",
    "detectron2.export",
    "detectron2.modeling",
    "detectron2.model_zoo",
    "timm",
    "torch",
    "torch.distributed",
    "torch.utils.data",
    "torch.utils.tensorboard",
    "torchvision.transforms",
]


class Started:
    """A command that runs; of the methods of :class:`subprocess.Popen` those that tests need."""

    def __init__(self, connection: Connection, pid: int):
        self.connection, self.pid, self.returncode = connection, pid, None

    def poll(self, timeout: float = 0) -> int | None:
        """The exit code, or minus the signal that ended it; None if it still runs after `timeout` seconds."""
        if self.returncode is None and self.connection.poll(timeout):
            self.returncode = self.connection.recv()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Raises TimeoutError if it has not ended after `timeout` seconds, and kills it."""
        if self.poll(timeout) is None:
            self.send_signal(9)
            self.returncode = self.connection.recv()
            raise TimeoutError(f"still running after {timeout} s")
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signum)


def start(command: Sequence[str], env: Mapping[str, str], stdout: Path, stderr: Path) -> Started:
    """Starts a script of this project, `[path, *arguments]`, in its root; one command at a time.

    Args:
        stdout, stderr: files that are appended to.
    """
    connection = _server()
    connection.send((list(command), dict(env), str(stdout), str(stderr)))
    return Started(connection, connection.recv())


def run(command: Sequence[str], env: Mapping[str, str], timeout: float = 300) -> subprocess.CompletedProcess:
    """As :func:`subprocess.run` with captured text, for a script of this project, `[path, *arguments]`, in its root."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        code = start(command, env, out, err).wait(timeout)
        return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())


@cache
def _server() -> Connection:
    ours, theirs = Pipe()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    server = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())], cwd=REPO, env=environment, pass_fds=[theirs.fileno()]
    )
    theirs.close()

    def stop() -> None:
        ours.close()  # on which it ends
        server.wait()

    atexit.register(stop)
    return ours


def serve(connection: Connection) -> list[str]:
    """Forks for each command, and tells its number and its exit code; returns in the new process, with the command."""
    while True:
        command, env, stdout, stderr = connection.recv()
        pid = os.fork()
        if pid == 0:
            connection.close()
            os.environ.clear()
            os.environ.update(env)
            for stream, name in ((0, os.devnull), (1, stdout), (2, stderr)):
                opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
                os.dup2(opened, stream)
                os.close(opened)
            return command
        connection.send(pid)
        connection.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    import importlib
    import runpy

    for name in LIBRARIES:
        importlib.import_module(name)
    own = [name for name in sys.modules if name.split(".")[0] in ("pretrain", "lazyrun", "convmae_det", "mimdet")]
    assert not own, own
    try:
        sys.argv = serve(Connection(int(sys.argv[1])))
    except EOFError:
        sys.exit()
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
