"""Verb `runtime`: build the environment that runs inference from wheels, and prove it by one inference."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import time

from edgeq_agent.blobs import blob_store
from edgeq_agent.calls import request
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import (
    BLOB_MISSING,
    DEADLINE,
    NATIVE_UNREADABLE,
    RUNTIME_REFUSED,
    UNSUPPORTED,
    AgentError,
)
from edgeq_agent.inference import model_process
from edgeq_agent.runtimes import install, native, registry, wheels
from edgeq_agent.storage import disk, files, journal, lock, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import RUNTIME_MODULES, Json

# What `python -m venv --without-pip` makes.
_VENV_FILES = 32


def runtime(call: Call) -> Json:
    """Verb `runtime`: make `runtime/<digest>/` usable; does nothing when it already is.

    Raises:
        AgentError: EQ501 no space, EQ503 it cannot be made here, or the device's own does not infer; EQ509
            a wheel is not on the device, EQ511 it did not answer in time, EQ556 wheels that do not import or
            infer.
    """
    digest = request.sha256(call.request, "digest")
    packages = request.wheels(call.request)
    modules = request.modules(call.request, RUNTIME_MODULES)
    program = request.native(call.request)
    if program is not None and packages:
        raise request.bad("native", "no wheels beside it", len(packages))
    timeout_s = request.timeout_s(call.request)
    with lock.hold(call.home):
        known = registry.read(call.home, digest)
        if known is not None:
            # Proved again, not believed: an upgrade of the system may have broken it.
            try:
                proof = _prove_known(call.home, known, timeout_s)
            except AgentError as error:
                call.response.progress("rebuild", reason=str(error.problem))
            else:
                return _answer(digest, str(known["interpreter"]), proof, created=False)
        if program is None:
            proof = _build(call, digest, packages, modules, timeout_s)
        else:
            proof = _build_native(call, digest, program, timeout_s)
        noted = journal.note(
            call.home, "runtime", runtime=digest, module=proof["module"], version=proof["version"]
        )
    body = _answer(digest, str(registry.need(call.home, digest)["interpreter"]), proof, created=True)
    body.update(noted)
    return body


def _answer(digest: str, interpreter: str, proof: Json, created: bool) -> Json:
    body = {"digest": digest, "interpreter": interpreter, "created": created}
    body.update((name, proof[name]) for name in ("module", "version", "python", "numpy"))
    return body


def _prove_known(home: Home, known: Json, timeout_s: float) -> Json:
    if native.is_native(known):
        return native.prove(home, str(known["interpreter"]), str(known["version"]), timeout_s)
    return prove(str(known["interpreter"]), [str(known["module"])], timeout_s)


def _build_native(call: Call, digest: str, program: str, timeout_s: float) -> Json:
    folder = scratch.path(call.home, "runtime-" + digest)
    scratch.sweep(call.home)
    try:
        disk.mkdir(folder)
        try:
            proof = native.build(call.home, program, folder, timeout_s)
        except AgentError as error:
            if error.code not in (UNSUPPORTED, NATIVE_UNREADABLE):
                raise
            registry.refuse(call.home, digest, error.problem)
            raise
        call.response.progress("proved", module=proof["module"], version=proof["version"])
        entry = dict(proof, schema=registry.SCHEMA, digest=digest, interpreter=native.MODULE)
        entry.update(wheels=[], wheel_sha256=[program], created_ns=time.time_ns())
        install.place(call.home, digest, folder, entry, [native.MODULE])
        return proof
    finally:
        scratch.remove(folder)


def _build(
    call: Call, digest: str, packages: list[tuple[str, str]], modules: list[str], timeout_s: float
) -> Json:
    folder = scratch.path(call.home, "runtime-" + digest)
    scratch.sweep(call.home)
    try:
        disk.mkdir(folder)
        stored = registry.OWN
        if packages:
            _check_wheels(call.home, packages)
            stored = os.path.join("venv", "bin", "python")
            # Where nobody makes numpy for the device (32-bit ARM), the runtime uses that of its own Python.
            shares = not any(name.startswith("numpy-") for name, _ in packages)
            _make_venv(os.path.join(folder, "venv"), shares, timeout_s)
            call.response.progress("venv")
            _install(call.home, packages, os.path.join(folder, "venv"))
            call.response.progress("wheels", count=len(packages))
        interpreter = os.path.join(folder, stored) if packages else sys.executable
        proof = _prove_new(call.home, digest, packages, interpreter, modules, timeout_s)
        call.response.progress("proved", module=proof["module"], version=proof["version"])
        entry = dict(proof, schema=registry.SCHEMA, digest=digest, interpreter=stored)
        entry.update(wheels=[name for name, _ in packages], created_ns=time.time_ns())
        entry.update(wheel_sha256=[sha256 for _, sha256 in packages])
        install.place(call.home, digest, folder, entry, ["venv"] if packages else [])
        return proof
    finally:
        scratch.remove(folder)


def _prove_new(
    home: Home,
    digest: str,
    packages: list[tuple[str, str]],
    interpreter: str,
    modules: list[str],
    timeout_s: float,
) -> Json:
    """Prove what was just built; wheels that do not start here are remembered: the host tries others then."""
    try:
        return prove(interpreter, modules, timeout_s)
    except AgentError as error:
        if not packages or error.code != UNSUPPORTED:
            raise
        registry.refuse(home, digest, error.problem)
        raise AgentError(
            RUNTIME_REFUSED,
            "runtime " + digest[:12],
            "its wheels fit by their tags and do not start here: " + error.problem,
            hint="`edgeq deploy` tries the next ones; `edgeq prune` lets these be tried again",
        ) from error


def _check_wheels(home: Home, packages: list[tuple[str, str]]) -> None:
    needed, count = 0, _VENV_FILES
    for name, sha256 in packages:
        if not blob_store.intact(home, sha256):
            files.remove(home.blob(sha256))
            raise AgentError(BLOB_MISSING, name, "not on the device", expected=sha256, hint="send it first")
        size_bytes, members = wheels.sizes(home.blob(sha256), name)
        needed, count = needed + size_bytes, count + members
    blob_store.check_space(home, f"runtime of {len(packages)} wheels", needed, count)


def _make_venv(folder: str, shares: bool, timeout_s: float) -> None:
    # Without pip: the wheels are unpacked by us, and on a slow board pip alone takes 20 s.
    command = [sys.executable, "-m", "venv", "--without-pip"]
    try:
        done = subprocess.run(
            [*command, *(["--system-site-packages"] if shares else []), folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AgentError(DEADLINE, "venv", f"not made within {timeout_s:g} s") from error
    if done.returncode != 0:
        last = done.stdout.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise AgentError(
            UNSUPPORTED,
            "venv",
            "python -m venv failed: " + "".join(last),
            hint="install python3-venv on the device",
        )
    # The module copies its activation scripts with the modes that they have in Python's own folder.
    for path in glob.glob(os.path.join(glob.escape(folder), "bin", "*")):
        if not os.path.islink(path):
            disk.chmod(path, os.stat(path).st_mode & 0o700)


def _install(home: Home, packages: list[tuple[str, str]], venv: str) -> None:
    sites = glob.glob(os.path.join(glob.escape(venv), "lib", "python*", "site-packages"))
    if len(sites) != 1:
        raise AgentError(UNSUPPORTED, "venv", expected="one site-packages folder", got=str(len(sites)))
    for name, sha256 in packages:
        wheels.unpack(home.blob(sha256), name, sites[0])


def prove(interpreter: str, modules: list[str], timeout_s: float) -> Json:
    """Return {module, version, python, numpy, kernels} of the first module that imports and makes one
    inference.

    Raises:
        AgentError: EQ503, none does; EQ511, it did not answer in time.
    """
    job = {"job": "prove", "modules": modules}
    return model_process.run(interpreter, job, timeout_s, crash_code=UNSUPPORTED)
