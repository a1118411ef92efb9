"""`edgeq-agent serve`: the Open Inference Protocol v2, spoken with clients that are not ours."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_agent.releases import release_store
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import Arm, Split
from edgeq_agent.storage.home import Home
from tests.agent.served import Served, request_of, running
from tests.eventually import PATIENCE_S

pytestmark = pytest.mark.convert

CURL = shutil.which("curl")
JSON = "Content-Type: application/json"
needs_curl = pytest.mark.skipif(CURL is None, reason="curl is not installed (apt-get install curl)")


class TestWithTritonsClient:
    """NVIDIA's client, which speaks the protocol to servers of all makers."""

    @pytest.fixture
    def client(self, server: Served) -> Iterator[Any]:
        http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
        with closing(http.InferenceServerClient(server.netloc)) as client:
            yield client

    def test_health_and_metadata(self, client: Any, float_bundle: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", float_bundle.release)
        assert not client.is_model_ready("tiny", "1")
        assert not client.is_model_ready("unknown")
        assert client.get_server_metadata()["extensions"] == [
            "binary_tensor_data",
            "sequence",
            "sequence(string_id)",
            "edgeq_feedback",
        ]
        metadata = client.get_model_metadata("tiny")
        assert metadata["versions"] == [float_bundle.release]
        assert [entry["shape"] for entry in metadata["inputs"] + metadata["outputs"]] == [
            [1, 6, 6, 2],
            [1, 3],
        ]

    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("binary_out", [True, False])
    def test_the_models_answers(
        self, client: Any, tiny_models: Path, tiny_data: Any, kit: Any, binary_in: bool, binary_out: bool,
        float_bundle: Any,
    ) -> None:  # fmt: skip
        import tritonclient.http as http

        known = client.get_model_metadata("tiny")
        expected = kit.run_here(tiny_models / "float.tflite", tiny_data[:10])[1]
        for row in range(10):
            entry = http.InferInput(known["inputs"][0]["name"], [1, 6, 6, 2], "FP32")
            entry.set_data_from_numpy(tiny_data[row : row + 1], binary_data=binary_in)
            exit_ = http.InferRequestedOutput(known["outputs"][0]["name"], binary_data=binary_out)
            # The client itself states no type; the length of the JSON part before binary data stands for it.
            headers = None if binary_in else {"Content-Type": "application/json"}
            answer = client.infer("tiny", [entry], outputs=[exit_], request_id=f"r{row}", headers=headers)
            np.testing.assert_allclose(
                answer.as_numpy(known["outputs"][0]["name"])[0], expected[row], rtol=1e-6
            )
            response = answer.get_response()
            assert (response["id"], response["model_version"]) == (f"r{row}", float_bundle.release)

    def test_clients_get_the_reason_of_a_refusal(self, client: Any, tiny_data: Any) -> None:
        import tritonclient.http as http
        from tritonclient.utils import InferenceServerException

        entry = http.InferInput("x", [1, 6, 6, 2], "FP32")
        entry.set_data_from_numpy(tiny_data[:1])
        with pytest.raises(InferenceServerException, match="no model 'unknown'"):
            client.infer("unknown", [entry])
        with pytest.raises(InferenceServerException, match="EQ540"):
            client.infer("tiny", [entry])
        with pytest.raises(InferenceServerException, match="Content-Encoding"):
            client.infer("tiny", [entry], request_compression_algorithm="gzip")

    def test_many_clients_at_once(self, server: Served, tiny_data: Any, name: str) -> None:
        import tritonclient.http as http

        failed: list[object] = []

        def work(seed: int) -> None:
            with closing(http.InferenceServerClient(server.netloc)) as client:
                for row in range(seed, seed + 30):
                    entry = http.InferInput(name, [1, 6, 6, 2], "FP32")
                    entry.set_data_from_numpy(tiny_data[row : row + 1])
                    try:
                        client.infer("tiny", [entry])
                    except Exception as error:  # noqa: BLE001 - any failure is what this looks for
                        failed.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failed == []


@pytest.mark.slow
@needs_curl
def test_curl_over_the_unix_socket(serving: Any, tiny_data: Any, tiny_models: Path, kit: Any) -> None:
    with running(serving) as server:
        path = serving.home / "serve.sock"
        assert server.socket_path == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

        def curl(*words: str) -> Any:
            command = [str(CURL), "-sS", "--fail-with-body", "-H", JSON, "--unix-socket", str(path), *words]
            return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)

        assert curl("http://localhost/v2/health/ready") == {"ready": True}
        entry = curl("http://localhost/v2/models/tiny")["inputs"][0]
        assert entry["datatype"] == "FP32"  # int8 inside; real values are quantized for the caller
        (serving.home / "request.json").write_text(json.dumps(request_of(tiny_data[:1], entry["name"])))
        document = curl("http://localhost/v2/models/tiny/infer", "-d", f"@{serving.home}/request.json")
        raw = kit.run_here(tiny_models / "int8.tflite", tiny_data[:1])[1]
        np.testing.assert_allclose(document["outputs"][0]["data"], (raw[0].astype(float) + 128) / 256)
        # Over 1 MB curl asks first ("Expect: 100-continue"), and has its answer before it sends.
        big = request_of(np.zeros((300, 6, 6, 100), np.float32), entry["name"])
        (serving.home / "request.json").write_text(json.dumps(big))
        words = [
            str(CURL),
            "-sS",
            "-w",
            "%{http_code}",
            "-o",
            "/dev/null",
            "-H",
            JSON,
            "--unix-socket",
            str(path),
        ]
        words += ["http://localhost/v2/models/tiny/infer", "-d", f"@{serving.home}/request.json"]
        assert subprocess.run(words, capture_output=True, check=True, timeout=60).stdout == b"400"
    assert not path.exists()


