from __future__ import annotations

import json
from pathlib import Path

from fairlead.localcluster.apiserver.audit import AuditLog


def test_write_appends_and_starts_a_new_file_when_full(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path, max_bytes=100)
    for number in range(20):
        log.write({"number": number, "pad": "x" * 20})
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.log", "audit.log.1"]
    assert all(file.stat().st_size <= 100 for file in files)
    assert json.loads(path.read_bytes().splitlines()[-1])["number"] == 19
    again = AuditLog(path)
    again.write({"number": 20})
    again.close()
    assert json.loads(path.read_bytes().splitlines()[-1])["number"] == 20
