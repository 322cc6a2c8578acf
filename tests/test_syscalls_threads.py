"""System calls of threads, interrupted and restarted ones, and those that never return."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ctools import compile_for_guest
from guest import boot, built, in_guest, run_case

#: What it prints says what happened.
PROGRAM = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int pipes[2], never[2];
static volatile int alarms;

static void on_alarm(int number)
{
    alarms++;
}

static void set_alarm(int flags, long us, long again)
{
    struct sigaction action = { .sa_handler = on_alarm, .sa_flags = flags };
    struct itimerval timer = { { 0, again }, { 0, us } };

    sigaction(SIGALRM, &action, 0);
    setitimer(ITIMER_REAL, &timer, 0);
}

static void *caller(void *unused)
{
    for (int i = 0; i < 200; i++) {
        syscall(SYS_getppid);
    }
    return 0;
}

static void *writer(void *unused)
{
    struct timespec time = { 0, 300000000 };

    nanosleep(&time, 0);
    write(pipes[1], "x", 1);
    return 0;
}

static void *reader(void *unused)
{
    char c;

    read(never[0], &c, 1);
    return 0;
}

int main(int argc, char **argv)
{
    pthread_t thread[4], other;
    struct timespec long_time = { 20, 0 };
    sigset_t alarm_set;
    int status, n, slept;
    char c;

    for (int i = 0; i < 4; i++) {
        pthread_create(&thread[i], 0, caller, 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], 0);
    }
    pipe(pipes);
    pipe(never);
    sigemptyset(&alarm_set);
    sigaddset(&alarm_set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm_set, 0);
    pthread_create(&other, 0, writer, 0);
    pthread_sigmask(SIG_UNBLOCK, &alarm_set, 0);
    set_alarm(SA_RESTART, 50000, 50000);
    n = read(pipes[0], &c, 1);
    set_alarm(SA_RESTART, 0, 0);
    pthread_join(other, 0);
    set_alarm(0, 50000, 0);
    slept = nanosleep(&long_time, 0) ? errno : 0;
    if (!vfork()) {
        execl("/bin/true", "true", (char *)0);
        _exit(127);
    }
    wait(&status);
    printf("read %d, alarms %s, nanosleep %s, true %d", n, alarms > 2 ? "some" : "few",
           slept == EINTR ? "EINTR" : "?", WEXITSTATUS(status));
    fflush(stdout);
    if (!fork()) {
        prctl(PR_SET_SECCOMP, 1, 0, 0, 0);
        syscall(SYS_getpgid, 0);
        _exit(1);
    }
    wait(&status);
    printf(", killed by %d\n", WTERMSIG(status));
    fflush(stdout);
    pthread_create(&other, 0, reader, 0);
    long_time.tv_sec = 0;
    long_time.tv_nsec = 100000000;
    nanosleep(&long_time, 0);
    exit(7);
}
"""

#: Guest -> what its programs are compiled for. The kernels of the others have no seccomp.
TRIPLES = {
    "x86_64": "x86_64-linux-musl",
    "i386": "x86-linux-musl",
    "arm": "arm-linux-musleabihf",
    "aarch64": "aarch64-linux-musl",
    "ppc64el": "powerpc64le-linux-musl",
    "riscv64": "riscv64-linux-musl",
}


def case_threads(arch: str, folder: str) -> dict[str, Any]:
    panda = boot(arch)
    rows: list[tuple[int, ...]] = []
    fields = ("number", "phase", "thread", "result", "abi")

    def work() -> str:
        panda.copy_to_guest(folder)
        with panda.stream(
            "syscall", fields, procname="many", batch=64, on_batch=rows.extend
        ) as stream:
            said = panda.run_serial_cmd(f"./{Path(folder).name}/many; echo status $?", timeout=100)
            stream.flush()
        return said

    return {"said": in_guest(panda, work), "rows": rows, "arch": panda.arch_name}


@pytest.mark.parametrize("name", TRIPLES)
def test_threads(name: str, tmp_path: Path) -> None:
    from pandalite.syscalls.numbers import ARCH_ABIS, calls, prototypes

    folder = tmp_path / "d"
    folder.mkdir()
    built(name)
    done = compile_for_guest(
        PROGRAM, folder, TRIPLES[name], "-O1", "-static", "-o", str(folder / "many")
    )
    assert done.returncode == 0, done.stderr
    found = run_case(case_threads, name, str(folder))
    assert found["said"].split("\n")[-2:] == [
        "read 1, alarms some, nanosleep EINTR, true 0, killed by 9",
        "status 7",
    ]
    names = [calls(abi) for abi in ARCH_ABIS[found["arch"]]]
    entered: Counter[str] = Counter()
    returned: Counter[tuple[str, int]] = Counter()
    inside: dict[int, list[str]] = {}
    left: list[str] = []
    for number, phase, thread, result, abi in found["rows"]:
        call = names[abi][number].removeprefix("sys_")
        signed = result - (1 << 64) if result >> 63 else result
        stack = inside.setdefault(thread, [])
        if phase == 0:
            entered[call] += 1
            known = prototypes().get(names[abi][number])
            if known is None or not known.noreturn:
                stack.append(call)
        elif phase == 1:
            if call == "execve":
                # It was made under another name.
                continue
            # What it returns from is the last call it has made.
            while stack and stack[-1] != call:
                left.append(stack.pop())
            assert stack, f"{call} returns, which was not called"
            stack.pop()
            returned[call, signed] += 1
    # 800 calls of four threads at once: each returns to its own.
    assert entered["getppid"] == 800
    assert sum(n for (call, _), n in returned.items() if call == "getppid") == 800
    assert returned["read", 1] == 1
    sleeps = Counter({r: n for (c, r), n in returned.items() if "nanosleep" in c})
    assert sleeps[-4] == 1
    assert sleeps[0] == 2
    assert any("sigreturn" in call for call in entered)
    # A call that ends the thread in it: of seccomp, and of the one that reads for ever.
    assert entered["getpgid"] == 1
    assert not any(call == "getpgid" for call, _ in returned)
    # An interrupted call that is made again has returned first; none is lost.
    assert left == []
    assert sorted(c for stack in inside.values() for c in stack if c != "execve") == [
        "getpgid",
        "read",
    ]
