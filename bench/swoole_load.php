<?php
// SPDX-License-Identifier: Apache-2.0
// The load of bench/load.c for Swoole: a server with task workers, whose one worker submits with
// task() and gets each result in its finish callback. Server, submitter and workers are one program,
// as Swoole has it; so it is run once for each measurement.
//
//     php bench/swoole_load.php client [--count=N | --seconds=S] [--window=N] [--workers=N] [--size=BYTES]
//                                      [--mode=run|submit|open] [--rate=N] [--warmup=S]
declare(strict_types=1);

if (!extension_loaded('swoole')) {
    fwrite(STDERR, "the swoole extension is missing\n");
    exit(77);
}
$options = ['count' => '0', 'seconds' => '1', 'warmup' => '0.2', 'window' => '1000', 'workers' => '4',
    'size' => '64', 'mode' => 'run', 'rate' => '1000'];
foreach (array_slice($argv, 2) as $word) {
    if (preg_match('/^--([a-z-]+)=(.*)$/', $word, $m)) {
        $options[$m[1]] = $m[2];
    }
}

/** CPU time of all threads of a process, ns. */
function cpu_ns(int $pid): int
{
    $sum = 0;
    foreach (glob("/proc/$pid/task/*/schedstat") ?: [] as $path) {
        $sum += (int) explode(' ', (string) @file_get_contents($path))[0];
    }
    return $sum;
}

/** One run: what is in flight, what came back, and how long it took. */
final class Load
{
    private int $sent = 0;
    private int $done = 0;
    private int $duplicates = 0;
    private int $doneBefore = 0;
    private int $begin = 0;     // of the measurement, ns
    private int $stop = 0;      // ns; PHP_INT_MAX where a count is given
    private float $due = 0;     // open: when the next task is meant to start, ns
    /** @var array<int, int> number of a task: when it was meant to start */
    private array $flying = [];
    /** @var list<int> ns */
    private array $took = [];
    /** @var array<string, list<int>> */
    private array $pids = [];
    /** @var array<string, int> */
    private array $cpu = [];

    public function __construct(private Swoole\Server $server, private array $o)
    {
    }

    public function start(): void
    {
        $this->pids['client'] = [getmypid()];
        for ($i = 0; $i < (int) $this->o['workers']; $i++) {
            $this->pids['worker'][] = $this->server->getWorkerPid(1 + $i);
        }
        $now = hrtime(true);
        $counted = (int) $this->o['count'] > 0;
        $this->begin = $counted ? $now : $now + (int) ((float) $this->o['warmup'] * 1e9);
        $this->stop = $counted ? PHP_INT_MAX : $this->begin + (int) ((float) $this->o['seconds'] * 1e9);
        $this->due = (float) $now;
        $this->cpu = $this->cpuNow();
        if ($this->o['mode'] === 'open') {
            Swoole\Timer::tick(1, fn () => $this->sendDue());
        } else {
            $this->fill();
        }
    }

    /** @return array<string, int> */
    private function cpuNow(): array
    {
        return array_map(fn (array $pids) => array_sum(array_map('cpu_ns', $pids)), $this->pids);
    }

    private function send(int $start): void
    {
        $number = $this->sent++;
        $this->flying[$number] = $start;
        $payload = str_pad(pack('P', $number), (int) $this->o['size'], 'x');
        if ($this->server->task($payload, -1, fn ($server, $id, $data) => $this->finished($data)) === false) {
            fwrite(STDERR, "swoole: task() refused\n");
            $this->server->shutdown();
        }
    }

    private function fill(): void
    {
        $limit = (int) $this->o['count'] ?: PHP_INT_MAX;
        while ($this->sent < $limit && count($this->flying) < (int) $this->o['window'] && hrtime(true) < $this->stop) {
            $this->send(hrtime(true));
        }
    }

    private function sendDue(): void
    {
        $now = hrtime(true);
        while ($this->due <= $now && $this->due < $this->stop) {
            $this->send((int) $this->due);
            $this->due += -log(1 - mt_rand() / (mt_getrandmax() + 1)) / (float) $this->o['rate'] * 1e9;
        }
        $this->endIfOver();
    }

    private function finished(string $data): void
    {
        $number = unpack('P', $data)[1];
        if (!isset($this->flying[$number])) {
            $this->duplicates++;
            return;
        }
        $now = hrtime(true);
        if ($now >= $this->begin) {
            if ($this->doneBefore === 0 && $this->took === []) {
                $this->begin = (int) $this->o['count'] ? $this->begin : $now;
                $this->doneBefore = $this->done;
                $this->cpu = (int) $this->o['count'] ? $this->cpu : $this->cpuNow();
            }
            $this->took[] = $now - $this->flying[$number];
        }
        unset($this->flying[$number]);
        $this->done++;
        if ($this->o['mode'] !== 'open') {
            $this->fill();
        }
        $this->endIfOver();
    }

    private function endIfOver(): void
    {
        $limit = (int) $this->o['count'];
        if ($this->flying === [] && ($limit ? $this->done >= $limit : hrtime(true) >= $this->stop)) {
            $this->report();
            $this->server->shutdown();
        }
    }

    private function report(): void
    {
        $seconds = (hrtime(true) - $this->begin) / 1e9;
        $tasks = count($this->took);
        sort($this->took);
        $at = fn (float $q) => $tasks ? $this->took[min($tasks - 1, (int) ($q * $tasks))] / 1e3 : 0;
        $cpu = [];
        foreach ($this->cpuNow() as $name => $ns) {
            $cpu[$name] = round(($ns - $this->cpu[$name]) / 1e3 / max(1, $tasks), 3);
        }
        echo json_encode(['tasks' => $tasks, 'seconds' => $seconds, 'rate' => $tasks / $seconds,
            'latency_us' => ['count' => $tasks, 'mean' => $tasks ? array_sum($this->took) / $tasks / 1e3 : 0,
                'p50' => $at(0.5), 'p90' => $at(0.9), 'p99' => $at(0.99), 'p999' => $at(0.999), 'max' => $at(1)],
            'cpu_us' => $cpu, 'rss_kib' => new stdClass(), 'duplicates' => $this->duplicates]), "\n";
    }
}

$socket = sys_get_temp_dir() . '/bench-swoole-' . getmypid() . '.sock';
$server = new Swoole\Server($socket, 0, SWOOLE_PROCESS, SWOOLE_SOCK_UNIX_STREAM);
// Mode 3 of task_ipc_mode (a queue that idle workers take from) blocks nobody behind a long task, but
// loses to sockets in rate; 1 is the default and the faster one.
$server->set(['worker_num' => 1, 'task_worker_num' => (int) $options['workers'], 'task_ipc_mode' => 1,
    'log_level' => SWOOLE_LOG_ERROR, 'max_wait_time' => 1]);
$server->on('receive', function (): void {
});
$server->on('task', fn (Swoole\Server $s, int $id, int $from, $data) => substr($data, 0, 8));
$server->on('finish', function (): void {
});
$server->on('workerStart', function (Swoole\Server $s, int $id) use ($options): void {
    if (!$s->taskworker) {
        Swoole\Timer::after(100, fn () => (new Load($s, $options))->start());
    }
});
$master = getmypid();
register_shutdown_function(fn () => getmypid() === $master && @unlink($socket));
$server->start();
