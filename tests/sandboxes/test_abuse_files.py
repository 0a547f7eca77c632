"""Files and source texts that are not what they seem (A21, A22, A31)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envgym.sandbox.interface import Sandbox, Status
from envgym_sandboxes.request_codec import check_name, pack_argv, pack_files

TRAPS = {
    "symlink": "os.symlink('/etc/passwd', 'out')",
    "symlink to nothing": "os.symlink('/nowhere', 'out')",
    "hard link": "open('other', 'w').write('x'); os.link('other', 'out')",
    "fifo": "os.mkfifo('out')",
    "socket": "import socket; socket.socket(socket.AF_UNIX).bind('out')",
    "folder": "os.mkdir('out')",
    "device by link": "os.symlink('/dev/zero', 'out')",
}


@pytest.mark.parametrize("name", sorted(TRAPS))
async def test_a21_only_plain_files_come_out(name: str, sandbox: Sandbox) -> None:
    assert (await sandbox.run_python("import os\n" + TRAPS[name])).status is Status.OK
    with pytest.raises(FileNotFoundError):
        await sandbox.read("out")


async def test_a21_linked_folder_is_not_followed(sandbox: Sandbox) -> None:
    await sandbox.run_python("import os; os.symlink('/etc', 'folder')")
    with pytest.raises(FileNotFoundError):
        await sandbox.read("folder/passwd")
    with pytest.raises(OSError, match="cannot write"):
        await sandbox.write({"folder/x": b"x"})


async def test_a21_written_file_replaces_a_planted_link(sandbox: Sandbox) -> None:
    await sandbox.run_python("import os; os.symlink('/tmp/target', 'file')")
    await sandbox.write({"file": b"mine"})
    assert await sandbox.read("file") == b"mine"
    assert (await sandbox.run_python("import os; print(os.path.exists('/tmp/target'))")).text == "False\n"


async def test_a21_file_larger_than_asked_for_is_refused(sandbox: Sandbox) -> None:
    await sandbox.write({"file": b"x" * 101})
    with pytest.raises(ValueError, match="larger than 100"):
        await sandbox.read("file", limit=100)
    assert len(await sandbox.read("file", limit=101)) == 101


async def test_a21_unreadable_file_is_the_programs_doing(sandbox: Sandbox) -> None:
    await sandbox.run_python("import os; open('file', 'w').close(); os.chmod('file', 0)")
    with pytest.raises(OSError, match="cannot read"):
        await sandbox.read("file")


async def test_no_room_for_files_is_the_programs_doing(sandbox: Sandbox) -> None:
    fill = "import os\nwhile True:\n    open(os.urandom(8).hex(), 'wb').write(b'x' * 2**18)"
    await sandbox.run_python(fill)
    with pytest.raises(OSError, match="No space left"):
        await sandbox.write({"file": b"x" * 2**20})


NAMES = ["", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "./a", "new\nline", "nul\0", "-rf", "a/-rf"]
NAMES += ["\udcff", "x" * 4096, "x" * 256, "/".join("x" * 40), "a/", "tab\t", "\u202ename", "\x7f"]


@pytest.mark.parametrize("name", NAMES)
async def test_a22_odd_names_are_refused_both_ways(name: str, sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="file name"):
        await sandbox.write({name: b""})
    with pytest.raises(ValueError, match="file name"):
        await sandbox.read(name)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=20))
def test_a22_accepted_names_stay_below_the_folder(name: str) -> None:
    try:
        encoded = check_name(name)
    except ValueError:
        return
    assert encoded.decode() == name
    assert Path("/work", name).resolve().is_relative_to("/work")
    assert not any(part.startswith("-") for part in name.split("/"))


def test_a22_too_many_files_are_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        pack_files({str(number): b"" for number in range(100_000)})


@pytest.mark.parametrize("argv", [[], [""], ["a\0b"]])
def test_commands_that_cannot_be_passed_on_are_refused(argv: list[str]) -> None:
    with pytest.raises(ValueError, match="argv"):
        pack_argv(argv)


async def test_files_in_folders_arrive_whole_and_can_be_overwritten(sandbox: Sandbox) -> None:
    content = bytes(range(256)) * 4096
    await sandbox.write({"a/b/c.bin": content, "ünïcode name": b"1", "empty": b""})
    assert await sandbox.read("a/b/c.bin") == content
    assert await sandbox.read("ünïcode name") == b"1"
    await sandbox.write({"a/b/c.bin": b"short"})
    assert await sandbox.read("a/b/c.bin") == b"short"
    assert await sandbox.read("empty") == b""
    with pytest.raises(FileNotFoundError):
        await sandbox.read("a/b/none")


SOURCES = {
    "longer than a command line": ("#" + "x" * 3_000_000 + "\nprint('end')", "end\n"),
    "CRLF": ("a = 1\r\nif a:\r\n    print('end')\r\n", "end\n"),
    "BOM": ("\ufeffprint('end')", "end\n"),
    "unicode": ("print('\u00e9\U0001f600')", "\u00e9\U0001f600\n"),
}


@pytest.mark.parametrize("name", sorted(SOURCES))
async def test_a31_unusual_sources_run(name: str, sandbox: Sandbox) -> None:
    source, output = SOURCES[name]
    result = await sandbox.run_python(source)
    assert (result.status, result.text) == (Status.OK, output)


@pytest.mark.parametrize("source", ["print(1)\0", "print('\udcff')", "x = (", "# coding: latin-9000\nprint(1)"])
async def test_a31_impossible_sources_are_the_programs_error(source: str, sandbox: Sandbox) -> None:
    result = await sandbox.run_python(source)
    assert result.status is Status.NONZERO
    assert "Error" in result.error_text


async def test_too_large_a_request_is_the_callers_error(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="exceed"):
        await sandbox.run_python("", stdin=b"x" * (33 * 2**20))
    assert (await sandbox.run_python("print(1)")).text == "1\n"
