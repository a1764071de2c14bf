import subprocess
from contextlib import ExitStack
from pathlib import Path

from asyncproc.local.haproxy import haproxy_environment

LONGEST_SOCKET_PATH = 107


def test_two_systems_on_one_machine_share_neither_ports_nor_files() -> None:
    with ExitStack() as stack:
        one, other = haproxy_environment(stack), haproxy_environment(stack)

    own = {name for name in one if name.endswith(("_PORT", "_LOC", "_PATH", "_BASE", "_FILE"))}
    assert len(own) == 8
    assert not {one[name] for name in own} & {other[name] for name in own}
    assert len({value for name, value in one.items() if name.endswith("_PORT")}) == 3


def test_its_files_are_there_as_long_as_the_system_and_have_short_names() -> None:
    with ExitStack() as stack:
        environment = haproxy_environment(stack)
        launcher = Path(environment["RAY_SERVE_HAPROXY_BINARY_PATH"])
        assert launcher.exists()
        # Serve puts a directory of its own, whose name is a hash, between the two.
        socket = Path(environment["RAY_SERVE_HAPROXY_SOCKET_PATH"])
        assert len(str(socket.parent / ("h" * 56) / socket.name)) <= LONGEST_SOCKET_PATH

    assert not launcher.parent.exists()


def test_the_launcher_starts_the_haproxy_of_the_wheel_and_keeps_its_statistics_to_the_machine(tmp_path: Path) -> None:
    with ExitStack() as stack:
        environment = haproxy_environment(stack)
        stats, metrics = (environment[f"RAY_SERVE_HAPROXY_{name}_PORT"] for name in ("STATS", "METRICS"))
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            "defaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n"
            f"frontend stats\n    bind *:{stats}\n    stats enable\n"
            f"frontend metrics\n    bind :{metrics}\n    stats enable\n"
            f"frontend api\n    bind *:1{stats[-3:]}\n    stats enable\n"
        )

        done = subprocess.run(
            [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-c", "-f", str(config)],
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 0, done.stdout + done.stderr
    binds = [line.strip() for line in config.read_text().splitlines() if "bind" in line]
    assert binds == [f"bind 127.0.0.1:{stats}", f"bind 127.0.0.1:{metrics}", f"bind *:1{stats[-3:]}"]
