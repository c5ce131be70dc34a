"""The board under the program: what it is, how hot it is, and whether heat or voltage slow it down.

A leaf module that owns the reading of /proc and /sys for that. What a machine does not tell is
None: only a Raspberry Pi's firmware says whether it throttled. Blocking, though for less than a
millisecond on most boards.
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

# Bits of the firmware's get_throttled (raspberrypi.com, documentation of vcgencmd). The same bits
# 16 higher: it has happened since the board started.
THROTTLED = {
    0: "voltage too low",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
SINCE_BOOT = 16
_LOW_VOLTAGE = 0  # a bit's number
_UNDER_VOLTAGE = 1 << _LOW_VOLTAGE
_SLOWER = 1 << 1 | 1 << 2 | 1 << 3


@dataclass(frozen=True, slots=True)
class Board:
    """What stays as it is."""

    name: str
    processor: str | None
    processors: int
    memory_bytes: int | None
    kernel: str
    system: str | None
    governor: str | None


@dataclass(frozen=True, slots=True)
class Heat:
    """What changes while a program computes. Degrees Celsius and Hz."""

    celsius: float | None
    frequency_hz: int | None  # of the first processor
    throttling: tuple[str, ...] | None  # now and "since boot: ...", or None where nobody tells
    throttled: bool | None = None  # now: slower because of heat or voltage
    under_voltage: bool | None = None  # now
    throttled_before: bool | None = None  # since the board started, now included
    under_voltage_before: bool | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """The trees that are read; tests bring their own."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    etc: Path = Path("/etc")

    def board(self) -> Board:
        """Read what the machine is."""
        processor = _value(self.proc / "cpuinfo", "model name", ":")
        name = _text(self.proc / "device-tree" / "model") or self._dmi_name()
        memory = _value(self.proc / "meminfo", "MemTotal", ":")
        system = _value(self.etc / "os-release", "PRETTY_NAME", "=")
        return Board(
            name=name or platform.machine(),
            processor=processor,
            processors=os.cpu_count() or 1,
            memory_bytes=None if memory is None else int(memory.split()[0]) * 1024,
            kernel=f"{platform.release()} {platform.machine()}",
            system=None if system is None else system.strip('"'),
            governor=_text(self._cpufreq() / "scaling_governor"),
        )

    def heat(self) -> Heat:
        """Read how hot and how fast it is now."""
        zones = sorted((self.sys / "class" / "thermal").glob("thermal_zone*/temp"))
        temperatures = [float(text) for text in map(_text, zones) if text and _is_number(text)]
        frequency = _text(self._cpufreq() / "scaling_cur_freq")
        bits, alarm = self._throttled_bits(), self._voltage_alarm()
        words = None if bits is None else throttling(bits)
        if bits is None and alarm:
            words = (THROTTLED[_LOW_VOLTAGE],)
        return Heat(
            celsius=max(temperatures) / 1000 if temperatures else None,
            frequency_hz=int(frequency) * 1000 if frequency and _is_number(frequency) else None,
            throttling=words,
            throttled=_any_of(bits, _SLOWER),
            under_voltage=_any_of(bits, _UNDER_VOLTAGE) if alarm is None else alarm,
            throttled_before=_any_of(bits, _SLOWER | _SLOWER << SINCE_BOOT),
            under_voltage_before=_any_of(bits, _UNDER_VOLTAGE | _UNDER_VOLTAGE << SINCE_BOOT),
        )

    def _throttled_bits(self) -> int | None:
        text = _text(self.sys / "devices/platform/soc/soc:firmware/get_throttled")
        try:
            return None if text is None else int(text, 16)
        except ValueError:
            return None

    def _voltage_alarm(self) -> bool | None:
        """Return what the kernel's voltage sensor of a Raspberry Pi saw in the last two seconds."""
        for name in sorted((self.sys / "class" / "hwmon").glob("hwmon*/name")):
            if _text(name) == "rpi_volt" and (alarm := _text(name.with_name("in0_lcrit_alarm"))):
                return alarm != "0"
        return None

    def _cpufreq(self) -> Path:
        return self.sys / "devices" / "system" / "cpu" / "cpu0" / "cpufreq"

    def _dmi_name(self) -> str | None:
        folder = self.sys / "class" / "dmi" / "id"
        names = (_text(folder / name) for name in ("sys_vendor", "product_name"))
        return " ".join(name for name in names if name) or None


def throttling(bits: int) -> tuple[str, ...]:
    """Return what the firmware's bits mean."""
    now = [text for bit, text in THROTTLED.items() if bits >> bit & 1]
    before = [
        f"since boot: {text}" for bit, text in THROTTLED.items() if bits >> (bit + SINCE_BOOT) & 1
    ]
    return (*now, *before)


def _any_of(bits: int | None, mask: int) -> bool | None:
    return None if bits is None else bits & mask != 0


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None


def _value(path: Path, key: str, separator: str) -> str | None:
    """Return what stands behind the first line's key; None when there is none."""
    for line in (_text(path) or "").splitlines():
        name, found, value = line.partition(separator)
        if found and name.strip() == key:
            return value.strip()
    return None


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdigit()
