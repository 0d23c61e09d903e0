# SPDX-License-Identifier: Apache-2.0
"""The systems that are measured: how each is started, at its best, and what it promises."""
import os
import shutil
import subprocess
import time

from . import procs
from .procs import BENCH, BUILD, ROOT, Failed


class System:
    """One system in one setting. A subclass says how its server and its workers are started."""
    name = ""            # in results
    title = ""           # in tables
    program = ""         # of bench/: the load and, unless worker_command() says otherwise, the worker
    variant = ""         # for the program
    durable = ""         # "fsync": an accepted task is on disk; "late": some time later; "": memory
    needs = ()           # (program that must be there, Debian package)
    window = 1000        # tasks in flight, where it does best
    queues = 1           # that tasks are spread over
    batch = 0            # tasks that a worker takes at once, where it has the choice; 0: the driver's own
    ports = 1
    startup = 30         # seconds
    unix = True          # Unix sockets where the system has them: they are faster than TCP on one host

    def __init__(self):
        self.directory = None
        self.server = None
        self.helpers = []
        self.workers = []
        self.port = 0

    # ---- what is missing ----
    def missing(self):
        """None, or what to install."""
        for program, package in self.needs:
            if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/usr/lib/rabbitmq/bin"):
                return package
        if self.program and not os.path.exists(os.path.join(BENCH, self.program)):
            return "the library to compile bench/%s.c" % self.program
        return None

    # ---- life ----
    def server_command(self):
        return None

    def server_env(self):
        return {}

    def start(self):
        self.directory = procs.temporary(self.name)
        self.port = procs.free_ports(self.ports)
        command = self.server_command()
        if command:
            self.server = procs.start(command, self.directory, "server.log", self.server_env())
            procs.await_port(self.port, self.server, self.startup, self.unix_path())
            self.prepare()

    def unix_path(self):
        """Where it listens instead of at its port; None: it does not."""
        return None

    def prepare(self):
        """After the server listens."""

    def worker_command(self):
        return [os.path.join(BENCH, self.program), "worker", "--batch=%d" % self.batch, *self.common()]

    def start_workers(self, count):
        for _ in range(count):
            self.workers.append(procs.start(self.worker_command(), self.directory, "worker.log"))
        self.await_workers()

    def await_workers(self):
        """One task there and back says that they work."""
        if self.workers:
            self.client(mode="run", count=max(20, 4 * len(self.workers)), window=len(self.workers))

    def stop_workers(self):
        for worker in self.workers:
            procs.stop(worker, 3)
        self.workers = []

    def stop(self):
        self.stop_workers()
        if self.server:
            procs.stop(self.server)
        for helper in self.helpers:
            procs.stop(helper)
        self.server, self.helpers = None, []
        if self.directory:
            procs.remove(self.directory)
            self.directory = None

    # ---- load ----
    def common(self):
        path = self.unix_path()
        address = "unix:" + path if path else "127.0.0.1:%d" % self.port
        return ["--address=" + address, "--queue=bench", "--queues=%d" % self.queues, "--variant=" + self.variant]

    def server_pids(self):
        return [self.server.pid] + procs.descendants(self.server.pid) if self.server else []

    def worker_pids(self):
        return [pid for w in self.workers for pid in [w.pid] + procs.descendants(w.pid)]

    def pids(self):
        groups = {"server": self.server_pids(), "worker": self.worker_pids()}
        return ",".join("%s:%s" % (name, "+".join(map(str, pids))) for name, pids in groups.items() if pids)

    def client_command(self, **options):
        options.setdefault("window", self.window)
        options.setdefault("pids", self.pids())
        return [os.path.join(BENCH, self.program), "client", *self.common(),
                *("--%s=%s" % (name.replace("_", "-"), value) for name, value in options.items())]

    def client(self, limit=150, env=None, **options):
        return procs.run_json(self.client_command(**options), self.directory, limit, env)


# ---- Pushrod ----