def test_integers_raw_outputs_and_versions(
    both: Any, int8_bundle: Any, float_bundle: Any, tiny_models: Path, tiny_data: Any, kit: Any
) -> None:
    arms = (Arm("a", "current", 1.0), Arm("b", "previous", 1.0))
    ab_split.write(Home(str(both.home)), "tiny", Split(arms, "s"))
    integers, raw = kit.run_here(tiny_models / "int8.tflite", tiny_data[:1])
    with running(both, "--port", "0") as server:
        at = f"/v2/models/tiny/versions/{int8_bundle.release}"
        known = json.loads(server.ask("GET", at)[2])
        assert sorted(known["versions"]) == sorted([int8_bundle.release, float_bundle.release])
        entry = {"name": known["inputs"][0]["name"], "shape": [6, 6, 2], "datatype": "INT8"}
        head = json.dumps(
            {
                "inputs": [{**entry, "parameters": {"binary_data_size": 72}}],
                "parameters": {"raw": True, "binary_data_output": True},
            }
        ).encode()
        status, headers, body = server.ask(
            "POST", at + "/infer", head + integers.tobytes(), inference_header_content_length=str(len(head))
        )
        assert status == 200, body
        length = int(headers["inference-header-content-length"])
        answer = json.loads(body[:length])
        assert answer["outputs"] == [
            {"name": known["outputs"][0]["name"], "datatype": "INT8", "shape": [3],
             "parameters": {"binary_data_size": 3}}
        ]  # fmt: skip
        assert answer["model_version"] == int8_bundle.release
        np.testing.assert_array_equal(np.frombuffer(body[length:], np.int8), raw[0])
        # The split's key.
        split_arms = set()
        for key in range(20):
            request = request_of(tiny_data[0], entry["name"], parameters={"key": f"k{key}"})
            status, answer = server.post("tiny", request)
            assert status == 200, answer
            arm = ab_split.choose([("a", 1.0), ("b", 1.0)], "s", f"k{key}")
            assert answer["parameters"] == {"arm": "ab"[arm]}
            assert answer["model_version"] == [float_bundle.release, int8_bundle.release][arm]
            split_arms.add(answer["parameters"]["arm"])
        assert split_arms == {"a", "b"}
        for path in (f"/v2/models/tiny/versions/{'0' * 64}", "/v2/models/tiny/versions/1"):
            assert server.ask("GET", path)[0] == 404
            body = json.dumps(request_of(tiny_data[0], entry["name"])).encode()
            assert server.ask("POST", path + "/infer", body)[0] == 404


def test_a_swap_while_it_serves(both: Any, int8_bundle: Any, tiny_data: Any, name: str) -> None:
    with running(both, "--port", "0") as server:
        before = server.post("tiny", request_of(tiny_data[0], name))[1]["model_version"]
        assert before != int8_bundle.release
        release_store.point(Home(str(both.home)), "tiny", int8_bundle.release)
        end = time.monotonic() + PATIENCE_S
        while True:
            request = request_of(
                tiny_data[0], json.loads(server.ask("GET", "/v2/models/tiny")[2])["inputs"][0]["name"]
            )
            status, answer = server.post("tiny", request)
            assert status == 200, answer
            if answer["model_version"] == int8_bundle.release:
                break
            assert time.monotonic() < end
