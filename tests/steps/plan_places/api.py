"""The part of a Kubernetes API server that kubectl needs for a plan's Job, for the real kubectl.

Its one pod is a process of this machine, as in fake_kubectl.py. `exec` is the protocol v5.channel.k8s.io over a WebSocket:
a message begins with the number of its stream (0 standard input, 1 output, 2 errors, 3 the status at the end, 255 a
stream that ends).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

POD = "plan-x7k2p"
_PROTOCOL = "v5.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS, _CLOSE = 0, 1, 2, 3, 255
_OPENAPI = {
    "openapi": "3.0.0",
    "info": {"title": "Kubernetes", "version": "v1.34.0"},
    "paths": {
        "/apis/batch/v1/namespaces/{namespace}/jobs/{name}": {
            "patch": {
                "parameters": [{"name": "fieldValidation", "in": "query"}],
                "responses": {},
                "x-kubernetes-group-version-kind": {"group": "batch", "version": "v1", "kind": "Job"},
            }
        }
    },
}


def _resources(group: str, *kinds: tuple[str, str]) -> dict[str, Any]:
    verbs = ["create", "delete", "get", "list"]
    listed = [
        {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs} for name, kind in kinds
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": listed}


class ApiServer:
    """What was created and deleted, and how it answers."""

    def __init__(self, folder: Path) -> None:
        self.volume = folder / "plan"
        self.jobs: dict[str, Any] = {}
        self.deleted: list[str] = []
        self.groups: list[int] = []
        self.container: subprocess.Popen[bytes] | None = None
        self.url = ""

    def routes(self) -> list[web.RouteDef]:
        version = {"groupVersion": "batch/v1", "version": "v1"}
        groups = [{"name": "batch", "versions": [version], "preferredVersion": version}]
        answers = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
            "/api/v1": _resources("v1", ("pods", "Pod"), ("events", "Event"), ("pods/exec", "PodExecOptions")),
            "/apis/batch/v1": _resources("batch/v1", ("jobs", "Job")),
            # As an API server says that it checks fields itself, so that kubectl leaves that to it.
            "/openapi/v3": {"paths": {"apis/batch/v1": {"serverRelativeURL": "/openapi/v3/apis/batch/v1"}}},
            "/openapi/v3/apis/batch/v1": _OPENAPI,
            "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        }
        jobs, core = "/apis/batch/v1/namespaces/{space}/jobs", "/api/v1/namespaces/{space}"
        return [
            *(web.get(path, self._answer(answer)) for path, answer in answers.items()),
            web.post(jobs, self._create),
            web.get(jobs + "/{name}", self._job),
            web.delete(jobs + "/{name}", self._delete),
            web.get(core + "/pods", self._pods),
            web.get(core + "/pods/{name}", self._pod),
            web.get(core + "/events", self._answer({"kind": "EventList", "apiVersion": "v1", "items": []})),
            web.get(core + "/pods/{name}/exec", self._exec),
        ]

    def _answer(self, data: Any) -> Any:
        async def handler(request: web.Request) -> web.Response:
            return web.json_response(data)

        return handler

    async def _create(self, request: web.Request) -> web.Response:
        job = await request.json()
        name = job["metadata"]["name"]
        self.jobs[name] = job
        self.volume.mkdir()
        args = job["spec"]["template"]["spec"]["containers"][0]["args"]
        here = [part.replace("/plan", str(self.volume)).replace("sleep 1\n", "sleep 0.05\n") for part in args]
        self.container = subprocess.Popen(
            here, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self.groups.append(self.container.pid)
        return web.json_response(job, status=201)

    async def _job(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["name"])
        return web.json_response(
            job or {"kind": "Status", "reason": "NotFound", "code": 404}, status=200 if job else 404
        )

    async def _delete(self, request: web.Request) -> web.Response:
        self.deleted.append(request.match_info["name"])
        self.stop()
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def stop(self) -> None:
        for group in self.groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self.container:
            self.container.wait()

    def _as_pod(self) -> dict[str, Any]:
        status = {"phase": "Running", "containerStatuses": [{"name": "builder", "state": {"running": {}}}]}
        spec = {"containers": [{"name": "builder", "image": "x"}]}
        return {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": POD, "namespace": "ml"},
            "spec": spec,
            "status": status,
        }

    async def _pods(self, request: web.Request) -> web.Response:
        label = request.query["labelSelector"].partition("=")[2]
        items = [self._as_pod()] if label in self.jobs else []
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "items": items})

    async def _pod(self, request: web.Request) -> web.Response:
        return web.json_response(self._as_pod())

    async def _exec(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=(_PROTOCOL,), max_msg_size=0)
        await socket.prepare(request)
        takes_input = request.query.get("stdin") == "true"
        process = await asyncio.create_subprocess_exec(
            *[part.replace("/plan", str(self.volume)) for part in request.query.getall("command")],
            stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.groups.append(process.pid)
        assert process.stdout is not None
        assert process.stderr is not None
        sending = [
            asyncio.create_task(self._send(socket, number, stream))
            for number, stream in ((_STDOUT, process.stdout), (_STDERR, process.stderr))
        ]
        receiving = asyncio.create_task(self._receive(socket, process))
        code = await process.wait()
        await asyncio.gather(*sending)
        status: dict[str, Any] = {"status": "Success"}
        if code:
            causes = [{"reason": "ExitCode", "message": str(code)}]
            status = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
        with suppress(ConnectionError):
            await socket.send_bytes(bytes([_STATUS]) + json.dumps(status).encode())
            await socket.close()
        receiving.cancel()
        return socket

    async def _send(self, socket: web.WebSocketResponse, number: int, stream: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while chunk := await stream.read(32768):
                await socket.send_bytes(bytes([number]) + chunk)

    async def _receive(self, socket: web.WebSocketResponse, process: asyncio.subprocess.Process) -> None:
        async for message in socket:
            if message.type != WSMsgType.BINARY or process.stdin is None:
                continue
            number, data = message.data[0], message.data[1:]
            with suppress(ConnectionError):
                if number == _STDIN:
                    process.stdin.write(data)
                    await process.stdin.drain()
                elif number == _CLOSE and data == bytes([_STDIN]):
                    process.stdin.close()


@contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """The server, on a free port of this machine, in a thread of its own."""
    server = ApiServer(folder)
    loop, started = asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        application = web.Application()
        application.add_routes(server.routes())
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    runners: list[web.AppRunner] = []

    def run() -> None:
        asyncio.set_event_loop(loop)
        runners.append(loop.run_until_complete(start()))
        started.set()
        loop.run_forever()
        loop.run_until_complete(runners[0].cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    try:
        yield server
    finally:
        server.stop()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