class Embedded(System):
    name, title, program, variant = "pushrod-embedded", "Pushrod, embedded", "embedded", "memory"
    window = 10000
    count = 4

    def start_workers(self, count):
        self.count = count

    def pids(self):
        return "worker:children"

    def common(self):
        variant = self.variant if self.unix else self.variant + "-tcp"
        return ["--queue=bench", "--queues=%d" % self.queues, "--variant=" + variant]

    def client(self, limit=150, env=None, **options):
        # Each run makes a server of its own, and a store of its own.
        procs.remove(os.path.join(self.directory, "store"))
        return procs.run_json(self.client_command(workers=self.count, **options), self.directory, limit, env)


class EmbeddedSync(Embedded):
    name, title, variant, durable = "pushrod-embedded-sync", "Pushrod, embedded, sync", "sync", "fsync"


class Native(System):
    name, title, program = "pushrod", "Pushrod, client protocol", "native"
    window = 10000
    ports = 4
    extra = ("--durability=memory",)
    worker_plugin = True

    def server_command(self):
        return [os.path.join(BUILD, "pushrod-server"), "--listen=127.0.0.1:%d" % self.port,
                "--join-port=%d" % (self.port + 1), "--answers-port=%d" % (self.port + 2),
                "--http=127.0.0.1:%d" % (self.port + 3), "--lane-ports=33000-34999",
                "--max-clients=10100", "--log-level=warning", *self.extra,
                *(() if self.unix else ("--no-unix-sockets",))]

    def missing(self):
        if not os.path.exists(os.path.join(BUILD, "pushrod-server")):
            return "pushrod-server (make)"
        return super().missing()

    def start_workers(self, count, slots=1):
        if count == 0:
            return
        command = [os.path.join(BUILD, "pushrod-worker"), "--join=127.0.0.1:%d" % (self.port + 1),
                   "--plugin=" + os.path.join(BENCH, "noop.so"), "--processes=%d" % count,
                   "--slots=%d" % slots, "--log-level=warning"]
        self.workers = [procs.start(command, self.directory, "worker.log")]
        self.client(mode="run", count=20 * count, window=2 * count)


class NativeSync(Native):
    name, title, durable = "pushrod-sync", "Pushrod, client protocol, sync", "fsync"
    extra = ("--data=store", "--durability=sync")


class NativeAsync(Native):
    name, title, durable = "pushrod-async", "Pushrod, client protocol, async", "late"
    extra = ("--data=store", "--durability=async")


# ---- peers ----

class Gearmand(System):
    name, title, program = "gearmand", "gearmand, its protocol pipelined", "peer_gearmand"
    needs = (("gearmand", "gearman-job-server"),)

    def server_command(self):
        return ["gearmand", "--listen=127.0.0.1", "--port=%d" % self.port, "--threads=2",
                "--log-file=none", "--verbose=ERROR", "--pid-file=" + self.directory + "/pid",
                "--worker-wakeup=1"]


class GearmandLibrary(Gearmand):
    name, title, program = "gearmand-lib", "gearmand, libgearman", "peer_libgearman"
    window = 100         # the library looks for a result's task in a list

    def missing(self):
        lack = super().missing()
        return "libgearman-dev" if lack and "compile" in lack else lack


class Beanstalkd(System):
    name, title, program = "beanstalkd", "beanstalkd", "peer_beanstalkd"
    needs = (("beanstalkd", "beanstalkd"),)
    log = ()

    def unix_path(self):
        return os.path.join(self.directory, "socket") if self.unix else None

    def server_command(self):
        where = ["unix:" + self.unix_path()] if self.unix else ["127.0.0.1", "-p", str(self.port)]
        return ["beanstalkd", "-z", str(2 << 20), *self.log, "-l", *where]


class Beanstalkd50(Beanstalkd):
    name, title, durable = "beanstalkd-f50", "beanstalkd -f 50", "late"
    log = ("-b", ".", "-f", "50")


class BeanstalkdSync(Beanstalkd):
    name, title, durable = "beanstalkd-sync", "beanstalkd -f 0 (fsync each)", "fsync"
    log = ("-b", ".", "-f", "0")


