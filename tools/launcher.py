"""Starts one command under limits, and never lets it outlive whoever asked for it. Standard library alone.

This file is run as a script, in an interpreter of its own (``-I -S``), as ``launcher.py LIFELINE LIMITS
COMMAND…``. The launcher puts the command into a session of its own and waits for it. When the command has
ended, or when the other end of the pipe ``LIFELINE`` was closed (on purpose, or because that process is
gone, however it went), everything in the session is killed, before the command's process id is given free.

What is enforced, and by what; :func:`enforceable` tells what this system offers:

=============  ====================================================================================
memory, CPU,   ``setrlimit``, per process, on every POSIX system (macOS ignores the memory limit)
file size
files          Landlock (Linux 5.13 and later): only the paths that are named can be opened; root loses
               what makes it more than other users
network        seccomp (Linux on x86-64 and ARM64): no socket can be made, of any kind
processes      seccomp: no further process, no session or group of its own, no signals, no tracing
=============  ====================================================================================

A filter of seccomp and a domain of Landlock can be entered by any user and left by nobody, and children
inherit them. Unlike namespaces, both are allowed in ordinary containers.
"""

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import select
import signal
import struct
import sys
import threading
from typing import Any

# <linux/prctl.h>, <linux/seccomp.h>, <linux/audit.h>, <linux/filter.h>
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_PR_CAPBSET_DROP, _CAPABILITIES = 24, 64
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_CLONE_THREAD = 0x10000
_X32 = 0x40000000  # a second numbering of the calls on x86-64, which would lead around the list

# Call numbers, by machine: the ones that the two architectures share first.
_SHARED = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438,
}  # fmt: skip
_CALLS = {
    "x86_64": {
        **_SHARED, "socket": 41, "clone": 56, "fork": 57, "vfork": 58, "kill": 62, "ptrace": 101,
        "setpgid": 109, "setsid": 112, "mount": 165, "tkill": 200, "tgkill": 234, "add_key": 248,
        "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298, "setns": 308,
        "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "userfaultfd": 323,
    },
    "aarch64": {
        **_SHARED, "mount": 40, "unshare": 97, "ptrace": 117, "kill": 129, "tkill": 130, "tgkill": 131,
        "setpgid": 154, "setsid": 157, "socket": 198, "add_key": 217, "request_key": 218, "keyctl": 219,
        "clone": 220, "perf_event_open": 241, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "bpf": 280, "userfaultfd": 282,
    },
}  # fmt: skip
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NEVER = (
    "add_key", "bpf", "io_uring_setup", "keyctl", "mount", "perf_event_open", "pidfd_getfd", "ptrace",
    "process_vm_readv", "process_vm_writev", "request_key", "setns", "setpgid", "setsid", "unshare",
    "userfaultfd",
)  # fmt: skip
_SIGNALS = ("kill", "tkill", "tgkill", "pidfd_open", "pidfd_send_signal")

# <linux/landlock.h>; the numbers of the calls are the same on all architectures
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15  # the rights that a file can have
_SPECIAL = 1 << 6 | 1 << 9 | 1 << 11  # making device files and sockets: a device could be the whole disk


def enforceable() -> frozenset[str]:
    """Which of ``files``, ``network`` and ``processes`` this system lets us limit."""
    found = set()
    if sys.platform == "linux":
        if _landlock_version() >= 1:
            found.add("files")
        if platform.machine() in _CALLS and _has_seccomp():
            found |= {"network", "processes"}
    return frozenset(found)


def main() -> None:
    """Run the command; the exit status is its own, or 128 and the signal that ended it."""
    lifeline, limits, command = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    child = os.fork()
    if not child:
        try:
            os.close(lifeline)
            os.setsid()
            _confine(limits)
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python; other programs rely on them
                signal.signal(ignored, signal.SIG_DFL)
            os.execvpe(command[0], command, os.environ)  # noqa: S606  (no shell is the point)
        except BaseException as error:
            os.write(2, f"{command[0]} cannot be started: {error}\n".encode())
        os._exit(127)
    ending = threading.Lock()
    threading.Thread(target=_watch, args=(lifeline, child, ending), daemon=True).start()
    for descriptor in (0, 1, 2):  # whoever reads must see the end when the command has ended
        os.close(descriptor)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # still a zombie: its id cannot belong to another
    ending.acquire()  # for good: from here on the watching thread must not kill
    _kill(child)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


def _watch(lifeline: int, child: int, ending: threading.Lock) -> None:
    select.select([lifeline], [], [])
    with ending:
        _kill(child)


