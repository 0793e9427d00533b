"""Power cuts with a volatile disk cache, from Debian packages alone.

ext4 on a loop device on nbdfuse on `nbdkit --filter=cache cache=writeback`. That filter keeps every write that no flush has
covered in memory, so SIGKILL of nbdkit is the cut. The next boot mounts the raw image: e2fsck, journal replay, then the store.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from helpers import wait_until

PACKAGES = "nbdkit libnbd-bin fuse3 e2fsprogs"
TOOLS = ("nbdkit", "nbdfuse", "fusermount3", "mkfs.ext4", "e2fsck", "losetup", "mount", "umount")
IMAGE_BYTES = 64 << 20
E2FSCK_FAILED = 4  # from this exit code on, errors were left in the file system


def sh(*command: str | Path, check: bool = True) -> str:
    """Run it; its output.

    Raises: RuntimeError: it failed, with what it said.
    """
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(str(word) for word in command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


class Disk:
    """One image in a folder, on for as long as `on` or `plain` lasts.

    Attributes: mount: where its file system is then.
    """

    def __init__(self, folder: Path) -> None:
        self._image, self._socket, self._ready = folder / "disk.img", folder / "nbd.sock", folder / "nbdkit.pid"
        self._fuse_folder, self.mount = folder / "nbd", folder / "mount"
        self._kit: subprocess.Popen[bytes] | None = None
        for place in (self._fuse_folder, self.mount):
            place.mkdir(exist_ok=True)
        self.format()

    def format(self) -> None:
        """An empty file system."""
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        sh("mkfs.ext4", "-q", "-F", "-E", "nodiscard", self._image)

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Mounted with a volatile cache; leaving is the cut, unless `cut` was called before."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._socket.unlink(missing_ok=True)
        self._ready.unlink(missing_ok=True)
        raw = self._fuse_folder / "disk"
        with ExitStack() as down:
            self._kit = subprocess.Popen(
                ["nbdkit", "-f", "-U", self._socket, "-P", self._ready, "--filter=cache", "file", self._image, "cache=writeback",
                 "cache-max-size=1G"],
                **quiet,
            )  # fmt: skip
            down.callback(self.cut)
            wait_until(self._ready.exists, 10.0, "nbdkit to listen")  # its socket is there earlier
            fuse = subprocess.Popen(["nbdfuse", raw, "--unix", self._socket], **quiet)
            down.callback(sh, "umount", "-l", self._fuse_folder, check=False)
            down.callback(fuse.wait, 10)
            down.callback(fuse.kill)
            wait_until(raw.exists, 10.0, "nbdfuse's file")
            loop = sh("losetup", "-f", "--show", raw)
            down.callback(sh, "losetup", "-d", loop, check=False)
            sh("mount", loop, self.mount)
            down.callback(sh, "umount", "-l", self.mount, check=False)
            down.callback(self.cut)
            yield

    def cut(self) -> None:
        """No write that no flush has covered exists any more."""
        if self._kit is not None:
            self._kit.kill()
            self._kit.wait(10)
            self._kit = None

    @contextlib.contextmanager
    def plain(self) -> Iterator[None]:
        """The next boot: the file system repaired and mounted without a volatile cache.

        Raises: RuntimeError: e2fsck left errors.
        """
        done = subprocess.run(["e2fsck", "-p", self._image], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode >= E2FSCK_FAILED:
            raise RuntimeError(f"e2fsck: {done.stdout.strip()} {done.stderr.strip()}")
        with ExitStack() as down:
            loop = sh("losetup", "-f", "--show", self._image)
            down.callback(sh, "losetup", "-d", loop)
            sh("mount", loop, self.mount)
            down.callback(sh, "umount", self.mount)
            yield


@cache
def forbidden() -> str:
    """Why power cuts cannot be made here, in words; empty where they can. One disk is switched on to find out."""
    if os.geteuid() != 0:
        return "they need root"
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"{', '.join(missing)} missing; apt-get install {PACKAGES}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            disk = Disk(Path(folder))
            with disk.on():
                (disk.mount / "written").write_bytes(b"1")
            with disk.plain():
                pass
    except (RuntimeError, AssertionError, OSError) as error:
        return f"this kernel does not allow them ({error})"
    return ""


def possible() -> bool:
    """Whether power cuts can be made here."""
    return not forbidden()
