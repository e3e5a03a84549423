"""The command line as a user meets it: processes, their output and exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from dsg_ros import __version__, cli


def dsg_ros(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dsg_ros", *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = dsg_ros(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m dsg_ros {command}" in done.stdout
    assert len(done.stdout.splitlines()) > 3


def test_every_command_module_is_in_the_table(root: Path) -> None:
    modules = {path.stem for path in (root / "dsg_ros" / "commands").glob("[!_]*.py")}
    assert modules == set(cli.COMMANDS)


def test_help_lists_all_commands_and_imports_none() -> None:
    program = """
        import sys
        from dsg_ros import cli
        try:
            cli.main(["--help"])
        except SystemExit as stop:
            assert stop.code == 0
        heavy = {"jax", "rclpy", "numpy", "tyro", "matplotlib"} & set(sys.modules)
        assert not heavy, heavy
        """
    done = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command, text in cli.COMMANDS.items():
        assert f"  {command} " in done.stdout
        assert text in done.stdout


def test_version() -> None:
    done = dsg_ros("--version")
    assert (done.returncode, done.stdout) == (0, f"dsg_ros {__version__}\n")


@pytest.mark.parametrize("arguments", [("nonsense",), (), ("--nonsense",), ("hero", "--nonsense")])
def test_usage_errors_exit_with_2_and_say_why(arguments: tuple[str, ...]) -> None:
    done = dsg_ros(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert (arguments or ("which command?",))[-1] in done.stderr


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules are commands too, for this process only."""
    import dsg_ros.commands

    monkeypatch.setattr(dsg_ros.commands, "__path__", [*dsg_ros.commands.__path__, str(tmp_path)])
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("dsg_ros.commands.sample")]:
        del sys.modules[name]


def add(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(dedent(text))
    monkeypatch.setitem(cli.COMMANDS, name, "a sample")


def test_user_error_is_told_without_traceback(commands, monkeypatch, capsys) -> None:
    add(commands, monkeypatch, "sample_a", """
        from dsg_ros.errors import UserError
        def main(arguments):
            raise UserError("run.log, line 7: no number")
        """)  # fmt: skip
    assert cli.main(["sample_a"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "python -m dsg_ros sample_a: run.log, line 7: no number"


def test_a_missing_package_is_named(commands, monkeypatch, capsys) -> None:
    add(commands, monkeypatch, "sample_e", "import no_such_package.part\n")
    assert cli.main(["sample_e"]) == 2
    assert "has no package 'no_such_package'" in capsys.readouterr().err


def test_an_unforeseen_error_keeps_its_traceback(commands, monkeypatch) -> None:
    add(commands, monkeypatch, "sample_b", "def main(arguments):\n    return 1 // 0\n")
    with pytest.raises(ZeroDivisionError):
        cli.main(["sample_b"])


def test_options_are_parsed_and_the_exit_code_is_returned(commands, monkeypatch) -> None:
    add(commands, monkeypatch, "sample_c", """
        from dataclasses import dataclass
        @dataclass(frozen=True)
        class Options:
            "A sample."
            code: int = 0
        def main(options):
            return options.code
        """)  # fmt: skip
    assert cli.main(["--quiet", "sample_c", "--code", "7"]) == 7


def test_without_options_the_arguments_arrive_untouched(commands, monkeypatch, capsys) -> None:
    add(
        commands,
        monkeypatch,
        "sample_d",
        '"""Explains itself."""\ndef main(arguments):\n    print(arguments)\n    return 0\n',
    )
    words = ["--ros-args", "-p", "use_sim_time:=true", "--", "-v", "--help"]
    assert cli.main(["sample_d", *words]) == 0
    assert capsys.readouterr().out == f"{words}\n"
    assert cli.main(["sample_d", "--help"]) == 0
    assert "Explains itself." in capsys.readouterr().out


SAMPLE_PROCESS = """
    import sys
    import dsg_ros.commands
    from dsg_ros import cli
    dsg_ros.commands.__path__.append(sys.argv[1])
    cli.COMMANDS[sys.argv[2]] = "a sample"
    sys.exit(cli.main(sys.argv[2:]))
    """


def start(folder: Path, name: str, text: str) -> subprocess.Popen[str]:
    (folder / f"{name}.py").write_text(dedent(text))
    return subprocess.Popen(
        [sys.executable, "-c", dedent(SAMPLE_PROCESS), str(folder), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_interrupt_exits_with_130_and_no_traceback(tmp_path: Path) -> None:
    program = "import time\ndef main(arguments):\n    print('ready', flush=True)\n    time.sleep(60)\n    return 0\n"
    with start(tmp_path, "sleeper", program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines() == ["python -m dsg_ros sleeper: interrupted"]


BROKEN_OFF = """
    import time
    def main(arguments):
        import slow_to_import
        print("went on", flush=True)
        time.sleep(60)
    """

SLOW_TO_IMPORT = """
    import time
    print("ready", flush=True)
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        print("broken off", flush=True)
    """

COLLECTING = """
    import gc, time
    def slow(*_):
        print("ready", flush=True)
        gc.callbacks.remove(slow)
        time.sleep(1)
    def main(arguments):
        gc.callbacks.append(slow)
        gc.collect()
        time.sleep(60)
    """


@pytest.mark.parametrize("program", [BROKEN_OFF, COLLECTING], ids=["import", "garbage collection"])
def test_an_interrupt_waits_for_imports_and_is_not_lost_in_the_garbage_collector(tmp_path: Path, program: str) -> None:
    (tmp_path / "slow_to_import.py").write_text(dedent(SLOW_TO_IMPORT))
    program = f"import sys\nsys.path.append({str(tmp_path)!r})\n{dedent(program)}"
    with start(tmp_path, "starting", program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "broken off" not in output
    assert errors.splitlines() == ["python -m dsg_ros starting: interrupted"]


def test_an_ignored_interrupt_stays_ignored(tmp_path: Path) -> None:
    program = "import time\ndef main(arguments):\n    print('ready', flush=True)\n    time.sleep(1)\n    return 0\n"
    with start(
        tmp_path, "ignoring", f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{program}"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    program = "def main(arguments):\n    while True:\n        print('line')\n"
    with start(tmp_path, "talker", program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
        process.wait(timeout=30)
    assert process.returncode == 128 + signal.SIGPIPE
    assert errors == ""


def test_logs_go_to_stderr(tmp_path: Path) -> None:
    program = """
        import logging
        def main(arguments):
            logging.getLogger("dsg_ros.sample").info("42 scans")
            print("{}")
            return 0
        """
    with start(tmp_path, "logger", program) as process:
        output, errors = process.communicate(timeout=30)
    assert (output, errors) == ("{}\n", "INFO dsg_ros.sample: 42 scans\n")
