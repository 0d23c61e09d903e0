#!/usr/bin/env ruby
# SPDX-License-Identifier: Apache-2.0
# pushrod-worker --coproc upper='examples/coproc/worker.rb'
# What goes in and out: PROCESSES THAT STAY in pushrod-worker(8). Standard output is the protocol's:
# warn() goes to the worker's log.
require 'json'

$stdin.binmode
$stdout.binmode

def say(message, data = '')
  $stdout.write(message.merge(size: data.bytesize).to_json, "\n", data)
  $stdout.flush
end

while (line = $stdin.gets)
  task = JSON.parse(line)
  payload = $stdin.read(task['size'])
  begin
    say({ type: 'progress', done: 1, total: 2, text: 'half way' })
    say({ type: 'done' }, payload.upcase)
  rescue StandardError => e # the attempt fails; the next one may do better
    say({ type: 'retry', after: 1 }, e.message)
  end
end