class Redis(System):
    name, title, program, variant = "redis-list", "Redis list, BLMPOP 16", "peer_redis", "list"
    needs = (("redis-server", "redis-server"),)
    log = ("--appendonly", "no")

    def unix_path(self):
        return os.path.join(self.directory, "socket") if self.unix else None

    def server_command(self):
        where = ["--port", "0", "--unixsocket", self.unix_path()] if self.unix else ["--port", str(self.port)]
        return ["redis-server", "--bind", "127.0.0.1", *where, "--save", "", "--dir", self.directory,
                "--daemonize", "no", "--loglevel", "warning", *self.log]

    def prepare(self):
        if self.variant == "stream":
            subprocess.run(["redis-cli", *(("-s", self.unix_path()) if self.unix else ("-p", str(self.port))), "XGROUP", "CREATE", "bench", "workers", "0",
                            "MKSTREAM"], check=True, capture_output=True)


class RedisStream(Redis):
    name, title, variant = "redis-stream", "Redis stream, XREADGROUP 16", "stream"


class RedisStreamLate(RedisStream):
    name, title, durable = "redis-stream-1s", "Redis stream, fsync every 1 s", "late"
    log = ("--appendonly", "yes", "--appendfsync", "everysec")


class RedisStreamSync(RedisStream):
    name, title, durable = "redis-stream-sync", "Redis stream, fsync always", "fsync"
    log = ("--appendonly", "yes", "--appendfsync", "always")


class Nats(System):
    name, title, program, variant, durable = "nats", "NATS JetStream R1, file", "peer_nats", "file", "late"
    needs = (("nats-server", "nats-server"),)

    def server_command(self):
        with open(os.path.join(self.directory, "nats.conf"), "w") as f:
            f.write("listen: 127.0.0.1:%d\nmax_payload: 8MB\njetstream { store_dir: %s }\n"
                    % (self.port, self.directory))
        return ["nats-server", "-c", "nats.conf"]


class RabbitMQ(System):
    name, title, program, durable = "rabbitmq", "RabbitMQ quorum queue", "peer_rabbitmq", "fsync"
    needs = (("rabbitmq-server", "rabbitmq-server"), ("epmd", "erlang-base"))
    ports = 3
    startup = 90

    def start(self):
        # Its port mapper would go into the background and outlive us: start it here instead.
        self.port = 0
        self.epmd_port = procs.free_ports(1)
        super().start()

    def server_command(self):
        self.helpers.append(procs.start(["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"],
                                        self.directory, "epmd.log"))
        procs.await_port(self.epmd_port, self.helpers[-1])
        return ["/usr/lib/rabbitmq/bin/rabbitmq-server"]

    def server_env(self):
        d = self.directory
        return {"HOME": d, "RABBITMQ_NODENAME": "bench%d@localhost" % self.port,
                "RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_DIST_PORT": str(self.port + 1),
                "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": str(self.epmd_port),
                "RABBITMQ_MNESIA_BASE": d, "RABBITMQ_LOG_BASE": d, "RABBITMQ_PID_FILE": d + "/pid",
                "RABBITMQ_ENABLED_PLUGINS_FILE": d + "/plugins", "RABBITMQ_CONFIG_FILE": d + "/none",
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none"}


    def prepare(self):
        """It listens long before it lets anyone in."""
        end = time.monotonic() + self.startup
        while True:
            try:
                return self.client(mode="submit", count=1)
            except Failed:
                if time.monotonic() > end or self.server.poll() is not None:
                    raise
                time.sleep(0.5)


class PythonQueue(System):
    """Celery and RQ, both on a Redis of their own; client and worker are bench/python_load.py."""
    needs = (("redis-server", "redis-server"),)
    window = 50

    def server_command(self):
        return ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir",
                self.directory, "--loglevel", "warning", "--appendonly", "no"]

    def script(self, role):
        return ["/usr/bin/python3", os.path.join(ROOT, "bench", "python_load.py"), role,
                "--address=127.0.0.1:%d" % self.port, "--system=" + self.name]

    def client_command(self, **options):
        options.setdefault("window", self.window)
        options.setdefault("pids", self.pids())
        if "seconds" in options and options.get("mode", "run") != "open":
            options["seconds"] = max(1.5, options["seconds"])  # the first results take their time
        return [*self.script("client"), *("--%s=%s" % (k.replace("_", "-"), v) for k, v in options.items())]


