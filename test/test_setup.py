"""`make` on machines that lack something: a clear message, an exit code, and nothing installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = ["sh", "bash", "make", "cat", "cut", "sha256sum", "sort", "uname", "dirname", "touch", "rm"]
REAL = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"


class Machine:
    """A copy of the project's set-up files, and a PATH that holds only what a test puts there."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.programs = folder / "bin"
        self.project = folder / "project"
        self.programs.mkdir()
        self.project.mkdir()
        for name in ("Makefile", "requirements.lock", "requirements-dev.lock", "requirements-oldest.lock"):
            shutil.copy(root / name, self.project)
        shutil.copytree(root / "tools", self.project / "tools")
        for name in ("setup.py", "setup.cfg", "pyproject.toml"):
            shutil.copy(root / name, self.project)
        for name in TOOLS:
            self.link(name, shutil.which(name))

    def link(self, name: str, target: str | Path | None) -> None:
        assert target is not None, f"this machine has no {name}"
        (self.programs / name).symlink_to(target)

    def fake(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(f"#!{shutil.which('sh')}\n{text}\n")
        path.chmod(0o755)

    def python(self, name: str = "python3") -> None:
        """A good interpreter, to which a fake cannot be told apart by its place."""
        self.fake(name, f'exec {REAL} "$@"')

    def make(self, target: str = "venv", **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.programs), "HOME": str(self.project.parent), **variables}
        command = [shutil.which("make") or "make", target]
        return subprocess.run(command, cwd=self.project, env=environment, capture_output=True, text=True, timeout=120)

    def check(self, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.programs), **variables}
        command = [shutil.which("sh") or "sh", "tools/check_machine.sh"]
        return subprocess.run(command, cwd=self.project, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def machine(tmp_path: Path, root: Path) -> Machine:
    return Machine(tmp_path, root)


def compilers(machine: Machine) -> None:
    """The real compilers, with the assembler and linker that they look for on the PATH."""
    for name in ("cc", "c++", "as", "ld"):
        machine.link(name, shutil.which(name))


OLD_PYTHON = "echo 3 8"  # what a Python 3.8 answers to the question for its version


@pytest.mark.parametrize("target", ["venv", "demo", "test", "lint"])
def test_old_python_stops_make_before_anything_is_installed(machine: Machine, target: str) -> None:
    machine.fake("python3", OLD_PYTHON)
    compilers(machine)
    done = machine.make(target)
    assert done.returncode != 0
    assert "it needs Python 3.11 to 3.13; found: python3=3.8." in done.stderr
    assert not (machine.project / ".venv").exists()


def test_no_python_at_all(machine: Machine) -> None:
    done = machine.check()
    assert done.returncode == 1
    assert "found: none" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("missing", "language"), [("cc", "C"), ("c++", "C++")])
def test_missing_compiler_stops_make_before_anything_is_installed(
    machine: Machine, missing: str, language: str
) -> None:
    machine.python()
    compilers(machine)
    (machine.programs / missing).unlink()
    done = machine.make()
    assert done.returncode != 0
    assert f"no working {language} compiler ({missing})" in done.stderr
    assert "build-essential" in done.stderr
    assert not (machine.project / ".venv").exists()


def test_compiler_that_fails_is_no_compiler(machine: Machine) -> None:
    machine.python()
    compilers(machine)
    machine.fake("broken", "exit 1")
    done = machine.check(CC="broken")
    assert done.returncode == 1
    assert "no working C compiler (broken)" in done.stderr


def test_python_without_venv(machine: Machine) -> None:
    machine.fake("python3", f'case "$*" in *ensurepip*) exit 1;; esac; exec {REAL} "$@"')
    compilers(machine)
    done = machine.check()
    assert done.returncode == 1
    assert f"install python3.{sys.version_info.minor}-venv" in done.stderr


def test_python_without_headers(machine: Machine) -> None:
    machine.fake("python3", f'case "$*" in *Python.h*) exit 1;; esac; exec {REAL} "$@"')
    compilers(machine)
    done = machine.check()
    assert done.returncode == 1
    assert f"install python3.{sys.version_info.minor}-dev" in done.stderr


def test_unfit_interpreters_are_passed_over(machine: Machine) -> None:
    """A version manager's shim that refuses to run, and one that is too old, stand before a good one."""
    machine.fake("python3.13", "echo 'no such version' >&2; exit 127")
    machine.fake("python3.12", OLD_PYTHON)
    machine.python("python3")
    compilers(machine)
    done = machine.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).resolve() == REAL.resolve()


def test_named_interpreter_is_the_only_candidate(machine: Machine) -> None:
    machine.python("python3")
    machine.fake("mine", OLD_PYTHON)
    compilers(machine)
    done = machine.check(PYTHON="mine")
    assert done.returncode == 1
    assert "mine=3.8" in done.stderr


def test_other_machines_are_told_why(machine: Machine) -> None:
    (machine.programs / "uname").unlink()
    machine.fake("uname", "case $1 in -s) echo Linux;; *) echo riscv64;; esac")
    done = machine.check()
    assert done.returncode == 1
    assert "this is Linux riscv64" in done.stderr


def test_a_finished_environment_is_left_alone(machine: Machine) -> None:
    """The second `make venv` finds the stamp of the first and runs nothing."""
    database = machine.make("-pn").stdout
    name = next(line.split()[-1] for line in database.splitlines() if line.startswith("RUNTIME := "))
    (machine.project / ".venv").mkdir()
    (machine.project / name).touch()
    done = machine.make()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout
    # Another lock is another environment: make starts over, and here has no Python to do it with.
    with (machine.project / "requirements.lock").open("a") as lock:
        lock.write("other==1.0\n")
    assert machine.make().returncode != 0
