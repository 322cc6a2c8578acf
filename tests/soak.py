"""A soak: everything is registered, enabled, disabled and removed while a guest works.

``make soak`` runs it on x86_64 and arm, ten minutes each; not part of ``make test``. A
random callback, filter, flag, stream, counter or coverage comes or goes some dozen times
a second while the guest forks, writes to its disk and fetches from a server on the host.
Now and then everything is taken away: the guest has to answer, and to have nothing to
complain of. Then the same work is watched from a reverted snapshot in all ways at once,
whose counts have to be equal. At the end the memory used must not have grown.

The seed decides which actions there are, and in which order.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from guest import boot  # noqa: E402
from pages import serve  # noqa: E402

from pandalite._bindings.callbacks import KINDS as CALLBACK_KINDS  # noqa: E402
from pandalite.streams import KINDS  # noqa: E402

#: Bytes the process may have grown by since all of it was in use once.
GROWTH = 160 << 20

#: Seconds between two looks at the guest.
ROUND = 25

LOAD = """
while :; do
    for i in 1 2 3; do ls -l /bin | sort | gzip | sha256sum; done
    dd if=/dev/urandom of=/tmp/a bs=64k count=8; cp /tmp/a /tmp/b; cmp /tmp/a /tmp/b
    dd if=/tmp/a of=$DISK bs=64k seek=100; sync
    wget -q -O /tmp/c URL; sha256sum /tmp/c; rm /tmp/a /tmp/b /tmp/c
