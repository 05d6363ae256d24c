"""Start the jobs of this machine from one process that has already imported what training needs.

Importing torch and transformers takes some four seconds, much of a small run. Snakemake starts one warm
process for all jobs of a local run (`begin`); a job's own process asks it for a fork that does the work
(`run`), hands it its files, folder and environment, passes on signals, and ends as it ends. Where there is no
warm process, or it does not answer, a job works by itself: the numbers are the same.

A fork runs the code that the warm process imported when it started, and a run is sealed with the fingerprint
of the code on disk. So the warm process declines every job once a file of the package has changed, and jobs
of another Python or another copy of the package: those work by themselves, with the code on disk.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from cotdistill.common.fingerprint import PACKAGE

Command = Callable[[list[str]], int]
"""what a fork runs: the command line's `main`"""

PROCESS = "cotdistill.cli.warm_process"
"""the module that starts the warm process: it knows the command line, which is above this package"""
ADDRESS = "COTDISTILL_WARM"
"""environment variable: the warm process's socket"""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def begin() -> None:
    """Start a warm process that ends with this one, and name it to this one's children."""
    folder = tempfile.mkdtemp(prefix="cotdistill-")  # for this user alone
    address = str(Path(folder, "warm"))
    process = subprocess.Popen(
        [sys.executable, "-m", PROCESS, address],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    os.environ[ADDRESS] = address

    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)


def run(arguments: list[str]) -> int | None:
    """Have the warm process do a command of this one. Returns the exit code, None where there is none."""
    address = os.environ.get(ADDRESS)
    if not address:
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            _send(connection, {
                "arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ),
                "installation": _find_installation(),
            })
            answers = connection.makefile("r")
            worker = int(answers.readline())
        except (OSError, ValueError):
            return None
        _pass_on(worker)
        ended = answers.readline()
    if not ended:
        print("error: the warm process of this run died", file=sys.stderr)
        return 1
    code = int(ended)
    if code < 0:  # died of a signal: so does this process
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _pass_on(worker: int) -> None:
    def send(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, number)

    for number in SIGNALS:
        signal.signal(number, send)


def _send(connection: socket.socket, request: dict[str, Any]) -> None:
    body = json.dumps(request).encode()
    socket.send_fds(connection, [len(body).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(body)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    size = int.from_bytes(head, "big")
    with connection.makefile("rb") as stream:
        return json.loads(stream.read(size)), files


def serve(address: str, command: Command) -> None:
    """Import, then fork for each job, until standard input ends: this process's parent is gone.

    command: run by a fork with the arguments of a job that asked; returns the exit code.
    """
    sources = digest_sources()  # before anything is imported: an edit during the imports counts as a change
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)  # jobs that come while it imports wait here
    _import()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    while 0 not in select.select([0, listener.fileno()], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _attend(connection, command, sources)
        connection.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def digest_sources(package: Path = PACKAGE) -> str:
    """Return a digest of the names and bytes of all Python and YAML files below `package`."""
    code = hashlib.sha256()
    for path in sorted(path for kind in ("*.py", "*.yaml") for path in package.rglob(kind)):
        try:
            content = path.read_bytes()
        except OSError as error:  # removed at this moment: the digest is another in any case
            content = str(error).encode()
        code.update(f"{path.relative_to(package)}\0{len(content)}\0".encode())
        code.update(content)
    return code.hexdigest()


def _find_installation() -> list[str]:
    """Return the Python environment of this process and the folder that it takes the package from."""
    return [sys.prefix, str(PACKAGE)]


def _import() -> None:
    import gc

    from transformers.models.t5 import modeling_t5  # noqa: F401
    from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast  # noqa: F401

    from cotdistill.jobs import evaluate, train  # noqa: F401

    gc.freeze()  # a collection in a fork would copy all of it


def _attend(connection: socket.socket, command: Command, sources: str) -> None:
    """Fork once more and send back two lines: the number of the process that works, and its exit code.

    The process is killed when the job that asked for it ends. Nothing is sent back, so that the job works by
    itself, where the package on disk is not what was imported (`sources`), or not what the job uses.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, files = _receive(connection)
    if request["installation"] != _find_installation() or sources != digest_sources():
        os._exit(0)
    worker = os.fork()
    if worker == 0:
        connection.close()
        _work(request, files, command)
    for file in files:
        os.close(file)
    connection.sendall(f"{worker}\n".encode())

    def watch() -> None:
        with contextlib.suppress(OSError):
            connection.recv(1)
        os.kill(worker, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    _, status = os.waitpid(worker, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _work(request: dict[str, Any], files: list[int], command: Command) -> None:
    """Run a job's command with its files, folder and environment, and end this process."""
    import random
    import traceback

    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    del os.environ[ADDRESS]
    random.seed()  # what jobs draw to keep out of each other's way
    code: Any = 1
    try:
        code = command(request["arguments"])
    except SystemExit as left:
        code = left.code
    except BaseException:  # noqa: BLE001 as the interpreter would at the end of a process
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
