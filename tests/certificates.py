"""An authority of a test's own, made with openssl in the test's folder, and the certificates that it signs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

AUTHORITY_RULES = """
[ca]
default_ca = own
[own]
dir = {folder}
new_certs_dir = {folder}
database = {folder}/index.txt
serial = {folder}/serial
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""


class Authority:
    """Signs what it is asked to; `ca_file` is what those who trust it are given."""

    def __init__(self, folder: Path, name: str = "plant authority") -> None:
        folder.mkdir()
        self.ca_file = folder / "ca.pem"
        self._key = folder / "ca.key"
        self._folder = folder
        self._rules = folder / "rules.cnf"
        self._rules.write_text(AUTHORITY_RULES.format(folder=folder), "utf-8")
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01\n")
        self._openssl(
            "req", "-x509", "-days", "30", "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.ca_file, *NEW_KEY
        )

    def certificate(self, name: str, *, host: str = "", expired: bool = False) -> tuple[Path, Path]:
        """Certificate and key of `name`; `host` is the IP address that a server is reached at."""
        cert, key, request = (self._folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        names = ["-addext", f"subjectAltName=IP:{host}"] if host else []
        self._openssl("req", "-new", "-subj", f"/CN={name}", "-keyout", key, "-out", request, *names, *NEW_KEY)
        until = "20200102000000Z" if expired else "20491231235959Z"
        self._openssl(
            "ca", "-batch", "-notext", "-config", self._rules, "-cert", self.ca_file, "-keyfile", self._key,
            "-startdate", "20200101000000Z", "-enddate", until, "-in", request, "-out", cert,
        )  # fmt: skip
        return cert, key

    @staticmethod
    def _openssl(*words: str | Path) -> None:
        binary = shutil.which("openssl")
        if binary is None:
            pytest.fail("these tests make certificates: apt-get install openssl")
        subprocess.run([binary, *map(str, words)], check=True, capture_output=True, timeout=30)


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
