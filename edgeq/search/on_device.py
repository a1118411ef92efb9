"""Time candidates on a device: deploy each under a separate model name and benchmark it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from edgeq.benchmark import BenchResult
from edgeq.benchmark.trial import bench_bundle
from edgeq.blueprint import Blueprint
from edgeq.bundle import make_bundle
from edgeq.errors import DeviceError
from edgeq.fleet.connect import open_agent
from edgeq.kernels import class_name, class_of, record_class, table_for
from edgeq.search.measuring import Latency
from edgeq.search.records import Records, StepKind, key_of
from edgeq.store import UNRECORDED, Store
from edgeq.store.records import Body
from edgeq.values import Device, Variant

_PASSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one benchmark; the memory is None where it was not measured."""

    p50_ns: float
    p95_ns: float
    memory_peak_bytes: int | None

    @classmethod
    def from_json(cls, body: Body) -> Figures:
        """Return the figures in the body of a run."""
        return cls(p50_ns=body["p50_ns"], p95_ns=body["p95_ns"], memory_peak_bytes=body["memory_peak_bytes"])


KIND = StepKind(name="search-bench", read=Figures.from_json, write=asdict)


class OnDevice:
    """Times models on one device of the inventory."""

    def __init__(
        self,
        device: Device,
        *,
        blueprint: Blueprint,
        workspace: Path,
        store: Store,
        say: Callable[[str], None],
    ) -> None:
        self._device = device
        self._blueprint = blueprint
        self._workspace = workspace
        self._store = store
        self._records = Records(store, KIND)
        self._say = say

    @property
    def where(self) -> str:
        """Return the device's name and pinned key, so that no replacement reuses its timings."""
        return f"device {self._device.name} {self._device.host_key}"

    @property
    def machine(self) -> str:
        """Return the device's name; its class of machines is asked for where no record has it.

        Raises:
            TransportError: the device cannot be reached.
        """
        name = self._device.name
        if table_for(name, self._store) is None and class_of(name, self._store) is None:
            with open_agent(self._device) as client:
                facts = client.facts()
            record_class(name, class_name(facts.machine, facts.pointer_bits), self._store)
        return name

    def measure(self, variants: Sequence[Variant]) -> Mapping[str, Latency]:
        """Deploy and benchmark every model twice, the second time in the other order.

        The candidates are deployed as `<blueprint's name>-search`, so that the model in use is untouched. An
        invalid benchmark does not count; a candidate that the device refuses is absent from the result.

        Raises:
            TransportError: the device cannot be reached.
        """
        name = f"{self._blueprint.name[:56]}-search"
        results: dict[str, list[Figures]] = {variant.sha256: [] for variant in variants}
        with tempfile.TemporaryDirectory(prefix="edgeq-search-") as folder:
            bundles = {variant.sha256: self._bundle(variant, name, Path(folder)) for variant in variants}
            for number in range(_PASSES):
                for variant in variants if number % 2 == 0 else reversed(variants):
                    figures = self._once(variant, bundles[variant.sha256], name, number)
                    if figures is not None:
                        results[variant.sha256].append(figures)
        return {sha: _latency(each) for sha, each in results.items() if each}

    def _once(self, variant: Variant, bundle: Path, name: str, number: int) -> Figures | None:
        """Return the figures of one benchmark, from the records of an interrupted search if possible."""
        key = key_of(where=self.where, model=variant.sha256, pass_number=number)
        known = self._records.find(key)
        if known is not None:
            return known
        result = self._bench(variant, bundle, name)
        if result is None or not result.valid:
            return None
        figures = Figures(
            p50_ns=result.latency.p50_ns,
            p95_ns=result.latency.p95_ns,
            memory_peak_bytes=result.peak_bytes,
        )
        self._records.put(key, f"{variant.name} on {self._device.name}", figures)
        return figures

    def _bundle(self, variant: Variant, name: str, folder: Path) -> Path:
        path = folder / f"{variant.sha256}.eqb"
        make_bundle(
            path,
            model_file=variant.path,
            name=name,
            variant=variant.name,
            data=self._blueprint.evaluation,
            labels=self._blueprint.labels,
            store=UNRECORDED,
        )
        return path

    def _bench(self, variant: Variant, bundle: Path, name: str) -> BenchResult | None:
        try:
            return bench_bundle(self._device, bundle, name, workspace=self._workspace, store=self._store)
        except DeviceError as error:
            self._say(f"{self._device.name} refuses {variant.name}: {error.message}")
            return None


def _latency(results: Sequence[Figures]) -> Latency:
    medians = [float(result.p50_ns) for result in results]
    peaks = [int(result.memory_peak_bytes) for result in results if result.memory_peak_bytes is not None]
    return Latency(
        p50_ns=round(median(medians)),
        p95_ns=round(median(float(result.p95_ns) for result in results)),
        low_ns=round(min(medians)),
        high_ns=round(max(medians)),
        memory_peak_bytes=max(peaks, default=None),
    )
