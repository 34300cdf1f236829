"""A model hub of one repository on this machine, for the hub's own client to talk to.

Files come with the digests that the real one gives (of large ones the SHA-256), in ranges, and
break off where a test says so.
"""

import hashlib
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit


class TinyHub(ThreadingHTTPServer):
    """Serves ``files`` (name → bytes) as the repository ``repo_id``, its "main" at ``commit``."""

    daemon_threads = True

    def __init__(self, repo_id: str, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repo_id, self.files = repo_id, dict(files)
        self.served: list[str] = []  # names of files whose bytes went out
        self.sent: dict[str, int] = {}  # bytes of each that went out
        self.breaks_at: dict[
            str, int
        ] = {}  # name → after so many bytes the connection breaks, once

    @property
    def commit(self) -> str:
        listing = json.dumps({name: _oid(data) for name, data in self.files.items()})
        return hashlib.sha1(listing.encode()).hexdigest()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def running(self) -> Iterator["TinyHub"]:
        thread = Thread(target=self.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: TinyHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        about, resolve = f"/api/models/{self.server.repo_id}", f"/{self.server.repo_id}/resolve/"
        if path.startswith(about):
            self._describe(path.removeprefix(about).strip("/").split("/"))
        elif path.startswith(resolve):
            revision, _, name = path.removeprefix(resolve).partition("/")
            self._give(revision, name)
        else:
            self._refuse("RepoNotFound")

    def _describe(self, words: list[str]) -> None:
        if words[0] in ("revision", "tree") and words[1] not in ("main", self.server.commit):
            return self._refuse("RevisionNotFound")
        listing = [
            {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
            for name, data in self.server.files.items()
        ]
        siblings = [{"rfilename": name} for name in self.server.files]
        info = {"id": self.server.repo_id, "sha": self.server.commit, "siblings": siblings}
        self._send(200, json.dumps(listing if words[0] == "tree" else info).encode())

    def _give(self, revision: str, name: str) -> None:
        if revision not in ("main", self.server.commit):
            return self._refuse("RevisionNotFound")
        if name not in self.server.files:
            return self._refuse("EntryNotFound")
        data = self.server.files[name]
        etag = hashlib.sha256(data).hexdigest() if name.endswith(".safetensors") else _oid(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.server.commit}
        if self.command == "HEAD":
            return self._send(200, data, headers)
        self.server.served.append(name)
        start, status = 0, 200
        asked = self.headers.get("Range")
        if asked:
            start, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send_body(status, data[start:], headers, name)

    def _send_body(self, status: int, body: bytes, headers: dict[str, str], name: str) -> None:
        """A file's bytes, or as many as the test lets through."""
        most = self.server.breaks_at.pop(name, len(body))
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[:most])
        self.wfile.flush()
        self.server.sent[name] = self.server.sent.get(name, 0) + len(body[:most])
        if most < len(body):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _refuse(self, code: str) -> None:
        self._send(404, b"", {"X-Error-Code": code})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
