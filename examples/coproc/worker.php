#!/usr/bin/env php
<?php // SPDX-License-Identifier: Apache-2.0
// pushrod-worker --coproc upper='examples/coproc/worker.php'
// What goes in and out: PROCESSES THAT STAY in pushrod-worker(8).

ini_set('display_errors', 'stderr'); // standard output is the protocol's: a warning there ends it

function say(array $message, string $data = ''): void
{
    $message['size'] = strlen($data);
    fwrite(STDOUT, json_encode($message) . "\n" . $data);
    fflush(STDOUT);
}

while (($line = fgets(STDIN)) !== false) {
    $task = json_decode($line, true);
    $payload = $task['size'] ? stream_get_contents(STDIN, $task['size']) : '';
    try {
        say(['type' => 'progress', 'done' => 1, 'total' => 2, 'text' => 'half way']);
        say(['type' => 'done'], strtoupper($payload));
    } catch (Throwable $error) { // the attempt fails; the next one may do better
        say(['type' => 'retry', 'after' => 1], $error->getMessage());
    }
}