def _kill(session: int) -> None:
    try:
        os.killpg(session, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        os.kill(session, signal.SIGKILL)  # it had not made its session yet


def _confine(limits: dict[str, Any]) -> None:
    for name, kind in (
        ("memory", resource.RLIMIT_AS),
        ("cpu", resource.RLIMIT_CPU),
        ("file_size", resource.RLIMIT_FSIZE),
        ("open_files", resource.RLIMIT_NOFILE),
    ):
        if limits.get(name) is not None:
            hard = resource.getrlimit(kind)[1]
            value = limits[name] if hard == resource.RLIM_INFINITY else min(limits[name], hard)
            resource.setrlimit(kind, (value, value))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    able = enforceable()
    limited = not (limits["network"] and limits["children"])
    if limited or limits.get("readable") is not None or limits.get("writable") is not None:
        _drop_capabilities()
    if "files" in able and (limits.get("readable") is not None or limits.get("writable") is not None):
        _restrict_files(limits.get("readable"), limits.get("writable"), limits["network"])
    if "processes" in able and limited:
        _filter_calls(network=limits["network"], children=limits["children"])


def _drop_capabilities() -> None:
    """What makes root more than other users; others have none of it."""
    if sys.platform != "linux" or os.geteuid():
        return
    for capability in range(_CAPABILITIES):
        with contextlib.suppress(OSError):  # this kernel has no such capability, or this root cannot drop it
            _prctl(_PR_CAPBSET_DROP, capability)


def _restrict_files(readable: list[str] | None, writable: list[str] | None, network: bool) -> None:
    """``None`` for ``readable`` leaves all files readable; what may be written may be read."""
    version = _landlock_version()
    handled = (1 << 13) - 1
    handled |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    handled |= 1 << 15 if version >= 5 else 0
    # TCP ports (version 4), and signals and abstract sockets to whoever is outside (version 6)
    ruleset = struct.pack("QQQ", handled, 0 if network or version < 4 else 3, 3)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    domain = _syscall(_CREATE_RULESET, ctypes.c_char_p(ruleset), ctypes.c_size_t(size), 0)
    look = _EXECUTE | _READ_FILE | _READ_DIR
    for paths, access in (
        (["/"] if readable is None else readable, look),
        (writable or [], handled & ~_SPECIAL),
    ):
        for path in paths:
            _allow(domain, path, access & handled)
    _allow(domain, "/dev/null", (_READ_FILE | _WRITE_FILE | 1 << 14) & handled)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _syscall(_RESTRICT_SELF, domain, 0)
    os.close(domain)


def _allow(domain: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            access &= _OF_FILES
        rule = struct.pack("=Qi", access, descriptor)
        _syscall(_ADD_RULE, domain, 1, ctypes.c_char_p(rule), 0)
    finally:
        os.close(descriptor)


def _filter_calls(*, network: bool, children: bool) -> None:
    calls = _CALLS[platform.machine()]
    denied = list(_NEVER)
    if not children:
        denied += ["fork", "vfork", *_SIGNALS]
    program = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 1, 0, _ARCHITECTURES[platform.machine()]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for name in denied:
        if name in calls:
            program += [(_EQUAL, 0, 1, calls[name]), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    if not network:
        # Sockets of every family: those in the file system lead to servers on this machine.
        program += [(_EQUAL, 0, 1, calls["socket"]), (_RETURN, 0, 0, _ERRNO | errno.EACCES)]
    if not children:
        # Threads are allowed. clone3 has its flags in memory, where no filter can look: libraries that are
        # told that there is no such call use clone.
        program += [
            (_EQUAL, 0, 1, calls["clone3"]),
            (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
            (_EQUAL, 0, 4, calls["clone"]),
            (_LOAD, 0, 0, 16),  # the first argument
            (_AND, 0, 0, _CLONE_THREAD),
            (_EQUAL, 0, 1, 0),
            (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        ]
    program.append((_RETURN, 0, 0, _ALLOW))
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the compiler leaves a gap before the pointer
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer)))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))


def _landlock_version() -> int:
    try:
        return _syscall(_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def _has_seccomp() -> bool:
    try:  # a null pointer: EFAULT where filters are known, EINVAL where they are not
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, 0)
    except OSError as error:
        return error.errno in (errno.EFAULT, errno.EACCES)
    return False


def _syscall(number: int, *arguments: Any) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _prctl(option: int, value: int, argument: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(
        option, ctypes.c_ulong(value), ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0)
    ):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


if __name__ == "__main__":
    main()
