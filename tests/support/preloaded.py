"""Commands in processes that have the libraries imported already, but nothing of this project.

A server imports the libraries, four seconds' work, and forks for each command. What a command imports of this project
it imports anew, with its own environment, as when it is started from a shell. Tests of what happens while libraries are
imported, or with `torchrun`, start processes of their own.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["Started", "run", "run_as_two", "run_together", "start"]

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

DDP_WARNING = "Grad strides do not match"


class Started:
    """A command that runs; of the methods of :class:`subprocess.Popen` those that tests need."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], stdout: str | Path, stderr: str | Path):
        self.connection, self.returncode = _server(), None
        self.connection.send([(list(command), dict(env), str(stdout), str(stderr))])
        (self.pid,) = self.connection.recv()

    def poll(self, timeout: float = 0) -> int | None:
        """The exit code, or minus the signal that ended it; None if it still runs after `timeout` seconds."""
        if self.returncode is None and self.connection.poll(timeout):
            _, self.returncode = self.connection.recv()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Raises TimeoutError if it has not ended after `timeout` seconds, and kills it."""
        if self.poll(timeout) is None:
            self.send_signal(signal.SIGKILL)
            self.poll(timeout)
            raise TimeoutError(f"still running after {timeout} s")
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signum)


def start(
    command: Sequence[str], env: Mapping[str, str], stdout: str | Path = os.devnull, stderr: str | Path = os.devnull
) -> Started:
    """Starts `[path, *arguments]` or `["-m", module, *arguments]` of this project in its root; one at a time.

    Args:
        stdout, stderr: files that are appended to.
    """
    return Started(command, env, stdout, stderr)


def run(command: Sequence[str], env: Mapping[str, str], timeout: float = 300) -> subprocess.CompletedProcess:
    """As :func:`subprocess.run` with captured text, for what :func:`start` takes."""
    return run_together([command], [env], timeout)[0]


def run_as_two(command: Sequence[str], env: Mapping[str, str], code: int = 0) -> list[subprocess.CompletedProcess]:
    """Runs a command in two processes that find each other, as those of torchrun do.

    Asserts their exit code, and that DDP found the gradients as it wants them.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    world |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "two"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    ended = run_together([command] * 2, [{**env, **world, **rank} for rank in ranks])
    for done in ended:
        assert done.returncode == code and DDP_WARNING not in done.stderr, done.stdout + done.stderr
    return ended


def run_together(
    commands: Sequence[Sequence[str]], envs: Sequence[Mapping[str, str]], timeout: float = 300
) -> list[subprocess.CompletedProcess]:
    """Runs commands at the same time; a timeout kills all of them and raises TimeoutError."""
    connection, codes = _server(), {}
    with TemporaryDirectory() as folder:
        files = [(f"{folder}/{i}.out", f"{folder}/{i}.err") for i in range(len(commands))]
        connection.send([(list(c), dict(env), *names) for c, env, names in zip(commands, envs, files, strict=True)])
        pids = connection.recv()
        late = False
        while len(codes) < len(pids):
            if not connection.poll(timeout):
                late = True
                for pid in set(pids) - set(codes):
                    os.kill(pid, signal.SIGKILL)
            pid, code = connection.recv()
            codes[pid] = code
        texts = [[Path(name).read_text() for name in names] for names in files]
    if late:
        raise TimeoutError(f"still running after {timeout} s: {commands}\n{texts}")
    return [
        subprocess.CompletedProcess(c, codes[pid], *text) for c, pid, text in zip(commands, pids, texts, strict=True)
    ]


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
    """Forks for each command, tells the processes' numbers, and then of each how it ended.

    Returns in the new processes, with the command.

    Raises:
        EOFError: there is nobody any more to send commands.
    """
    while True:
        pids = []
        for command, env, stdout, stderr in connection.recv():
            pids.append(os.fork())
            if pids[-1] == 0:
                connection.close()
                os.environ.clear()
                os.environ.update(env)
                for stream, name in ((0, os.devnull), (1, stdout), (2, stderr)):
                    opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
                    os.dup2(opened, stream)
                    os.close(opened)
                return command
        connection.send(pids)
        for _ in pids:
            pid, status = os.wait()
            connection.send((pid, os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    import gc
    import importlib
    import runpy
    import warnings

    for name in LIBRARIES:
        with suppress(ImportError):  # what is not installed, the commands do without
            importlib.import_module(name)
    own = [name for name in sys.modules if name.split(".")[0] in ("pretrain", "lazyrun", "convmae_det", "mimdet")]
    assert not own, own
    gc.freeze()  # or each process goes through all that is imported again and again: a second of its four
    try:
        command = serve(Connection(int(sys.argv[1])))
    except EOFError:
        sys.exit()
    warnings.filterwarnings("default", message=DDP_WARNING)
    if command[0] == "-m":
        sys.path[0], sys.argv = os.getcwd(), command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(command[0]).resolve().parent), command
        runpy.run_path(command[0], run_name="__main__")