class Celery(PythonQueue):
    name, title = "celery", "Celery on Redis, prefork, prefetch 4"
    needs = (*PythonQueue.needs, ("celery", "celery"))

    def start_workers(self, count):
        self.workers = [procs.start([*self.script("worker"), "--workers=%d" % count], self.directory,
                                    "worker.log")]
        self.client(mode="run", count=20, window=4)


class Rq(PythonQueue):
    name, title = "rq", "RQ, SimpleWorker"
    needs = (*PythonQueue.needs, ("rq", "python3-rq"))
    window = 100

    def worker_command(self):
        return [*self.script("worker"), "--workers=1"]


class Swoole(System):
    """Server, submitter and task workers are one program, started for each measurement."""
    name, title = "swoole", "Swoole task workers"
    count = 4

    def missing(self):
        if not shutil.which("php"):
            return "php-cli, and the Swoole extension of PHP"
        said = subprocess.run(["php", "-m"], capture_output=True, text=True, timeout=20, check=False).stdout
        if "swoole" not in said.lower().split():
            return "the Swoole extension of PHP, which Debian does not package (pecl install swoole)"
        return None

    def start_workers(self, count):
        self.count = count

    def client_command(self, **options):
        options.setdefault("window", self.window)
        options.setdefault("workers", self.count)
        return ["php", os.path.join(ROOT, "bench", "swoole_load.php"), "client",
                *("--%s=%s" % (name.replace("_", "-"), value) for name, value in options.items())]


class Echo(System):
    name, title, program = "echo", "libzmq PUSH/PULL echo (the limit)", "peer_echo"
    ports = 2
    batch = 1

    def start(self):
        super().start()
        self.count = 4

    def client(self, limit=150, env=None, **options):
        """The client binds, so its workers are as old as the run."""
        size = options.get("size", 64)
        self.workers = [procs.start([*self.worker_command(), "--size=%d" % size], self.directory,
                                    "worker.log") for _ in range(self.count)]
        time.sleep(0.05)
        try:
            return super().client(limit, env, batch=self.batch, workers=self.count, **options)
        finally:
            self.stop_workers()

    def start_workers(self, count):
        self.count = count


class EchoUnix(Echo):
    name, title, variant = "echo-unix", "libzmq echo over Unix sockets", "unix"


class Echo16(Echo):
    name, title, batch, window = "echo-16", "libzmq echo in batches of 16", 16, 4000


ALL = [Embedded, EmbeddedSync, Native, NativeAsync, NativeSync, Gearmand, GearmandLibrary, Beanstalkd, Beanstalkd50, BeanstalkdSync,
       Redis, RedisStream, RedisStreamLate, RedisStreamSync, Nats, RabbitMQ, Celery, Rq, Swoole, Echo, EchoUnix, Echo16]
BY_NAME = {s.name: s for s in ALL}


def available(names, say):
    """Instances of those that are there; says of the others what is missing."""
    found = []
    for name in names:
        system = BY_NAME[name]()
        lack = system.missing()
        if lack:
            say("%s is left out: %s is not installed" % (system.title, lack))
        else:
            found.append(system)
    return found


def started(systems, workers, say):
    """Starts each, with its workers; those that cannot be started are told and left out."""
    up = []
    for system in systems:
        try:
            system.start()
            system.start_workers(workers)
            up.append(system)
        except (Failed, OSError, subprocess.SubprocessError, ValueError) as e:
            say("%s is left out: %s" % (system.title, e))
            system.stop()
    return up
