"""Other ways to run a program in a container, to be timed beside a sandbox of ours.

They use the image that ours uses, without its limits, which favours them. ``docker exec`` and ``docker run`` are
the command-line client. llm-sandbox (``pip install llm-sandbox[docker]``) runs from its own pre-warmed pool, its
environment set up and a session open, so that a run is ``session.run`` alone.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import docker
import requests
from docker.errors import DockerException

from envgym.errors import SandboxError
from envgym.sandbox.bench import PROGRAM, Rival
from envgym_sandboxes.docker.image import REPOSITORY, Image

__all__ = ["open_rivals"]


@contextmanager
def open_rivals(client: docker.DockerClient, image: Image) -> Iterator[Mapping[str, Rival]]:
    """Start what the rivals need, and yield those that are installed by name. Blocks.

    Raises:
        SandboxError: Docker could not start one.
    """
    with ExitStack() as stack:
        try:
            opened = {name: stack.enter_context(rival(client, image)) for name, rival in _RIVALS.items()}
        except (DockerException, requests.RequestException) as error:
            raise SandboxError(f"Docker could not start a rival: {error}") from error
        yield {name: run for name, run in opened.items() if run is not None}


@contextmanager
def _docker_exec(client: docker.DockerClient, image: Image) -> Iterator[Rival | None]:
    sleeper = [image.python, "-c", "import time; time.sleep(3600)"]
    container: Any = client.containers.run(image.reference, sleeper, detach=True, network_mode="none", init=True)
    try:
        yield _command(["docker", "exec", container.id, image.python, "-I", "-S", "-c", PROGRAM])
    finally:
        container.remove(force=True)


@contextmanager
def _docker_run(client: docker.DockerClient, image: Image) -> Iterator[Rival | None]:
    container = ["docker", "run", "--rm", "--network", "none", image.reference]
    yield _command([*container, image.python, "-I", "-S", "-c", PROGRAM])


def _command(command: list[str]) -> Rival | None:
    if shutil.which(command[0]) is None:
        return None

    async def run() -> None:
        # Blocking, because a child watched by the event loop would cost the rival more.
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: ASYNC221
        if done.stdout != b"1\n":
            raise SandboxError(f"{' '.join(command[:2])} failed: {done.stderr.decode(errors='replace')}")

    return run


@contextmanager
def _llm_sandbox(client: docker.DockerClient, image: Image) -> Iterator[Rival | None]:
    try:
        from llm_sandbox import SandboxBackend, SandboxSession
        from llm_sandbox.pool import PoolConfig, create_pool_manager
    except ImportError:
        yield None
        return
    if not image.reference.startswith(f"{REPOSITORY}:"):
        # What it needs is lent by this machine, which only fits an image of this machine's files.
        yield None
        return
    own = _with_tools(client, image)
    pool = create_pool_manager(
        backend=SandboxBackend.DOCKER,
        config=PoolConfig(max_pool_size=2, min_pool_size=2, enable_prewarming=True),
        lang="python",
        image=own,
        skip_environment_setup=True,
        runtime_configs={"network_mode": "none"},
    )
    try:
        with pool, SandboxSession(lang="python", pool=pool) as session:

            async def run() -> None:
                done = session.run(PROGRAM)
                if done.exit_code != 0 or done.stdout.strip() != "1":
                    raise SandboxError(f"llm-sandbox failed: {done.exit_code} {done.stdout} {done.stderr}")

            yield run
    finally:
        client.images.remove(own, force=True)


def _with_tools(client: docker.DockerClient, image: Image) -> str:
    """The image and what llm-sandbox expects of one: the programs that it calls, and ``python`` on the path."""
    files = {tool: f"/bin/{tool}" for tool in ("mkdir", "tail", "sleep", "chmod", "rm")}
    paths = [shutil.which(tool) or "" for tool in files]
    named = subprocess.run(["ldd", *paths], capture_output=True, text=True, check=True).stdout
    libraries = sorted(set(re.findall(r"(/\S+) \(0x", named)))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
        for source, inside in [*zip(paths, files.values(), strict=True), *((path, path) for path in libraries)]:
            tar.add(os.path.realpath(source), inside)
        for name in ("usr/bin/python", "sandbox/.sandbox-venv/bin/python"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, image.python
            tar.addfile(link)
    container: Any = client.containers.create(image.reference, [image.python])
    try:
        container.put_archive("/", archive.getvalue())
        own: Any = container.commit("envgym-bench", "llm-sandbox")
        return str(own.tags[0])
    finally:
        container.remove(force=True)


_RIVALS: Mapping[str, Callable[[docker.DockerClient, Image], AbstractContextManager[Rival | None]]] = {
    "docker_exec": _docker_exec,
    "docker_run": _docker_run,
    "llm_sandbox": _llm_sandbox,
}