done
"""

#: What is counted in all ways; the same each time.
WORK = "for i in 1 2; do ls -l /bin | sort | sha256sum; done; wget -q -O - URL | sha256sum"

#: Never raised in a guest that runs, or of no use here.
SILENT = ("before_loadvm", "during_machine_init", "after_machine_init", "hd_read", "hd_write")

COMPLAINTS = re.compile(r"Oops|BUG|panic|WARNING|stall|segfault|I/O error|corrupt", re.I)


PAGE = random.Random(5).randbytes(100_000)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Soak:
    """What is registered at the moment, and the ways to change it."""

    def __init__(self, panda: Any, arch: str, seed: int, folder: Path) -> None:
        self.panda = panda
        self.arch = arch
        self.random = random.Random(seed)
        self.folder = folder
        self.calls: Counter[str] = Counter()
        self.actions: Counter[str] = Counter()
        self.records = 0
        self.last: deque[str] = deque(maxlen=40)
        self.names: list[str] = []
        self.things: list[Any] = []
        self.readers: list[threading.Thread] = []
        self.flags = [panda.flag(n % 2 == 0) for n in range(8)]
        #: Of the comparisons alone.
        self.flag = panda.flag(False)
        self.asids: set[int] = {0}
        self.number = 0
        self.kept: list[Any] = []
        self.problems: list[str] = []

    # --- filters ---

    def filters(self, kind: str) -> dict[str, Any]:
        """Random filters that a kind of callback, stream or counter takes."""
        choose = self.random
        out: dict[str, Any] = {}
        counting = kind in ("counter", "coverage")
        if choose.random() < 0.4:
            out["kernel"] = choose.random() < 0.5
        if choose.random() < 0.3:
            bits = self.panda.bits
            low = choose.randrange(0, 1 << bits, 1 << (bits - 4))
            out["pc"] = [(low, low + (1 << (bits - 4))), (0, 1 << (bits - 1))]
        if choose.random() < 0.2:
            out["asid"] = choose.sample(sorted(self.asids), min(2, len(self.asids)))
        if choose.random() < 0.4:
            out["when"] = choose.choice(self.flags)
        if not counting:
            if choose.random() < 0.4:
                out["every"] = choose.randrange(1, 200)
            if choose.random() < 0.2:
                out["first"] = choose.randrange(1, 5000)
            if choose.random() < 0.2:
                out["once_per_block"] = True
            if "mem_" in kind and choose.random() < 0.3:
                out["addr"] = (0, 1 << (self.panda.bits - 1))
        return out

    # --- actions ---

    def add_callback(self) -> str:
        kinds = [k for k in CALLBACK_KINDS if not k.startswith("replay_") and k not in SILENT]
        kind = self.random.choice(kinds)
        chance = self.random.choice((2, 7, 1000))
        calls, asids = self.calls, self.asids
        turn = [0]

        def function(*args: Any) -> Any:
            calls[kind] += 1
            turn[0] += 1
            if kind == "asid_changed" and len(asids) < 200:
                asids.add(args[2])
            if kind in ("insn_translate", "after_insn_translate"):
                return turn[0] % chance == 0
            if kind == "before_block_exec_invalidate_opt":
                return turn[0] % 1000 == 0
            return None

        self.number += 1
        name = f"{kind} {self.number}"
        filters = {} if self.random.random() < 0.3 else self.filters(kind)
        self.panda.register_callback(getattr(self.panda.callback, kind), function, name, **filters)
        self.names.append(name)
        return f"{name} {filters}"

    def remove_callback(self) -> str:
        if not self.names:
            return "nothing"
        name = self.names.pop(self.random.randrange(len(self.names)))
        self.panda.delete_callback(name)
        return name

    def switch_callback(self) -> str:
        if not self.names:
            return "nothing"
        name = self.random.choice(self.names)
        on = self.random.random() < 0.5
        (self.panda.enable_callback if on else self.panda.disable_callback)(name)
        return f"{name} {on}"

    def switch_flag(self) -> str:
        flag = self.random.choice(self.flags)
        on = self.random.random() < 0.5
        (flag.set if on else flag.clear)()
        return f"{flag}"

    def add_stream(self) -> str:
        choose = self.random
        kind = choose.choice(list(KINDS))
        fields = choose.sample(KINDS[kind], choose.randrange(1, len(KINDS[kind]) + 1))
        words: dict[str, Any] = {
            "batch": choose.choice((1, 100, 5000, 65536)),
            "batches": choose.choice((2, 5, 8)),
            "when_full": choose.choice(("wait", "drop")),
            "enabled": choose.random() < 0.8,
            **self.filters("mem_" if kind == "mem" else kind),
        }
        if kind == "mem":
            words["access"] = choose.choice(("r", "w", "rw"))
        way = choose.choice(("on_batch", "thread", "file", "nobody"))
        if words["batch"] == 1 and way != "nobody":
            words["batch"] = 50
        if way == "nobody":
            words["when_full"] = "drop"
        text = f"{kind} {fields} {way} {words}"
        if way == "on_batch":
            words["on_batch"] = self.count
        elif way == "file":
            self.number += 1
            words["to_file"] = self.folder / f"file{self.number}"
            words["every"] = 50
        stream = self.panda.stream(kind, fields, **words)
        if way == "thread":
            thread = threading.Thread(target=self.read, args=(stream,), daemon=True)
            thread.start()
            self.readers.append(thread)
        self.things.append(stream)
        return text

    def count(self, batch: Any) -> None:
        self.records += len(batch)
        if self.records % 97 == 0:
            # Somebody who keeps what he was given.
            self.kept = [*self.kept[-3:], batch.numpy(), batch.view]

    def read(self, stream: Any) -> None:
        try:
            for batch in stream:
                self.count(batch)
        except BaseException as error:
            self.problems.append(f"a reader: {error!r}")

    def add_counter(self) -> str:
        kind = self.random.choice(("block", "insn"))
        filters = self.filters("counter")
        self.things.append(self.panda.counter(kind, **filters))
        return f"{kind} {filters}"

    def add_coverage(self) -> str:
        words = {
            "blocks": True,
            "edges": self.random.random() < 0.5,
            "edge_map": self.random.random() < 0.5,
            "map_bits": self.random.choice((8, 16, 20)),
            **self.filters("coverage"),
        }
        self.things.append(self.panda.coverage(**words))
        return str(words)

    def use_thing(self) -> str:
        if not self.things:
            return "nothing"
        thing = self.random.choice(self.things)
        what = self.random.randrange(3)
        if what == 0:
            thing.enabled = not thing.enabled
        elif hasattr(thing, "flush"):
            thing.flush()
            assert thing.delivered >= 0
        elif hasattr(thing, "blocks"):
            if what == 1:
                thing.reset()
            else:
                assert all(b.hits for b in thing.blocks)
                thing.edges  # noqa: B018
        else:
            assert thing.value >= 0
        return f"{thing} {what}"

    def remove_thing(self) -> str:
        if not self.things:
            return "nothing"
        thing = self.things.pop(self.random.randrange(len(self.things)))
        thing.close()
        return repr(thing)

    def flush(self) -> str:
        self.panda.flush_tb()
        return ""

    def pause(self) -> str:
        self.panda.vm_stop()
        time.sleep(self.random.random() / 50)
        self.panda.cont()
        return ""

    def chaining(self) -> str:
        self.panda.disable_tb_chaining()
        self.panda.enable_memcb()
        time.sleep(0.01)
        self.panda.enable_tb_chaining()
        self.panda.disable_memcb()
        return ""

    def act(self) -> None:
        if len(self.names) > 12:
            action: Callable[[], str] = self.remove_callback
        elif len(self.things) > 14:
            action = self.remove_thing
        else:
            actions = {
                self.add_callback: 20,
                self.remove_callback: 14,
                self.switch_callback: 16,
                self.switch_flag: 16,
                self.add_stream: 12,
                self.add_counter: 5,
                self.add_coverage: 4,
                self.use_thing: 16,
                self.remove_thing: 16,
                self.flush: 1,
                self.pause: 1,
                self.chaining: 1,
            }
            action = self.random.choices(list(actions), list(actions.values()))[0]
        self.last.append(action.__name__)
        text = action()
        self.last[-1] += f" {text}"
        self.actions[action.__name__] += 1

    def remove_all(self) -> None:
        for name in self.names:
            self.panda.delete_callback(name)
        self.names.clear()
        for thing in self.things:
            thing.close()
        self.things.clear()
        for reader in self.readers:
            reader.join(60)
            if reader.is_alive():
                self.problems.append("a reader did not come to its end")
        self.readers.clear()
        self.kept.clear()
        for file in self.folder.iterdir():
            if file.suffix == ".part":
                self.problems.append(f"{file.name} was left behind")
            file.unlink()

    # --- checks ---

    def on_cpu(self, function: Callable[[], object]) -> None:
        done = threading.Event()

        @self.panda.cb_top_loop(name="on cpu")
        def top_loop(cpu: Any) -> None:
            if not done.is_set():
                function()
                done.set()

        if not done.wait(0.2):
            self.panda.flush_tb()
            assert done.wait(60), "the CPU thread does not come to its top"
        self.panda.delete_callback("on cpu")

    def compare(self, url: str) -> dict[str, Any]:
        """The same work seen in all ways; returns the counts, which have to be equal."""
        panda = self.panda
        panda.revert_sync("root")
        flag = self.flag
        got: Counter[str] = Counter()
        called: Counter[str] = Counter()

        def count(name: str) -> Callable[[Any], None]:
            def on_batch(batch: Any) -> None:
                got[name] += len(batch)

            return on_batch

        def block(cpu: Any, tb: Any) -> None:
            called["block"] += 1

        def user(cpu: Any, tb: Any) -> None:
            called["user"] += 1

        def write(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
            called["write"] += 1

        def insn(cpu: Any, pc: int) -> None:
            called["insn"] += 1

        panda.cb_before_block_exec(block, name="block", when=flag)
        panda.cb_before_block_exec(user, name="user", when=flag, kernel=False)
        panda.cb_virt_mem_after_write(write, name="write", when=flag, kernel=False)
        panda.cb_insn_translate(lambda cpu, pc: True, name="select")
        panda.cb_insn_exec(insn, name="insn", when=flag, kernel=False)
        streams = [
            panda.stream("block", ("pc",), on_batch=count("block"), when=flag),
            panda.stream("edge", ("pc",), on_batch=count("edge"), when=flag, batch=999),
            panda.stream("block", ("pc",), on_batch=count("user"), when=flag, kernel=False),
            panda.stream(
                "mem", ("pc",), access="w", on_batch=count("write"), when=flag, kernel=False
            ),
            panda.stream("insn", ("pc",), on_batch=count("insn"), when=flag, kernel=False),
        ]
        blocks = panda.counter("block", when=flag)
        user_blocks = panda.counter("block", when=flag, kernel=False)
        covered = panda.coverage(edges=True, when=flag)
        self.on_cpu(flag.set)
        output = panda.run_serial_cmd(WORK.replace("URL", url), timeout=150)
        self.on_cpu(flag.clear)
        for name in ("block", "user", "write", "select", "insn"):
            panda.delete_callback(name)
        for stream in streams:
            stream.close()
        out = {
            "block": [
                called["block"],
                got["block"],
                got["edge"],
                blocks.value,
                sum(b.hits for b in covered.blocks),
                sum(e.hits for e in covered.edges),
            ],
            "user": [called["user"], got["user"], user_blocks.value],
            "write": [called["write"], got["write"]],
            "insn": [called["insn"], got["insn"]],
        }
        for thing in (blocks, user_blocks, covered):
            thing.close()
        for name, counts in out.items():
            if len(set(counts)) != 1 or not counts[0]:
                self.problems.append(f"counts of {name} differ: {counts}")
        if len(re.findall(r"\b[0-9a-f]{64}\b", output)) != 3:
            self.problems.append(f"the guest said {output!r}")
        return out


def soak(arch: str, seconds: float, seed: int) -> dict[str, Any]:
    """In a process of its own; returns the report."""
    url = f"http://10.0.2.2:{serve(lambda path: PAGE)}/"
    panda = boot(arch)
    report: dict[str, Any] = {"arch": arch, "seed": seed, "memory": [], "counts": []}
    folder = tempfile.TemporaryDirectory()
    state = Soak(panda, arch, seed, Path(folder.name))

    def start_load() -> None:
        disk = panda.run_serial_cmd("ls /dev/[sv]d[ab]", timeout=60).split()[-1]
        script = LOAD.replace("URL", url).replace("$DISK", disk)
        panda.run_serial_cmd(f"({script}) > /dev/null 2>&1 &", timeout=60)

    def look() -> None:
        """Nothing is registered: the guest has to be as it was."""
        state.remove_all()
        answer = panda.run_serial_cmd("echo ali''ve; dmesg | tail -n 30", timeout=120)
        if "alive" not in answer:
            state.problems.append(f"the guest said {answer!r}")
        for line in answer.splitlines():
            if COMPLAINTS.search(line):
                state.problems.append(f"the guest complains: {line}")
        state.last.append("compare")
        report["counts"].append(state.compare(url))
        gc.collect()
        report["memory"].append(resident() >> 20)
        if state.problems:
            raise AssertionError("; ".join(state.problems))

    @panda.queue_blocking
    def body() -> None:
        panda.revert_sync("root")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start_load()
            next_look = min(end, time.monotonic() + ROUND)
            while time.monotonic() < next_look:
                state.act()
                time.sleep(state.random.random() * 0.06)
            look()
            print(
                f"{arch}: {sum(state.actions.values())} actions, "
                f"{sum(state.calls.values())} calls, {state.records} records, "
                f"{report['memory'][-1]} MB, {report['counts'][-1]['block'][0]} blocks equal",
                flush=True,
            )
        panda.end_analysis()

    begin = time.monotonic()
    try:
        panda.run()
    except BaseException:
        print("\n".join(["the last actions:", *state.last]), file=sys.stderr)
        raise
    report.update(
        seconds=round(time.monotonic() - begin),
        actions=state.actions,
        calls=state.calls,
        records=state.records,
    )
    return report


def judge(report: dict[str, Any]) -> list[str]:
    """What is wrong with a report."""
    memory = report["memory"]
    if len(memory) < 4:
        return []
    # The first rounds use everything for the first time.
    before, after = max(memory[: len(memory) // 3 + 1]), memory[-1]
    if after - before > GROWTH >> 20:
        return [f"memory grew from {before} to {after} MB"]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arches", nargs="*", default=["x86_64", "arm"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(soak(args.arches[0], args.minutes * 60, args.seed)), flush=True)
        return 0
    bad = 0
    for arch in args.arches:
        print(f"{arch}: {args.minutes:g} minutes, --seed {args.seed}", flush=True)
        command = [sys.executable, __file__, arch, "--child"]
        command += ["--minutes", str(args.minutes), "--seed", str(args.seed)]
        with tempfile.TemporaryFile("w+") as errors:
            child = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
            )
            watchdog = threading.Timer(args.minutes * 60 + 600, child.kill)
            watchdog.start()
            assert child.stdout is not None
            last = ""
            for line in child.stdout:
                last = line
                if not line.startswith("{"):
                    print(line, end="", flush=True)
            status = child.wait()
            watchdog.cancel()
            errors.seek(0)
            said = [line for line in errors.read().splitlines() if "using generic" not in line]
        problems = [f"it ended with status {status}"] if status else []
        problems += [f"stderr: {line}" for line in said]
        if not status:
            report = json.loads(last)
            problems += judge(report)
            print(
                f"{arch}: {report['seconds']} s, {sum(report['actions'].values())} actions, "
                f"{sum(report['calls'].values())} calls, {report['records']} records, "
                f"{len(report['counts'])} comparisons, MB in use: {report['memory']}"
            )
        print(f"{arch}: " + ("\n  ".join(["FAILED", *problems]) if problems else "ok"), flush=True)
        bad += bool(problems)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
