"""Candidates: checked like any release, not served, named by splits, and kept while they are needed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeq_agent import Runtime
from edgeq_agent.activation import candidates, state_record
from edgeq_agent.releases import release_store
from edgeq_agent.storage.home import Home
from tests.eventually import until

pytestmark = pytest.mark.convert


def arms_of(*arms: tuple[str, str, float], **more: Any) -> dict[str, Any]:
    entries = [{"name": name, "release": release, "weight": weight} for name, release, weight in arms]
    return {"model": "tiny", "arms": entries, "salt": "s", **more}


def third_of(kit: Any, old: Any, counter: int = 9) -> Any:
    """Return one more good release of the model."""
    files = {**old.files, "reference.json": old.files["reference.json"] + b" "}
    return kit.bundle_from(files, samples=20, name="tiny", change=lambda body: body.update(counter=counter))


@pytest.fixture
def staged_device(serving: Any, float_bundle: Any) -> Any:
    """Return a device where the int8 release serves and the float one is staged."""
    float_bundle.send(serving)
    assert serving.call("stage", **float_bundle.request()).result["changed"]
    return serving


@pytest.mark.slow
def test_a_candidate_of_a_revoked_key_is_not_split(
    staged_device: Any, kit: Any, int8_bundle: Any, float_bundle: Any
) -> None:
    """Staged while its key was trusted; staged again with a signature of the new key, it may be split."""
    second = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    rotated = kit.change_of(second, revoke=[kit.id_of(kit.PUBLISHER)])
    assert staged_device.call("trust", change=rotated).result["changed"]
    split = arms_of(("a", int8_bundle.release, 0.5), ("b", float_bundle.release, 0.5), experiment="e")
    error = staged_device.call("split", **split).error
    assert (error["code"], "revoked" in error["problem"]) == ("EQ551", True)
    signed = float_bundle.request(signatures=[kit.signature_of(float_bundle.manifest, second)])
    assert staged_device.call("stage", **signed).result["changed"] is False
    assert staged_device.call("split", **split).result["changed"]
    reset = kit.change_of(reset_counters={"tiny": 1})
    assert staged_device.call("split", model="tiny", clear=True).result["changed"]
    assert staged_device.call("trust", change=reset).result["changed"]
    assert staged_device.call("split", **split).error["code"] == "EQ551", "it has a higher counter"


class TestStage:
    def test_it_is_checked_kept_and_does_not_serve(
        self, serving: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        float_bundle.send(serving)
        before = (serving.home / "trust.json").read_bytes()
        staged = serving.call("stage", **float_bundle.request()).result
        assert (staged["changed"], staged["serves"]) == (True, False)
        assert staged["health"]["latency_p95_ns"] > 0
        assert serving.current("tiny") == int8_bundle.release
        assert (serving.home / "trust.json").read_bytes() == before, "only a commit raises the counter"
        model = serving.call("status").result["models"]["tiny"]
        assert (list(model["staged"]), model["split"]) == ([float_bundle.release], None)
        kept = serving.call("prune").result["kept"]
        assert kept["releases"][float_bundle.release] == ["tiny: staged"]
        assert serving.call("activate", **float_bundle.request()).result["changed"]

    def test_staging_twice_changes_nothing(self, staged_device: Any, float_bundle: Any) -> None:
        path = staged_device.home / "models" / "tiny" / "staged.json"
        before = (path.read_bytes(), path.stat().st_mtime_ns)
        again = staged_device.call("stage", **float_bundle.request()).result
        assert not again["changed"]
        assert again["health"]["latency_p95_ns"] > 0
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before

    def test_the_active_release_is_left_as_it_is(self, serving: Any, int8_bundle: Any) -> None:
        staged = serving.call("stage", **int8_bundle.request()).result
        assert (staged["serves"], staged["changed"]) == (True, False)
        assert candidates.read(Home(str(serving.home)), "tiny") == {}

    @pytest.mark.first_is_quick
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"signatures": []}, "EQ531"),
            ({"model": "other"}, "EQ512"),
            ({"runtime": "0" * 64}, "EQ503"),
            ({"release": "0" * 64}, "EQ505"),
        ],
    )
    def test_it_passes_the_same_gate_as_activate(
        self, serving: Any, float_bundle: Any, change: dict[str, Any], code: str
    ) -> None:
        float_bundle.send(serving)
        for verb in ("stage", "activate"):
            assert serving.call(verb, **float_bundle.request(**change)).error["code"] == code
        assert candidates.read(Home(str(serving.home)), "tiny") == {}

    @pytest.mark.slow
    def test_old_foreign_and_unhealthy_releases_are_refused(
        self, both: Any, kit: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        assert both.call("stage", **int8_bundle.request()).error["code"] == "EQ535"
        foreign = third_of(kit, float_bundle)
        foreign.manifest["requires"]["kinds"] = ["coral"]
        foreign.send(both)
        assert both.call("stage", **foreign.request()).error["code"] == "EQ503"
        slow = third_of(kit, float_bundle)
        slow.manifest["limits"]["latency_p95_ns"] = 1
        assert both.call("stage", **slow.request()).error["code"] == "EQ504"
        assert both.call("status").result["models"]["tiny"]["staged"] == {}
        assert both.current("tiny") == float_bundle.release

    @pytest.mark.slow
    def test_failed_attempts_are_limited(self, serving: Any, kit: Any, float_bundle: Any) -> None:
        slow = third_of(kit, float_bundle)
        slow.manifest["limits"]["latency_p95_ns"] = 1
        slow.send(serving)
        state = serving.home / "models" / "tiny" / "state.json"
        assert serving.call("stage", **slow.request()).error["code"] == "EQ504"
        body = json.loads(state.read_text())
        assert body["attempts"] == [{"release": slow.release, "count": 1}]
        body["attempts"][0]["count"] = state_record.ATTEMPT_LIMIT
        state.write_text(json.dumps(body))
        assert serving.call("stage", **slow.request()).error["code"] == "EQ520"
        assert serving.call("stage", **slow.request(retry=True)).error["code"] == "EQ504"

    def test_without_an_active_release_it_is_refused(self, ready: Any, float_bundle: Any) -> None:
        float_bundle.send(ready)
        assert ready.call("stage", **float_bundle.request()).error["code"] == "EQ510"

    @pytest.mark.slow
    def test_the_number_of_staged_releases_is_limited(
        self, staged_device: Any, kit: Any, float_bundle: Any
    ) -> None:
        place = Home(str(staged_device.home))
        entry = candidates.read(place, "tiny")[float_bundle.release]
        others = {f"{number:064d}": entry for number in range(candidates.LIMIT - 1)}
        candidates.write(place, "tiny", {**candidates.read(place, "tiny"), **others})
        third = third_of(kit, float_bundle)
        third.send(staged_device)
        error = staged_device.call("stage", **third.request()).error
        assert (error["code"], error["expected"]) == ("EQ554", "at most 8")
        assert staged_device.call("unstage", model="tiny", release="0" * 64).result["changed"]
        assert staged_device.call("stage", **third.request()).result["changed"]


class TestSplit:
    @pytest.mark.slow
    def test_set_show_and_clear(self, staged_device: Any, int8_bundle: Any, float_bundle: Any) -> None:
        request = arms_of(("a", int8_bundle.release, 0.9), ("b", float_bundle.release, 0.1), experiment="e")
        assert staged_device.call("split", model="tiny").result["split"] is None
        split = staged_device.call("split", **request).result
        assert (split["changed"], split["in_force"]) == (True, True)
        assert not staged_device.call("split", **request).result["changed"]
        shown = staged_device.call("split", model="tiny").result
        assert shown["split"]["base"] == int8_bundle.release
        assert staged_device.call("status").result["models"]["tiny"]["split"] == shown["split"]
        assert (
            staged_device.call("unstage", model="tiny", release=float_bundle.release).error["code"] == "EQ552"
        )
        assert staged_device.call("split", model="tiny", clear=True).result["changed"]
        assert not staged_device.call("split", model="tiny", clear=True).result["changed"]
        assert staged_device.call("unstage", model="tiny", release=float_bundle.release).result["changed"]
        assert staged_device.call("prune").result["removed"]["releases"] == [float_bundle.release]

    def test_one_experiment_at_a_time(self, staged_device: Any, float_bundle: Any) -> None:
        request = arms_of(("b", float_bundle.release, 1), experiment="mine")
        assert staged_device.call("split", **request).result["changed"]
        error = staged_device.call("split", **{**request, "experiment": "yours"}).error
        assert (error["code"], "experiment mine" in error["problem"]) == ("EQ552", True)
        more = {**request, "arms": [{**request["arms"][0], "weight": 2}]}
        assert staged_device.call("split", **more).result["changed"], "its own share may change"

    @pytest.mark.first_is_quick
    @pytest.mark.parametrize(
        ("release", "more", "code"),
        [
            ("current", {}, "EQ512"),
            ("f" * 64, {}, "EQ551"),
            (None, {"base": "f" * 64}, "EQ553"),
            (None, {"draw": "dice"}, "EQ546"),
            (None, {"salt": "x" * 201}, "EQ546"),
        ],
    )
    def test_an_invalid_split_is_refused(
        self, staged_device: Any, float_bundle: Any, release: str | None, more: dict[str, Any], code: str
    ) -> None:
        request = arms_of(("b", release or float_bundle.release, 1), **more)
        error = staged_device.call("split", **request).error
        assert error["code"] == code
        assert staged_device.call("split", model="tiny").result["split"] is None

    @pytest.mark.slow
    def test_a_candidate_older_than_a_later_commit_is_refused(
        self, staged_device: Any, kit: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        third = third_of(kit, float_bundle)
        third.send(staged_device)
        assert staged_device.call("activate", **third.request()).result["changed"]
        error = staged_device.call("split", **arms_of(("b", float_bundle.release, 1))).error
        assert (error["code"], error["expected"]) == ("EQ551", "a release counter above 9")

    @pytest.mark.slow
    def test_a_split_during_a_soak_is_refused(self, staged_device: Any, kit: Any, float_bundle: Any) -> None:
        third = third_of(kit, float_bundle)
        third.send(staged_device)
        assert staged_device.call("activate", **third.request(soak_s=3600)).result["state"] == "soaking"
        assert staged_device.call("split", **arms_of(("b", float_bundle.release, 1))).error["code"] == "EQ553"

    @pytest.mark.slow
    def test_activating_another_release_ends_it_and_a_failed_soak_restores_it(
        self, staged_device: Any, kit: Any, tiny_data: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        device = staged_device
        split = arms_of(("a", int8_bundle.release, 0.5), ("b", float_bundle.release, 0.5))
        assert device.call("split", **split).result["changed"]
        third = third_of(kit, float_bundle)
        third.send(device)
        with Runtime("tiny", str(device.home), poll_s=0.02) as rt:
            assert set(rt.releases) == {"a", "b"}
            # While the new release soaks it serves alone, and the split is suspended.
            assert device.call("activate", **third.request(soak_s=3600)).result["state"] == "soaking"
            until(lambda: rt.releases == {"default": third.release})
            assert not device.call("split", model="tiny").result["in_force"]
            assert device.call("prune").result["removed"]["releases"] == []
            # The soak fails: the previous release serves again, with its split.
            assert device.call("rollback", model="tiny").result["release"] == int8_bundle.release
            until(lambda: set(rt.releases) == {"a", "b"})
            # A commit ends it for good, also when a rollback leads back to the old release.
            answer = device.call("activate", **third.request()).result
            assert "split_problem" not in answer
            until(lambda: rt.releases == {"default": third.release})
            assert device.call("split", model="tiny").result["split"] is None
            assert device.call("rollback", model="tiny").result["release"] == int8_bundle.release
            until(lambda: rt.releases == {"default": int8_bundle.release})
            assert rt.run(tiny_data[0]).arm is None
        assert not (device.home / "models" / "tiny" / "split.json").exists()

    @pytest.mark.slow
    def test_staging_and_pruning_during_a_soak_keep_the_split_and_its_releases(
        self, staged_device: Any, kit: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        device = staged_device
        split = arms_of(("a", int8_bundle.release, 0.5), ("b", float_bundle.release, 0.5), experiment="e")
        assert device.call("split", **split).result["changed"]
        third, fourth = third_of(kit, float_bundle), third_of(kit, float_bundle, counter=12)
        third.send(device)
        assert device.call("activate", **third.request(soak_s=600)).result["state"] == "soaking"
        fourth.send(device)
        assert device.call("stage", **fourth.request()).result["changed"]
        assert device.call("prune").result["removed"]["releases"] == []
        assert device.call("status").result["models"]["tiny"]["state"] == "soaking"
        assert device.call("rollback", model="tiny").result["release"] == int8_bundle.release
        assert not device.call("recover").result["models"]["tiny"]["changed"]
        entry = device.call("status").result["models"]["tiny"]
        assert (entry["current"], entry["in_force"]) == (int8_bundle.release, True)
        assert set(entry["staged"]) == {float_bundle.release, fourth.release}

    def test_promotion_removes_the_experiment(
        self, staged_device: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        device = staged_device
        split = arms_of(("a", int8_bundle.release, 0.5), ("b", float_bundle.release, 0.5))
        assert device.call("split", **split).result["changed"]
        assert device.call("activate", **float_bundle.request()).result["changed"]
        entry = device.call("status").result["models"]["tiny"]
        assert (entry["current"], entry["split"], entry["staged"]) == (float_bundle.release, None, {})

    @pytest.mark.slow
    def test_a_damaged_file_keeps_everything_and_can_be_replaced(
        self, staged_device: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        folder = staged_device.home / "models" / "tiny"
        (folder / "staged.json").write_text("{")
        (folder / "split.json").write_text("{")
        assert staged_device.call("prune").result["removed"]["releases"] == []
        assert "EQ546" in staged_device.call("status").result["models"]["tiny"]["split"]["problem"]
        assert staged_device.call("stage", **float_bundle.request()).result["changed"]
        assert staged_device.call("split", model="tiny", clear=True).result["changed"]
        assert staged_device.call("split", model="tiny").result["split"] is None

    @pytest.mark.first_is_quick
    @pytest.mark.parametrize(
        "body",
        [
            {"schema": candidates.SCHEMA},
            {"schema": candidates.SCHEMA, "releases": {"0" * 64: "x"}},
            {"schema": candidates.SCHEMA, "releases": {"0" * 64: {"runtime": "0" * 64}}},
            {
                "schema": candidates.SCHEMA,
                "releases": {"../x": {"runtime": "0" * 64, "counter": 1, "health": {}}},
            },
        ],
    )
    def test_json_without_candidates_counts_as_damaged(
        self, staged_device: Any, float_bundle: Any, body: Any
    ) -> None:
        folder = staged_device.home / "models" / "tiny"
        (folder / "staged.json").write_text(json.dumps(body))
        assert staged_device.call("status").result["models"]["tiny"]["staged"] == {}
        assert staged_device.call("prune").result["removed"]["releases"] == []
        assert staged_device.call("stage", **float_bundle.request()).result["changed"]

    @pytest.mark.first_is_quick
    @pytest.mark.parametrize("weights", [(10**400, 1), (1e308, 1e308)])
    def test_weights_with_an_infinite_sum_are_refused(
        self, staged_device: Any, int8_bundle: Any, float_bundle: Any, weights: tuple[float, float]
    ) -> None:
        arms = [("a", int8_bundle.release, weights[0]), ("b", float_bundle.release, weights[1])]
        error = staged_device.call("split", **arms_of(*arms, draw="calls")).error
        assert error["code"] == "EQ546"
        assert "weight" in error["subject"] + error["expected"]
        assert staged_device.call("split", model="tiny").result["split"] is None


class TestServed:
    @pytest.mark.slow
    def test_a_candidate_runs_with_the_runtime_it_was_checked_with_last(
        self, serving: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        """Also when it was committed here before, with a runtime that may be gone by now."""
        float_bundle.send(serving)
        assert serving.call("stage", **float_bundle.request()).result["changed"]
        path = serving.home / "models" / "tiny" / "state.json"
        body = json.loads(path.read_text())
        gone = "0" * 64
        path.write_text(json.dumps(dict(body, runtimes={**body["runtimes"], float_bundle.release: gone})))
        place = Home(str(serving.home))
        proved = float_bundle.request()["runtime"]
        assert candidates.runtime_of(place, "tiny", float_bundle.release) == proved
        assert (
            candidates.runtime_of(place, "tiny", int8_bundle.release) == body["runtimes"][int8_bundle.release]
        )

    def test_two_releases_serve_side_by_side_by_calls(
        self, staged_device: Any, tiny_data: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        request = arms_of(
            ("a", int8_bundle.release, 0.5), ("b", float_bundle.release, 0.5), experiment="e-1", draw="calls"
        )
        assert staged_device.call("split", **request).result["changed"]
        with Runtime("tiny", str(staged_device.home)) as rt:
            arms = [rt.run(tiny_data[number % 50]).arm for number in range(400)]
            keyed = {rt.run(tiny_data[0], key="somebody").arm for _ in range(20)}
        assert len(keyed) == 1, "a key keeps its arm"
        assert 120 < arms.count("a") < 280, "calls without a key are drawn one by one"
        windows = [event["window"] for event in staged_device.call("telemetry").of("window")]
        by_arm = {window["arm"]: window for window in windows}
        assert {window["experiment"] for window in windows} == {"e-1"}
        assert sum(window["inferences"] for window in windows) == 420
        assert by_arm["a"]["release"] == int8_bundle.release
        assert by_arm["b"]["release"] == float_bundle.release
        assert sum(window.get("keyed", 0) for window in windows) == 20

    def test_an_arm_without_weight_is_not_loaded(
        self, staged_device: Any, tiny_data: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        request = arms_of(("a", int8_bundle.release, 0), ("b", float_bundle.release, 1), experiment="e-2")
        assert staged_device.call("split", **request).result["changed"]
        with Runtime("tiny", str(staged_device.home)) as rt:
            assert rt.releases == {"b": float_bundle.release}
            assert {rt.run(tiny_data[0], key=key).arm for key in (None, "x", "y", 3)} == {"b"}

    def test_a_split_of_another_base_is_not_applied(
        self, both: Any, int8_bundle: Any, float_bundle: Any
    ) -> None:
        from edgeq_agent.split import ab_split

        place = Home(str(both.home))
        arm = ab_split.Arm("b", int8_bundle.release, 1.0)
        ab_split.write(place, "tiny", ab_split.Split((arm,), "s", base=int8_bundle.release))
        with Runtime("tiny", str(both.home), poll_s=0.02) as rt:
            assert rt.releases == {"default": float_bundle.release}
            release_store.point(place, "tiny", int8_bundle.release)
            until(lambda: rt.releases == {"b": int8_bundle.release})
