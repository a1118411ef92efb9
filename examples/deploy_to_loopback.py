"""Deploy a bundle to an emulated device over SSH: `python examples/deploy_to_loopback.py edgeq-demo`."""

import sys
import tempfile
from pathlib import Path

import edgeq
from edgeq.bundle.keys import find_public
from edgeq.testing.loopback import loopback_device


def main(folder: Path) -> None:
    """Enrol a loopback device, deploy the demo's bundle twice, and list what the device serves."""
    bundle = edgeq.read_bundle(folder / "digits-int8.eqb")
    with tempfile.TemporaryDirectory() as home, loopback_device(Path(home) / "device") as emulated:
        enrolment = edgeq.enrol(
            Path(home),
            name="example",
            host=emulated.host,
            port=emulated.port,
            user=emulated.user,
            identity=emulated.identity,
            expected_fingerprint=emulated.fingerprint,
            publishers=[
                find_public(folder, "workspace")
            ],  # the device accepts releases signed with these keys
        )
        for _ in range(2):
            outcome = edgeq.deploy_one(enrolment.device, bundle, workspace=folder)
            sys.stdout.write(f"changed: {outcome.changed}, sent {outcome.sent_bytes} bytes\n")
        with edgeq.open_agent(enrolment.device) as agent:
            serving = agent.call("status", {})["models"]
        sys.stdout.write(f"serving: {sorted(serving)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
