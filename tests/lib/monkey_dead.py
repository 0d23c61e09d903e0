# SPDX-License-Identifier: Apache-2.0
"""The operator of the monkey (tests/chaos/rows_monkey.py), who works on dead letters with the command while
all goes on; and the account of them: who is dead must be listed, and nobody else."""
import base64
import json
import os
import subprocess
import time

from lab import BUILD, FAILED, Failure, Process
from monkey_client import DURABILITIES, QUEUES, Task


class Repair(Process):
    """pushrod dead replay|drop of some, or of all of a queue; perhaps as new tasks of another queue."""

    def __init__(self, world):
        rng, self.world, self.life = world.rng, world, world.life
        self.queue, self.all, self.verb = rng.choice(QUEUES), rng.random() < 0.2, rng.choice(("replay", "drop"))
        kind, _, durability = self.queue.partition(".")
        self.to = rng.choice([d for d in DURABILITIES if d != durability])
        self.to = f"{kind}.{self.to}" if self.verb == "replay" and rng.random() < 0.7 else None
        dead = [(client, number) for client in world.clients for number in client.dead_ones(1000)
                if client.task(number).queue == self.queue]
        self.chosen = rng.sample(dead, min(len(dead), rng.randrange(1, 6)))
        for client, number in self.chosen:
            client.task(number).busy = True
            client.forget_purge(client.task(number))
        words = ["--all", self.queue] if self.all else [str(number) for _, number in self.chosen]
        self.out = os.path.join(world.lab.path, f"repair{len(world.lab.processes)}")
        super().__init__(world.lab, os.path.basename(self.out), [
            "sh", "-c", f"exec {BUILD}/pushrod dead {self.verb} --server 127.0.0.1:{world.server.client_port} --json "
            f"--connect-timeout 60s {f'--to {self.to}' if self.to else ''} {' '.join(words)} >{self.out}"])
        if self.all or self.chosen:
            world.lab.processes.append(self)
            world.repairs.append(self.start())
            world.counts[f"dead {self.verb}{' --all' * self.all}{' --to' * bool(self.to)}"] += 1

    def over(self):
        if self.alive():
            return False
        with open(self.out) as f:
            self.acts = [json.loads(line) for line in f]
        self.told = {int(act["id"]): act for act in self.acts if act["id"]}
        for client, number in self.chosen:
            client.task(number).busy = False
        for act in self.told.values():
            self.look(act)
        if self.all:
            self.doubt_all()
        else:
            for client, number in self.chosen:
                self.judge(client, number, self.told.get(number))
        return True

    def look(self, act):
        """What became of it as a new task."""
        number, as_id = int(act["id"]), int(act["new_id"] or 0)
        for client in self.world.clients:
            if as_id and number in client.accepted:
                task = Task.__new__(Task)
                vars(task).update(vars(client.task(number)))
                task.queue, task.durability = self.to, self.to.partition(".")[2]
                task.life, task.untold, task.dropped, task.attached, task.again = self.life, True, False, False, False
                task.cancelled, task.key, task.began = "", None, time.monotonic()
                task.lives, task.delay = task.lives + 1, 0
                client.tasks.append(task)
                client.adopt(as_id, len(client.tasks) - 1)
                self.world.counts["moved"] += 1

    def judge(self, client, number, act):
        task, code = client.task(number), self.process.returncode
        if not act and not code:
            client.wrong(task, f"is not spoken of: {self.acts}")
        if not act or act["error"] and act["error"] not in ("UNKNOWN_TASK", "WRONG_STATE"):
            client.lost_names.add(task.name)
            client.doubt(number, self.verb == "replay")
        elif act["error"] and not client.may_be_gone(task):
            client.wrong(task, f"cannot be worked on: {act}, {self.log()}")
        elif act["error"]:
            client.doubt(number, False)
        elif act["tasks"] != 1 or bool(act["new_id"]) != bool(self.to):
            client.wrong(task, f"was worked on in vain: {act}")
        elif self.to or self.verb == "drop":
            task.dropped = True
        else:
            client.revive(number)

    def doubt_all(self):
        """Who of the queue was dead at that moment, only the server knows."""
        for client in self.world.clients:
            for task in client.tasks:
                if task.queue == self.queue and task.may_fail():
                    client.lost_names.add(task.name)
                    task.doubt = True  # also one that its client has not heard of yet
            for number in list(client.accepted):
                task = client.task(number)
                if task.queue == self.queue and task.may_fail():
                    client.doubt(number, self.verb == "replay")


def judge_dead(world, rows):
    """The list of the dead, the queues' counts of them, and what clients were told."""
    listed = subprocess.run(
        [f"{BUILD}/pushrod", "dead", "ls", "--json", "--limit", "100000", "--server",
         f"127.0.0.1:{world.server.client_port}"], capture_output=True, check=True).stdout
    dead = {int(task["id"]): task for task in map(json.loads, listed.splitlines())}
    for row in rows:
        if row[8] != sum(task["queue"] == row[2] for task in dead.values()):
            ids = [number for number, task in dead.items() if task["queue"] == row[2]]
            raise Failure(f"{row[2]} has {row[8]} dead tasks, but of the list {ids}")
    lossy = world.crashes or "the store cannot write" in world.server.log()
    for client in world.clients:
        for number, (status, _) in client.finished.items():
            task, found = client.task(number), dead.pop(number, None)
            if found and (found["queue"], found["priority"], found["tag"]) != (
                    task.queue, task.priority, task.tag and task.tag.decode()):
                client.wrong(task, f"is dead as another one: {found}")
            # The end of an async task, too, may be lost, and it runs again.
            again = task.durability == "async" and lossy
            if task.doubt or again or (status == 0 and client.may_be_gone(task)):
                continue
            if found and (status != FAILED or task.dropped):
                client.wrong(task, f"has ended with {status}, and is dead: {found}")
            if status == FAILED and not (found or task.dropped or client.may_be_gone(task)):
                client.wrong(task, "is not among the dead")
    names = {name for client in world.clients for name in client.lost_names}
    for number, task in dead.items():
        name = task["tag"] or task["head"] or ""  # neither need be at hand
        name = base64.b64decode(name["base64"]).decode(errors="replace") if isinstance(name, dict) else name
        if name and name.partition("\n")[0].partition(" ")[0] not in names:
            raise Failure(f"{number} is dead, and nobody knows it: {task}")
    world.counts["dead"] = len(listed.splitlines())
