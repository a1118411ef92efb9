"""Verb `runtime`: install what runs inference, and run its self-test."""

from __future__ import annotations

from edgeq_agent.calls.call import Call
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.inference.job import SelfTest
from edgeq_agent.runtimes import build, registry
from edgeq_agent.runtimes.build import RuntimeSpec
from edgeq_agent.runtimes.venv import WheelBlob
from edgeq_agent.storage import journal, lock
from edgeq_agent.wire import RUNTIME_MODULES, WHEEL_RUNTIME_MODULES, Json


def runtime(call: Call) -> Json:
    """Verb `runtime`: make `runtime/<digest>/` usable; when it is usable already, only its self-test runs.

    Raises:
        AgentError: EQ508 busy, EQ512 a field is not valid, else as `build.build`.
    """
    spec = _spec(call.fields)
    timeout_s = call.fields.timeout_s()
    with lock.hold(call.home):
        known = registry.read(call.home, spec.digest)
        if known is not None:
            # Tested again: a system upgrade may have broken it.
            try:
                self_test = known.self_test(call.home, timeout_s)
            except AgentError as error:
                call.response.progress("rebuild", reason=str(error.problem))
            else:
                return _result(spec.digest, known.entry.interpreter, self_test, created=False)
        self_test = build.build(call.home, spec, timeout_s, call.response.progress)
        noted = journal.note(
            call.home, "runtime", runtime=spec.digest, module=self_test.module, version=self_test.version
        )
    interpreter = registry.need(call.home, spec.digest).entry.interpreter
    return dict(_result(spec.digest, interpreter, self_test, created=True), **noted)


def _spec(fields: Fields) -> RuntimeSpec:
    digest = fields.sha256("digest")
    if not isinstance(fields.raw("wheels"), list):
        raise fields.refuse("wheels", "a list of {name, sha256}")
    wheels = fields.list_of("wheels", _wheel)
    program = (
        fields.object("native", "an object with sha256").sha256("sha256") if fields.has("native") else None
    )
    if program is not None and wheels:
        raise fields.refuse("native", "no wheels beside it")
    return RuntimeSpec(digest, wheels, _modules(fields), program)


def _wheel(fields: Fields, name: str) -> WheelBlob:
    wheel = fields.object(name, "objects with name and sha256")
    file_name = wheel.file_name("name")
    if not file_name.endswith(".whl"):
        raise wheel.refuse("name", "a name that ends in .whl")
    return WheelBlob(file_name, wheel.sha256("sha256"))


def _modules(fields: Fields) -> tuple[str, ...]:
    if "modules" not in fields:
        return WHEEL_RUNTIME_MODULES
    modules = fields.raw("modules")
    if not isinstance(modules, list) or not modules or any(name not in RUNTIME_MODULES for name in modules):
        raise fields.refuse("modules", "some of " + ", ".join(RUNTIME_MODULES))
    return tuple(modules)


def _result(digest: str, interpreter: str, self_test: SelfTest, created: bool) -> Json:
    return dict(self_test.to_json(), digest=digest, interpreter=interpreter, created=created)
