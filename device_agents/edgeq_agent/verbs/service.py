"""Verb `service`: install, remove or show what starts the agent with the device."""

from __future__ import annotations

import os

from edgeq_agent.autostart import host_env, kinds, service
from edgeq_agent.autostart.host_env import HostEnv
from edgeq_agent.autostart.record import Spec
from edgeq_agent.calls.call import Call
from edgeq_agent.errors import SERVICE_IMPOSSIBLE, AgentError
from edgeq_agent.http import serve
from edgeq_agent.releases import agent_files, release_store
from edgeq_agent.wire import Json

ACTIONS = ("enable", "disable", "status")


def run(call: Call) -> Json:
    """Verb `service`: `action` is one of ACTIONS.

    `enable` takes `kind` (default: the best one for the device), `models` to serve, the server's `port`, the
    `token_file` on the device whose bearer token a request must send, and its other `options` by name.

    Raises:
        AgentError: EQ510 a model has no release, EQ557 installed, but nothing starts it at boot; EQ558 that
            kind is not possible here, or it does not start; EQ508 busy.
    """
    action = call.fields.one_of("action", ACTIONS, "status")
    env = host_env.detect(call.home.root)
    if action == "enable":
        return service.enable(call.home, _spec(call, env), env, call.response.progress).to_json()
    if action == "disable":
        return service.disable(call.home, env).to_json()
    return dict(service.status(call.home, env).to_json(), changed=False)


def _spec(call: Call, env: HostEnv) -> Spec:
    fields = call.fields
    kind = fields.one_of("kind", ("auto", *kinds.KINDS), "auto")
    if kind == "auto":
        kind = kinds.choose(env)
    kinds.check(kind, env)
    models = fields.model_names("models")
    for model in models:
        release_store.need_current(call.home, model)
    port = fields.integer("port", 1, 65535) if fields.has("port") else None
    if port is not None and not models:
        raise fields.refuse("port", "models to serve with it")
    if agent_files.newest(call.home) is None:
        raise AgentError(
            SERVICE_IMPOSSIBLE,
            call.home.agents,
            "there is no agent file to start",
            hint="run `edgeq devices service DEVICE`, which copies the agent there",
        )
    token_file = fields.text("token_file") if fields.has("token_file") else None
    if token_file is not None and not models:
        raise fields.refuse("token_file", "models to serve with it")
    if token_file is not None and not os.path.isabs(token_file):
        raise fields.refuse("token_file", "an absolute path on the device")
    options = fields.optional_object("options").json()
    if options and not models:
        raise fields.refuse("options", "models to serve with them")
    return Spec(kind, tuple(models), port, token_file, serve.option_words(options, port))
