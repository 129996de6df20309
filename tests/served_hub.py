"""A hub on this machine that serves the files of one data set the way the Hugging Face hub does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hub_cache import REVISION


@contextmanager
def served_hub(folder: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """Its address, and what is asked for."""
    asked: list[str] = []
    files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(f"{self.command} {path}")
            if path.startswith(f"/api/datasets/{name}"):
                if "/tree/" in path:
                    tree = [
                        {"type": "file", "path": n, "size": p.stat().st_size, "oid": "0" * 40}
                        for n, p in files.items()
                    ]
                    self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
                    return
                known = {
                    "id": name,
                    "sha": REVISION,
                    "siblings": [{"rfilename": n} for n in files],
                    "tags": [],
                }
                self.answer(200, json.dumps(known).encode(), Content_Type="application/json")
                return
            where, _, rest = path.partition("/resolve/")
            file = files.get(rest.partition("/")[2])
            if where != f"/datasets/{name}":
                self.answer(404, b"", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            elif file is None:
                self.answer(
                    404,
                    b"",
                    X_Error_Code="EntryNotFound",
                    X_Error_Message="Entry not found",
                    X_Repo_Commit=REVISION,
                )
            else:
                content = file.read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                self.answer(200, content, ETag=f'"{digest}"', X_Repo_Commit=REVISION)

        def do_HEAD(self) -> None:
            self.do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
