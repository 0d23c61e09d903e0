# SPDX-License-Identifier: Apache-2.0
"""Processes: start, wait until they listen, look at, stop. Only what was started here is ended."""
import atexit
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD", "build")))
BENCH = os.path.join(BUILD, "bench")
SILENT = 3  # exit code of a load program whose system has said nothing for 30 s
TICK = os.sysconf("SC_CLK_TCK")

_started = []
_directories = []


def free_ports(count):
    """`count` ports in a row that nobody uses now, below the ephemeral range of most systems."""
    for base in range(15570 + os.getpid() % 500 * 10, 32000, count + 3):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + count):
                    s = stack.enter_context(socket.socket())
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("127.0.0.1", port))
            except OSError:
                continue
            if base not in free_ports.given:
                free_ports.given.update(range(base, base + count))
                return base
    sys.exit("bench: no free ports")


free_ports.given = set()


def temporary(name):
    path = tempfile.mkdtemp(prefix="bench-%s-" % name, dir=os.environ.get("BENCH_DIR"))
    os.chmod(path, 0o755)
    _directories.append(path)
    return path


def remove(path):
    shutil.rmtree(path, ignore_errors=True)


PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def end_with_us():
    """In a new process: SIGTERM when this program ends, however it does; SIGKILL, too, must leave nobody behind."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start(command, directory, log, env=None, stdin=subprocess.DEVNULL, stdout=None):
    """Starts a process in a session of its own; what it says goes to directory/log."""
    out = open(os.path.join(directory, log), "ab")
    process = subprocess.Popen(command, cwd=directory, env={**os.environ, **(env or {})}, stdin=stdin,
                               stdout=stdout or out, stderr=out, start_new_session=True, preexec_fn=end_with_us)
    process.log_path = out.name
    out.close()
    _started.append(process)
    return process


def stop(process, wait=5):
    """SIGTERM, then SIGKILL to it and to what it started."""
    if process.poll() is None:
        family = [process.pid] + descendants(process.pid)
        process.terminate()
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            pass
        for pid in family:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if session_of(pid) == process.pid:
                    os.kill(pid, signal.SIGKILL)
        process.wait()
    if process in _started:
        _started.remove(process)


def session_of(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def end_in_order(_signal, _frame):
    # A second signal must not stop the stopping.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(143)


# atexit does not run when a signal ends the process; nothing that was started may outlive us.
signal.signal(signal.SIGTERM, end_in_order)
signal.signal(signal.SIGHUP, end_in_order)


@atexit.register
def stop_all():
    """Ends whatever is left of what was started here."""
    for process in list(_started):
        stop(process, 2)
    for path in _directories:
        remove(path)
    _directories.clear()


def read(path):
    try:
        with open(path) as f:
            return f.read()
    except (OSError, ValueError):
        return ""


def descendants(pid):
    """Its children, and theirs; in one pass, since there may be thousands."""
    children = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        words = read("/proc/%s/stat" % name).rpartition(")")[2].split()
        if words:
            children.setdefault(int(words[1]), []).append(int(name))
    found, todo = [], [pid]
    while todo:
        more = children.get(todo.pop(), [])
        found += more
        todo += more
    return found


def listens(port, path):
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as s:
        s.settimeout(0.2)
        return s.connect_ex(path or ("127.0.0.1", port)) == 0


def await_port(port, process, seconds=30, path=None):
    """Until it listens there, or at the path of a Unix socket."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        if listens(port, path):
            return
        time.sleep(0.02)
    raise Failed("%s does not listen on %s: %s" % (process.args[0], path or port, read(process.log_path)[-500:]))


class Failed(Exception):
    """A system could not be measured; the text says why."""


class Hung(Failed):
    """A load program did not come to its end."""


class OutOfTime(BaseException):
    """The time of a part is over. Nothing but the end of the part catches it."""


@contextlib.contextmanager
def time_limit(seconds):
    """Raises OutOfTime in what it encloses, after so many seconds."""
    def over(_signal, _frame):
        raise OutOfTime("its %d s are over" % seconds)
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def status_field(pid, name):
    for line in read("/proc/%d/status" % pid).splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def rss_kib(pids):
    return sum(status_field(pid, "VmRSS") for pid in pids)


def cpu_seconds(pids):
    """CPU time of all threads, from schedstat (ns), which is finer than the ticks of stat."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir("/proc/%d/task" % pid):
                words = read("/proc/%d/task/%s/schedstat" % (pid, task)).split()
                total += int(words[0]) if words else 0
    return total / 1e9


def wakeups(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir("/proc/%d/task" % pid):
                for line in read("/proc/%d/task/%s/status" % (pid, task)).splitlines():
                    if line.startswith("voluntary_ctxt_switches"):
                        total += int(line.split()[1])
    return total


def loopback_bytes():
    for line in read("/proc/net/dev").splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[0])
    return 0


def fetch(url):
    """The text at an address; "" if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def run_json(command, directory, seconds=120, env=None):
    """Runs a load program; its last line of output is JSON."""
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=seconds,
                              env={**os.environ, **(env or {})})
    except subprocess.TimeoutExpired:
        raise Hung("%s did not end in %d s" % (os.path.basename(command[0]), seconds)) from None
    if done.returncode == SILENT:
        raise Hung(done.stderr.strip()[-300:])
    if done.returncode != 0 or not done.stdout.strip():
        raise Failed("%s: %s" % (" ".join(command[:3]), (done.stderr or done.stdout).strip()[-300:] or
                                 "exit code %d" % done.returncode))
    return json.loads(done.stdout.strip().splitlines()[-1])
