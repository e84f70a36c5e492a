"""A registered model behind HTTP that takes over a promotion without a failed request.

`mlflow models serve` (one process for one version, on a port of its own) answers; in front of it stands a door on the
public port that passes each request on, one connection each. When another version becomes champion, its server is
started first; once it answers, new requests go to it, and the old one ends when its last request is answered.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from stillhouse.errors import UserError, WorkerError
from tasks.mlflow_home import tracking_uri
from tasks.versions import find, read_models

HOST = "127.0.0.1"
START_SECONDS = 180.0
DRAIN_SECONDS = 60.0
"""How long the old version may take for the requests it has."""
HEAD_SECONDS = 30.0
LATER_SECONDS = 30.0
"""Before a version that did not start is tried again."""
UNAVAILABLE = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
Say = Callable[[str], None]


class Backend:
    """One version's server."""

    def __init__(self, home: Path, name: str, version: int) -> None:
        self.title = f"{name}/{version}"
        self.version = version
        self.requests = 0
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port: int = free.getsockname()[1]
        self.log = home / "logs" / f"serve-{os.getpid()}-{self.port}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # MLflow starts `uvicorn`
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = ["-m", "mlflow", "models", "serve", "-m", f"models:/{self.title}", "--env-manager", "local"]
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command, "-h", HOST, "-p", str(self.port)],
                env={**os.environ, **quiet, "PATH": path, "MLFLOW_TRACKING_URI": tracking_uri(home)},
                stdout=output, stderr=output, start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    async def ready(self) -> bool:
        """Whether it answers, at the latest after `START_SECONDS`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while self.alive:
                    if await _answers(self.port):
                        return True
                    await asyncio.sleep(0.2)
        return False

    async def stop(self) -> None:
        """Wait for its requests, then end it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while self.requests and self.alive:
                    await asyncio.sleep(0.05)
        await asyncio.to_thread(self.end)

    def end(self) -> None:
        """At once, with all its children."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
                return self.log.unlink(missing_ok=True)


class Door:
    """The public port: each request goes to the backend that is `current` when it comes."""

    def __init__(self) -> None:
        self.current: Backend | None = None

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request: its head with `Connection: close`, so that no client holds on to an old version."""
        backend = None
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            backend = self.current
            if backend is None:
                return _refuse(writer, b"503 Service Unavailable", b"the model is starting")
            backend.requests += 1
            answer, question = await asyncio.open_connection(HOST, backend.port)
            lines = [line for line in head[:-4].split(b"\r\n") if not line.lower().startswith(b"connection:")]
            question.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]))
            body = asyncio.create_task(_pipe(reader, question))
            try:
                await _pipe(answer, writer)
            finally:
                body.cancel()
                question.close()
        except asyncio.LimitOverrunError:
            _refuse(writer, b"431 Request Header Fields Too Large", b"the head of the request is too long")
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionResetError, BrokenPipeError):
            pass  # the client went away
        except OSError:
            _refuse(writer, b"503 Service Unavailable", b"the model is starting again")
        finally:
            if backend is not None:
                backend.requests -= 1
            with contextlib.suppress(OSError):
                await writer.drain()
            writer.close()


class Server:
    """Keeps the door open and the right version behind it."""

    def __init__(self, home: Path, spec: str, say: Say) -> None:
        self.home, self.spec, self.say = home, spec, say
        self.door = Door()
        self.leaving: set[asyncio.Task[None]] = set()
        self.not_before: dict[int, float] = {}

    async def run(self, port: int, poll_seconds: float, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; every process is ended then."""
        try:
            await self._follow()
            if self.door.current is None:
                raise WorkerError(f"{self.spec} could not be served", f"See {self.home / 'logs'}")
            async with await _listen(self.door, port) as door:
                self.say(f"serving {self.door.current.title} on http://{HOST}:{door.sockets[0].getsockname()[1]}")
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), poll_seconds)
                        break
                    await self._follow()
        finally:
            for task in self.leaving:
                task.cancel()
            await asyncio.gather(*self.leaving, return_exceptions=True)
            if self.door.current is not None:
                self.door.current.end()

    async def _follow(self) -> None:
        """Bring the version that the registry names now behind the door; a server that died is started again."""
        current, loop = self.door.current, asyncio.get_running_loop()
        try:
            wanted = await asyncio.to_thread(lambda: find(read_models(self.home), self.spec))
        except Exception as error:  # what a registry raises depends on which one it is
            if current is None:
                raise
            return self.say(f"the registry does not answer, {current.title} goes on: {error}")
        if current is not None and current.alive and current.version == wanted.version:
            return
        if loop.time() < self.not_before.get(wanted.version, 0.0):
            return
        backend = Backend(self.home, wanted.name, wanted.version)
        try:
            ready = await backend.ready()
        except asyncio.CancelledError:
            backend.end()
            raise
        if not ready:
            self.not_before[wanted.version] = loop.time() + LATER_SECONDS
            log = backend.log.read_text(errors="replace").strip().splitlines()[-1:]
            await asyncio.to_thread(backend.end)
            return self.say(f"{backend.title} does not start: {' '.join(log)[:300]}")
        self.door.current = backend
        if current is not None:
            self.say(f"{backend.title} took over from {current.title}")
            task = asyncio.create_task(_leave(current))
            self.leaving.add(task)
            task.add_done_callback(self.leaving.discard)


async def _leave(backend: Backend) -> None:
    try:
        await backend.stop()
    except asyncio.CancelledError:
        backend.end()
        raise


def serve(home: Path, spec: str, port: int, poll_seconds: float, say: Say) -> None:
    """Serve `spec` on `port` (0: any) until SIGINT or SIGTERM."""

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        running = asyncio.create_task(Server(home, spec, say).run(port, poll_seconds, stop))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await asyncio.wait({running}, timeout=1)  # it sees `stop` by itself unless a version is just starting
            running.cancel()
        stopped.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(main())


async def _listen(door: Door, port: int) -> asyncio.Server:
    try:
        return await asyncio.start_server(door.pass_on, HOST, port)
    except OSError as error:
        raise UserError(f"port {port} cannot be used: {error.strerror}", "Name another: --port") from None


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(1 << 16):
        writer.write(block)
        await writer.drain()


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    try:
        writer.write(b"GET /ping HTTP/1.1\r\nHost: model\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


def _refuse(writer: asyncio.StreamWriter, status: bytes, message: bytes) -> None:
    body = b'{"error_code": "UNAVAILABLE", "message": "%s"}' % message
    writer.write(UNAVAILABLE % (status, len(body), body))


def _end_with_parent() -> None:
    """Linux: SIGTERM when this process is gone, however it went; MLflow does the same for its child."""
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").prctl(1, signal.SIGTERM)
