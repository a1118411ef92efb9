"""Sequences over HTTP: Triton's sequence extension, spoken with NVIDIA's own client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest

from edgeq_agent.releases import release_store
from edgeq_agent.storage.home import Home
from tests import stateful
from tests.agent.served import Served, request_of, running
from tests.eventually import until

pytestmark = [pytest.mark.convert, pytest.mark.slow]

START = np.array(stateful.START, np.float32)
ONE = np.ones((1, 2), np.float32)


@contextmanager
def _client(server: Served) -> Iterator[Any]:
    http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    with closing(http.InferenceServerClient(server.netloc)) as client:
        yield client


def _infer(client: Any, step: float = 1, **sequence: Any) -> Any:
    import tritonclient.http as http

    entry = http.InferInput("x", [1, 2], "FP32")
    entry.set_data_from_numpy(ONE * np.float32(step))
    return client.infer("total", [entry], **sequence).as_numpy("total")[0]


def _ask(server: Served, **parameters: Any) -> tuple[int, dict[str, Any]]:
    return server.post("total", request_of(ONE, "x", parameters=parameters))


def _values(answer: dict[str, Any]) -> list[float]:
    values: list[float] = answer["outputs"][0]["data"]
    return values


def test_tritons_client_runs_sequences(total: Any) -> None:
    with running(total, "--port", "0") as server, _client(server) as client:
        assert {"sequence", "sequence(string_id)"} <= set(client.get_server_metadata()["extensions"])
        for number in range(1, 5):
            marks = {"sequence_start": number == 1, "sequence_end": number == 4}
            one = _infer(client, sequence_id=7, **marks)
            other = _infer(client, step=10, sequence_id="other", **marks)
            np.testing.assert_array_equal(one, START + number)
            np.testing.assert_array_equal(other, START + 10 * number)
            np.testing.assert_array_equal(_infer(client), START + 1)
        status, answer = _ask(server, sequence_id=7)
        assert (status, answer["error"].partition(":")[0]) == (409, "EQ563")
        assert "is not open" in answer["error"]


def test_threads_do_not_mix_sequences(total: Any) -> None:
    wrong: list[object] = []

    def work(server: Served, step: int) -> None:
        with _client(server) as client:
            for number in range(1, 41):
                marks = {"sequence_start": number == 1, "sequence_end": number == 40}
                got = _infer(client, step=step, sequence_id=step, **marks)
                alone = _infer(client, step=step)
                if not np.array_equal(got, START + step * number) or not np.array_equal(alone, START + step):
                    wrong.append((step, number, got, alone))

    with running(total, "--port", "0") as server:
        threads = [threading.Thread(target=work, args=(server, step)) for step in range(1, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
    assert wrong == []
    windows = [event["window"] for event in total.call("telemetry", limit=1000).of("window")]
    assert sum(window["inferences"] + window["unrecorded"] for window in windows) == 6 * 40 * 2


def test_the_limit_and_the_idle_time(total: Any) -> None:
    with running(total, "--port", "0", "--sessions", "2", "--session-idle", "1") as server:
        assert _ask(server, sequence_id=1, sequence_start=True)[0] == 200
        assert _ask(server, sequence_id=2, sequence_start=True)[0] == 200
        status, answer = _ask(server, sequence_id=3, sequence_start=True)
        assert (status, answer["error"].partition(":")[0]) == (503, "EQ562")
        assert "serve --sessions" in answer["error"]
        assert _ask(server)[0] == 200
        time.sleep(2.5)
        assert _ask(server, sequence_id=3, sequence_start=True)[0] == 200
        status, answer = _ask(server, sequence_id=1)
        assert status == 409
        assert "no call came for 1 s" in answer["error"]


def test_a_second_start_restarts(total: Any) -> None:
    with running(total, "--port", "0") as server:
        for _ in range(3):
            _ask(server, sequence_id="a", sequence_start=True)
            assert _values(_ask(server, sequence_id="a")[1]) == (START + 2).tolist()


def test_a_sequence_whose_first_request_fails_has_not_begun(total: Any) -> None:
    with running(total, "--port", "0", "--sessions", "1") as server:
        for name in ("a", "b"):
            request = request_of(np.ones((1, 3), np.float32), "x")
            request["parameters"] = {"sequence_id": name, "sequence_start": True}
            assert server.post("total", request)[0] == 400
        assert _ask(server, sequence_id="a")[0] == 409
        assert _ask(server, sequence_id="c", sequence_start=True)[0] == 200


def test_a_first_request_for_an_output_that_is_not_there_begins_nothing(total: Any) -> None:
    with running(total, "--port", "0", "--sessions", "1") as server:
        request = request_of(ONE, "x", outputs=[{"name": "other"}])
        request["parameters"] = {"sequence_id": "a", "sequence_start": True}
        assert server.post("total", request)[0] == 400
        assert _ask(server, sequence_id="a")[0] == 409
        assert _ask(server, sequence_id="b", sequence_start=True)[0] == 200


def test_a_request_that_is_refused_leaves_the_state(total: Any) -> None:
    with running(total, "--port", "0") as server:
        assert _ask(server, sequence_id="a", sequence_start=True)[0] == 200
        request = request_of(ONE, "x", outputs=[{"name": "other"}], parameters={"sequence_id": "a"})
        status, answer = server.post("total", request)
        assert (status, "expected one of total" in answer["error"]) == (400, True)
        assert _values(_ask(server, sequence_id="a")[1]) == (START + 2).tolist()


def test_a_number_and_its_text_are_ids_of_two_sequences(total: Any) -> None:
    with running(total, "--port", "0") as server:
        for number in range(1, 4):
            for name in (1, "1", "1.0", '"1"'):
                status, answer = _ask(server, sequence_id=name, sequence_start=number == 1)
                assert (status, _values(answer)) == (200, (START + number).tolist())


@pytest.mark.parametrize("on_swap", ["finish", "end", "restart"])
def test_a_swap_in_the_middle(total: Any, on_swap: str) -> None:
    home = Home(str(total.home))
    now = str(release_store.current(home, "total"))
    (before,) = set(release_store.of_model(home, "total")) - {now}
    with running(total, "--port", "0", "--on-swap", on_swap) as server:
        _ask(server, sequence_id=5, sequence_start=True)
        release_store.point(home, "total", before)
        until(lambda: _ask(server)[1]["model_version"] == before)
        status, answer = _ask(server, sequence_id=5)
        if on_swap == "finish":
            assert (answer["model_version"], _values(answer)) == (now, (START + 2).tolist())
        elif on_swap == "end":
            assert status == 409
            assert f"its release {now[:12]} was replaced" in answer["error"]
            assert "is not open" in _ask(server, sequence_id=5)[1]["error"]
        else:
            assert (answer["model_version"], _values(answer)) == (before, (START + 10).tolist())
            assert answer["parameters"] == {"sequence_restarted": True}
            assert "parameters" not in _ask(server, sequence_id=5)[1]


def test_a_sequence_of_a_version(total: Any) -> None:
    home = Home(str(total.home))
    now = str(release_store.current(home, "total"))
    with running(total, "--port", "0") as server:
        path = f"/v2/models/total/versions/{now}/infer"
        import json

        body = json.dumps(request_of(ONE, "x", parameters={"sequence_id": 1, "sequence_start": True}))
        assert server.ask("POST", path, body.encode())[0] == 200
        other = json.dumps(request_of(ONE, "x", parameters={"sequence_id": 1}))
        wrong = f"/v2/models/total/versions/{'0' * 64}/infer"
        assert server.ask("POST", wrong, other.encode())[0] == 404
        assert server.ask("POST", path, other.encode())[0] == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"sequence_id": -1},
        {"sequence_id": 2**64},
        {"sequence_id": 1.5},
        {"sequence_id": True},
        {"sequence_id": ["a"]},
        {"sequence_id": "a" * 201},
        {"sequence_id": 1, "sequence_start": 1},
        {"sequence_start": True},
        {"sequence_id": 0, "sequence_start": True},
        {"sequence_id": "", "sequence_end": True},
        {"sequence_id": 1, "sequence_stop": True},
    ],
)
def test_wrong_parameters_are_refused(total_server: Served, wrong: dict[str, Any]) -> None:
    status, answer = _ask(total_server, **wrong)
    assert status == 400, answer
    assert "sequence" in answer["error"]


@pytest.mark.parametrize("none", [{"sequence_id": 0}, {"sequence_id": ""}, {"sequence_id": None}])
def test_an_id_of_zero_is_not_a_sequence(total_server: Served, none: dict[str, Any]) -> None:
    for _ in range(2):
        assert _values(_ask(total_server, **none)[1]) == (START + 1).tolist()


@pytest.fixture(scope="module")
def total_server(prepared_total: Any, tmp_path_factory: pytest.TempPathFactory, kit: Any) -> Iterator[Served]:
    import shutil

    home = tmp_path_factory.mktemp("served-total") / "home"
    shutil.copytree(prepared_total, home, symlinks=True)
    with running(kit.Device(home=home), "--port", "0") as server:
        yield server
