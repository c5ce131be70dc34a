"""What is read of a board, of a Raspberry Pi and of one that tells nothing; and of its disk."""

from pathlib import Path

from llamad.board import Files, Heat, throttling
from llamad_tools.disk_speed import LEAST_PIECES, PIECE_BYTES, disk_speed


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _pi(folder: Path) -> Files:
    files = Files(folder / "proc", folder / "sys", folder / "etc")
    _write(files.proc / "device-tree" / "model", "Raspberry Pi 4 Model B Rev 1.4\0")
    _write(files.proc / "meminfo", "MemTotal:        3884000 kB\nMemFree: 1 kB\n")
    _write(files.etc / "os-release", 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n')
    cpufreq = files.sys / "devices/system/cpu/cpu0/cpufreq"
    _write(cpufreq / "scaling_governor", "ondemand\n")
    _write(cpufreq / "scaling_cur_freq", "1500000\n")
    _write(files.sys / "class/thermal/thermal_zone0/temp", "61835\n")
    _write(files.sys / "devices/platform/soc/soc:firmware/get_throttled", "50004\n")
    return files


def test_a_pi_tells_its_name_its_heat_and_whether_it_throttles(tmp_path: Path) -> None:
    files = _pi(tmp_path)
    board = files.board()
    assert board.name == "Raspberry Pi 4 Model B Rev 1.4"
    assert board.memory_bytes == 3884000 * 1024
    assert (board.system, board.governor) == ("Ubuntu 24.04.1 LTS", "ondemand")
    assert files.heat() == Heat(
        61.835,
        1_500_000_000,
        ("throttled", "since boot: voltage too low", "since boot: throttled"),
        throttled=True,
        under_voltage=False,
        throttled_before=True,
        under_voltage_before=True,
    )


def test_the_kernels_voltage_sensor_is_asked_where_there_is_one(tmp_path: Path) -> None:
    files = _pi(tmp_path)
    _write(files.sys / "class/hwmon/hwmon0/name", "cpu_thermal\n")
    _write(files.sys / "class/hwmon/hwmon1/name", "rpi_volt\n")
    alarm = files.sys / "class/hwmon/hwmon1/in0_lcrit_alarm"
    _write(alarm, "1\n")
    assert files.heat().under_voltage is True
    _write(files.sys / "devices/platform/soc/soc:firmware/get_throttled", "no number\n")
    heat = files.heat()
    assert (heat.throttling, heat.throttled) == (("voltage too low",), None)
    _write(alarm, "0\n")
    heat = files.heat()
    assert (heat.under_voltage, heat.throttling, heat.under_voltage_before) == (False, None, None)


def test_what_a_machine_does_not_tell_is_not_made_up(tmp_path: Path) -> None:
    files = Files(tmp_path, tmp_path, tmp_path)
    board = files.board()
    assert board.name
    assert (board.processor, board.memory_bytes, board.system) == (None, None, None)
    assert files.heat() == Heat(None, None, None)


def test_a_cool_board_with_a_good_power_supply_has_nothing_to_say() -> None:
    assert throttling(0) == ()


def test_the_disks_speed_is_measured_on_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with path.open("wb") as file:
        file.truncate(LEAST_PIECES * PIECE_BYTES)
    speed = disk_speed(path, seconds=0.0)
    assert speed is not None
    assert speed > 0


def test_a_file_of_a_few_megabytes_does_not_tell_the_disks_speed(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(PIECE_BYTES))
    assert disk_speed(path) is None
