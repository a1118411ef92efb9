"""A Python interpreter with a TFLite runtime module: it runs models in a process of their own."""

from __future__ import annotations

from edgeq_agent import wire
from edgeq_agent.errors import UNSUPPORTED
from edgeq_agent.inference import job, model_process
from edgeq_agent.inference.job import (
    BenchOptions,
    HealthReport,
    InferOptions,
    InferResult,
    ReleaseFiles,
    SelfTest,
)
from edgeq_agent.runtimes.base import OnEvent, RuntimeBackend
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json


class PythonBackend(RuntimeBackend):
    """Runs the jobs of `inference` under the runtime's interpreter."""

    proof = job.GOLDEN

    @property
    def python(self) -> str | None:
        return self.entry.interpreter

    def self_test(self, home: Home, timeout_s: float) -> SelfTest:
        return self_test(self.entry.interpreter, (self.entry.module,), timeout_s)

    def check_health(self, files: ReleaseFiles, timeout_s: float) -> HealthReport:
        golden = job.GoldenJob(self.entry.module, self.entry.version, files)
        return HealthReport.from_json(model_process.run(self.entry.interpreter, golden, timeout_s))

    def bench(self, files: ReleaseFiles, options: BenchOptions, timeout_s: float) -> Json:
        bench = job.BenchJob(self.entry.module, self.entry.version, files, options)
        return dict(model_process.run(self.entry.interpreter, bench, timeout_s), schema=wire.BENCH_SCHEMA)

    def infer(
        self,
        files: ReleaseFiles,
        options: InferOptions,
        payload_path: str,
        timeout_s: float,
        on_event: OnEvent,
    ) -> InferResult:
        infer = job.InferJob(self.entry.module, files, payload_path, options)
        return InferResult.from_json(model_process.run(self.entry.interpreter, infer, timeout_s, on_event))

    def require_outputs(self, model: str) -> None:
        return

    def require_comparison(self, model: str) -> None:
        return


def self_test(interpreter: str, modules: tuple[str, ...], timeout_s: float) -> SelfTest:
    """Return the first of `modules` that imports under an interpreter and computes a known model correctly.

    Raises:
        AgentError: EQ503, none does; EQ511, the process did not answer in time.
    """
    result = model_process.run(interpreter, job.SelfTestJob(modules), timeout_s, crash_code=UNSUPPORTED)
    return SelfTest.from_json(result)
