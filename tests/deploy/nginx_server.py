"""A real nginx with deploy/nginx.conf, in front of a server under test."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

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


class Certificate(NamedTuple):
    """Paths of PEM files."""

    chain: Path
    key: Path


def _listen(text: str, address: str, certificate: Certificate | None) -> str:
    """Keeps one of the two addresses, of TLS or of plain HTTP."""
    plain, tls = "    listen 80;\n", "    listen 443 ssl http2;\n"
    assert text.count(plain) == text.count(tls) == 1
    if certificate is None:
        text = re.sub(r"    ssl_certificate(_key)? .*\n", "", text.replace(tls, ""))
        return text.replace(plain, f"    listen {address};\n")
    text = text.replace(plain, "").replace(tls, f"    listen {address} ssl http2;\n")
    return text.replace("/etc/nginx/chat.crt", str(certificate.chain)).replace("/etc/nginx/chat.key", str(certificate.key))


class Nginx:
    """Proxies to `port`. Of deploy/nginx.conf only the addresses and the certificate's paths are replaced.

    `certificate`: listens for TLS. `inner`: with the lines that docs/deployment.md gives for an nginx behind another proxy.
    `below_path`: with those for a server below `/chat/`.
    `more`: further directives of the server.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        certificate: Certificate | None = None,
        inner: bool = False,
        below_path: bool = False,
        more: str = "",
    ) -> None:
        program = nginx_or_skip()
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._log = folder / "nginx.log"
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        assert text.count("server 127.0.0.1:8000;") == 1
        text = _with_example(text, "X-Forwarded-Host") if inner else text
        text = _with_example(text, "location /chat/") if below_path else text
        text = _listen(text, f"127.0.0.1:{self.port}", certificate)
        text = text.replace("server_name _;", f"server_name _; {more}").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
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


def _with_example(text: str, content: str) -> str:
    """Replaces directives by those of the example in docs/deployment.md that has `content`."""
    examples = re.findall(r"```nginx\n(.+?)```", (ROOT / "docs" / "deployment.md").read_text(), re.DOTALL)
    (example,) = [example for example in examples if content in example]
    for line in example.splitlines():
        directive = line.removesuffix(" {").rpartition(" ")[0]
        pattern = re.compile(rf"^{re.escape(directive)} (?!@).*$", re.MULTILINE)  # A location with @ is no path.
        assert len(pattern.findall(text)) == 1, directive
        text = pattern.sub(lambda _, line=line: line, text)
    return text
