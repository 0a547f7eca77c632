"""A filter of system calls, on top of which Docker keeps its own: it denies rights, and what outlives a process.

Denied calls fail with EPERM. ``clone3`` fails with ENOSYS, so that the C library falls back to ``clone``: a filter
sees the flags in clone's registers, but not those in the memory to which the argument of ``clone3`` points.
Numbers: the kernel's ``syscall_64.tbl`` and ``asm-generic/unistd.h``.
"""

from __future__ import annotations

import errno
import os
import struct

__all__ = ["enter", "filter_program"]

_INSTRUCTION = struct.Struct("<HBBI")
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_X32 = 0x40000000
"""First number of the x32 calls of x86-64, a second table that would evade the filter."""
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""

_SHARED = {  # the same number on every architecture, from 424 on
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "memfd_secret": 447,
}  # fmt: skip
_X86_64 = {
    "ptrace": 101, "syslog": 103, "_sysctl": 156, "pivot_root": 155, "chroot": 161, "acct": 163,
    "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169,
    "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175,
    "delete_module": 176, "quotactl": 179, "lookup_dcookie": 212, "clock_settime": 227, "mbind": 237,
    "set_mempolicy": 238, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250,
    "migrate_pages": 256, "unshare": 272, "move_pages": 279, "perf_event_open": 298,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310,
    "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "kexec_file_load": 320, "bpf": 321,
    "userfaultfd": 323,
    "mq_open": 240, "mq_unlink": 241, "mq_timedsend": 242, "mq_timedreceive": 243, "mq_notify": 244,
    "mq_getsetattr": 245,
}  # fmt: skip
_AARCH64 = {
    "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51,
    "quotactl": 60, "acct": 89, "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106,
    "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142, "sethostname": 161,
    "setdomainname": 162, "settimeofday": 170, "add_key": 217, "request_key": 218, "keyctl": 219,
    "swapon": 224, "swapoff": 225, "mbind": 235, "set_mempolicy": 237, "migrate_pages": 238,
    "move_pages": 239, "perf_event_open": 241, "name_to_handle_at": 264, "open_by_handle_at": 265,
    "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273,
    "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
    "mq_open": 180, "mq_unlink": 181, "mq_timedsend": 182, "mq_timedreceive": 183, "mq_notify": 184,
    "mq_getsetattr": 185,
}  # fmt: skip
_MACHINES = {
    "x86_64": (0xC000003E, _X86_64, {"clone": 56, "prlimit64": 302, "socket": 41}),
    "aarch64": (0xC00000B7, _AARCH64, {"clone": 220, "prlimit64": 261, "socket": 198}),
}
"""By machine: AUDIT_ARCH constant, denied calls, calls that are denied by their first argument."""
_CLONE3 = 435
_DENIED_ARGUMENTS = {
    "clone": (_JUMP_ANY, _NEW_NAMESPACES),
    # A program may share its user with the runner, whose limits it must not change: only 0, itself.
    "prlimit64": (_JUMP_ANY, 0xFFFFFFFF),
    # AF_VSOCK, which reaches past network namespaces to the host of a virtual machine.
    "socket": (_JUMP_EQUAL, 40),
}
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


def filter_program(machine: str) -> bytes:
    """Return the filter as the kernel's ``struct sock_filter`` array.

    An instruction is (operation, instructions to skip if true, to skip if false, operand).

    Args:
        machine: the processor, as ``uname`` names it.

    Raises:
        OSError: no filter is known for this processor.
    """
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no system-call filter for {machine}; there is one for {sorted(_MACHINES)}")
    architecture, denied, by_argument = _MACHINES[machine]
    program = [
        # Numbers mean other calls in another architecture's table, as in 32-bit calls on a 64-bit kernel.
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
        (_JUMP_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
    ]
    for number in sorted({*denied.values(), *_SHARED.values()}):
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | errno.EPERM)]
    for name, (comparison, operand) in _DENIED_ARGUMENTS.items():
        program += [
            (_JUMP_EQUAL, 0, 4, by_argument[name]),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (comparison, 0, 1, operand),
            (_RETURN, 0, 0, _ERROR | errno.EPERM),
            (_RETURN, 0, 0, _ALLOW),
        ]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def enter(command: list[str]) -> None:
    """Put the filter in effect for good and become ``command``, so that no program finds ``ctypes`` loaded.

    Raises:
        OSError: the kernel refuses the filter, as it does if new privileges are allowed.
    """
    import ctypes

    program = filter_program(os.uname().machine)
    memory = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("HP", len(program) // _INSTRUCTION.size, ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(pointer), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel refuses the filter of system calls")
    os.execv(command[0], command)
