"""A real PostgreSQL server on loopback, made for one test session and thrown away."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BINARIES = ("initdb", "pg_ctl", "postgres")


@contextmanager
def postgres_server() -> Iterator[str]:
    """Yield the URL of an empty database.

    PostgreSQL refuses to run as root, so there it runs as `postgres` or `nobody`.
    """
    folder = Path(tempfile.mkdtemp(prefix="promptopt-pg-"))
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        known = {entry.pw_name: entry for entry in pwd.getpwall()}
        user = known.get("postgres") or known["nobody"]
        shutil.chown(folder, user.pw_uid, user.pw_gid)
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def call(*arguments: str) -> None:
        done = subprocess.run(
            arguments, cwd=folder, capture_output=True, text=True, timeout=120, check=False, **identity
        )
        assert done.returncode == 0, done.stdout + done.stderr

    data = str(folder / "data")
    call("initdb", "-D", data, "-U", "promptopt", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = f"-c listen_addresses=127.0.0.1 -p {port} -c fsync=off -c unix_socket_directories={folder}"
    call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", settings, "start")
    try:
        yield f"postgresql+psycopg://promptopt@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
