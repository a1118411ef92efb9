"""Boards as their kernels describe them: processor, memory, model, thermal zone."""

from __future__ import annotations

from dataclasses import dataclass

_PROCESSOR = """processor\t: {number}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: {architecture}
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: {revision}

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A board that a device pretends to be.

    Attributes:
        cpu: qemu's name of its processor. Never left to qemu's default: version 7.2's is `max` with SME,
            under which XNNPACK's results are wrong without any error.
        part: ARM's number of the core, as in /proc/cpuinfo.
    """

    model: str
    cpu: str
    part: str
    features: str
    memory_kib: int
    revision: int = 3
    architecture: int = 8
    cores: int = 4
    temperature_mc: int = 48312

    def proc(self) -> dict[str, str]:
        """Return the files below /proc that are the board's and not this machine's."""
        entries = [
            _PROCESSOR.format(
                number=number,
                features=self.features,
                architecture=self.architecture,
                part=self.part,
                revision=self.revision,
            )
            for number in range(self.cores)
        ]
        used = self.memory_kib // 8
        meminfo = {
            "MemTotal": self.memory_kib,
            "MemFree": self.memory_kib - used,
            "MemAvailable": self.memory_kib - used // 2,
            "Buffers": 20000,
            "Cached": used // 2,
            "SwapTotal": 0,
            "SwapFree": 0,
        }
        lines = [f"{name + ':':<16}{value:>8} kB\n" for name, value in meminfo.items()]
        return {"cpuinfo": "".join(entries) + f"Model\t\t: {self.model}\n", "meminfo": "".join(lines)}

    def sys(self) -> dict[str, str]:
        """Return the files below /sys, but for the processors' list (see `cpu_list`)."""
        zone = "class/thermal/thermal_zone0"
        return {
            "firmware/devicetree/base/model": self.model + "\0",
            f"{zone}/temp": f"{self.temperature_mc}\n",
            f"{zone}/type": "cpu-thermal\n",
        }

    def cpu_list(self) -> dict[str, str]:
        """Return the files that state the number of processors.

        Where they are missing (a hardened /sys, an app's sandbox), XNNPACK is not used, and nothing but a
        line on standard error says so.
        """
        return {
            f"devices/system/cpu/{name}": f"0-{self.cores - 1}\n"
            for name in ("possible", "present", "online")
        }


_ARM64 = "fp asimd evtstrm crc32 cpuid"
PI_4 = Board(
    model="Raspberry Pi 4 Model B Rev 1.4",
    cpu="cortex-a72",
    part="0xd08",
    features=_ARM64,
    memory_kib=3977216,
)
PI_3_32BIT = Board(
    model="Raspberry Pi 3 Model B Rev 1.2",
    cpu="cortex-a15",
    part="0xd03",
    features="half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm crc32",
    memory_kib=943104,
    revision=4,
    architecture=7,
)
CORAL = Board(
    model="Freescale i.MX8MQ Phanbell",
    cpu="cortex-a53",
    part="0xd03",
    features="fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid",
    memory_kib=1010688,
    revision=4,
)
