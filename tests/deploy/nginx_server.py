"""A real nginx with deploy/nginx.conf, in front of a server under test."""

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.live import ROOT, eventually, free_port
from tests.missing import missing

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")

CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/chat.conf;
}}
"""


def nginx_or_skip() -> str:
    """The path of the program. If it is not installed, the test is skipped; in CI it fails."""
    if NGINX is None:
        missing("nginx")
    return NGINX


class Nginx:
    """Proxies to `port`. Of deploy/nginx.conf only the two addresses are replaced."""

    def __init__(self, folder: Path, port: int) -> None:
        program = nginx_or_skip()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "nginx.log"
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        assert text.count("listen 80;") == text.count("server 127.0.0.1:8000;") == 1
        text = text.replace("listen 80;", f"listen 127.0.0.1:{self.port};").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        (folder / "chat.conf").write_text(text)
        (folder / "nginx.conf").write_text(CONFIG.format(folder=folder))
        with self._log.open("ab") as log:
            command = [program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        assert eventually(self._is_up, 20), self._log.read_text()

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait(5)
