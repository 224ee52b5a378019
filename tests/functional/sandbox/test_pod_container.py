"""What a kubelet starts for a sandbox that is a pod, started by Docker: the job in a file, the result in the log."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from fairlead.sandbox.base import Ended, Job, Limits, Result
from fairlead.sandbox.choosing import IMAGE
from fairlead.sandbox.jobs import Inside, to_frame
from fairlead.sandbox.pod import PodShape, build_pod, parse_log

pytestmark = [pytest.mark.sandbox_image, pytest.mark.process_runtime]

LIMITS = Limits(wall_seconds=20, disk_bytes=8 << 20, processes=8)


def run(job: Job, folder: Path, *, user: str = "") -> Result:
    """Run a job as a kubelet would; *user*: the one that the cluster says, where the pod names none."""
    folder.chmod(0o755)
    (folder / "job").write_bytes(to_frame(job, Inside()))
    shape = PodShape(IMAGE, "sandboxes", fixed_user=not user)
    spec: dict[str, Any] = build_pod(shape, "sandbox-1", job.limits, 0)["spec"]
    (container,) = spec["containers"]
    who = user or str(spec["securityContext"]["runAsUser"])
    command = [
        *("docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--memory", container["resources"]["limits"]["memory"]),
        *("--user", who),
        *("--tmpfs", f"/work:rw,exec,uid={who.split(':')[0]},size={spec['volumes'][1]['emptyDir']['sizeLimit']}"),
        *(
            "--volume",
            f"{folder}:{container['volumeMounts'][0]['mountPath']}:ro",
            container["image"],
            *container["args"],
        ),
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return parse_log(done.stdout + done.stderr, {}, job.limits)


def test_pod_runs_the_job_that_its_secret_holds(tmp_path: Path) -> None:
    source = "import os\nopen('out/x', 'w').write(inputs['a'])\noutput = sorted(os.environ)\nprint('said')"

    result = run(Job("python", source, inputs={"a": "b"}, limits=LIMITS), tmp_path)

    assert (result.ended, result.exit_code, result.stdout, result.files) == (Ended.EXITED, 0, "said\n", {"x": b"b"})
    assert result.output == ["HOME", "LANG", "MALLOC_ARENA_MAX", "PATH", "TMPDIR"]


def test_pod_runs_as_a_user_that_only_the_cluster_knows(tmp_path: Path) -> None:
    source = "import os, subprocess\nopen('out/x', 'w').write('y')\noutput = [os.getuid(), os.getgid()]"

    result = run(Job("python", source, limits=LIMITS), tmp_path, user="1000680000:0")

    assert (result.ended, result.exit_code, result.files) == (Ended.EXITED, 0, {"x": b"y"})
    assert result.output == [1000680000, 0]


def test_pod_ends_a_fork_bomb_by_itself(tmp_path: Path) -> None:
    source = "import os, time\nfor _ in range(100):\n    if os.fork() == 0:\n        time.sleep(30)\ntime.sleep(30)"

    result = run(Job("python", source, limits=LIMITS), tmp_path)

    assert (result.ended, result.message) == (Ended.KILLED, "it had more than 8 processes and threads at once")
