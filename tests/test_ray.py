"""--on ray: what is said without it, and a local cluster of two nodes of which one is killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from killing import command, contents, recorded, small_pictures


def test_another_engine_and_a_missing_package_are_named(cli, using, photo, tmp_path):
    photo(tmp_path / "in/a.png")
    arguments = ("restore", tmp_path / "in", "-o", tmp_path / "out")
    done = cli(*arguments, "--on", "spark", env=using("rain"))
    assert done.returncode == 2 and "--on spark" in done.stderr and "ray:ADDRESS" in done.stderr
    assert cli(*arguments, "--on", "ray", "--jobs", "2", env=using("rain")).returncode == 2
    try:
        import ray  # noqa: F401
    except ImportError:
        done = cli(*arguments, "--on", "ray", env=using("rain"))
        assert done.returncode == 3 and "irtool[ray]" in done.stderr


@pytest.mark.slow
def test_a_node_killed_in_the_middle_costs_nothing(environment, using, tmp_path):
    pytest.importorskip("ray", reason="the extra irtool[ray] is not installed")
    from ray.cluster_utils import Cluster

    count = 200
    source, one, many = tmp_path / "in", tmp_path / "one", tmp_path / "many"
    small_pictures(source, count)
    variables = environment | using("rain") | {"PYTHONPATH": ":".join([str(Path(__file__).parent.parent), *sys.path])}
    subprocess.run(command(source, one), env=variables, check=True)
    for attempt in range(5):  # Ray gives a node 30 s to start, which a busy machine may not have
        try:
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            second = cluster.add_node(num_cpus=1)
            break
        except Exception:
            if attempt == 4:
                raise
    killed = threading.Event()

    def kill() -> None:
        while not many.exists() or len(contents(many)) < count // 5:
            time.sleep(0.2)
        cluster.remove_node(second, allow_graceful=False)
        killed.set()

    threading.Thread(target=kill, daemon=True).start()
    try:
        done = subprocess.run(
            command(source, many, "--on", f"ray:{cluster.address}"), env=variables, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stderr
    assert killed.is_set()
    assert contents(one) == contents(many) and max(recorded(many).values()) == 1
