"""An S3 server on this machine, for as long as a test or a module of tests needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest


@contextmanager
def s3_server(*buckets: str) -> Iterator[Any]:
    """The file system of a server with these buckets, which this process and those that it starts find."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        patch.setenv("AWS_ENDPOINT_URL", address)
        try:
            s3fs.S3FileSystem.clear_instance_cache()
            files = s3fs.S3FileSystem()
            for name in buckets:
                files.mkdir(name)
            yield files
        finally:
            with urlopen(
                Request(f"{address}/moto-api/reset", method="POST")
            ):  # else buckets outlive the server
                server.stop()
            s3fs.S3FileSystem.clear_instance_cache()
