"""What must hold in Redis whatever happened: for tests that crash, cut and interleave.

    check(connection)                               # raises AssertionError with everything that is wrong
    violations(connection, gone={"a"})              # the same as a list of lines
    check(connection, totals={"finished|default": 3})

The whole key space is read by one script, so that a look while processes work is a look at one moment. Everything that
rqxx does must hold at any moment; what stock workers do, only between their operations (see `stock`).
"""

import json

SNAPSHOT = """
local rows = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
    local kind, content = redis.call('TYPE', key).ok, {}
    if kind == 'hash' then content = redis.call('HGETALL', key)
    elseif kind == 'list' then content = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'set' then content = redis.call('SMEMBERS', key)
    elseif kind == 'zset' then content = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    elseif kind == 'stream' then
        for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do content[#content + 1] = entry[2] end
    else content = {redis.call('GET', key)} end
    rows[#rows + 1] = {key, kind, redis.call('TTL', key), content}
end
return {redis.call('TIME')[1], rows}
"""

#: Where a job of a status stands; the started registry has executions instead of ids.
PLACES = {"queued": "queue", "started": "wip", "finished": "finished", "failed": "failed", "stopped": "failed",
          "deferred": "deferred", "scheduled": "scheduled", "canceled": "canceled", "created": None}
REGISTRIES = ("finished", "failed", "deferred", "scheduled", "canceled")


def text(value):
    return value.decode("utf-8", "backslashreplace")


def pairs(flat):
    return dict(zip(flat[::2], flat[1::2]))


class Snapshot:
    """All of Redis at one moment, as text."""

    def __init__(self, connection):
        now, rows = connection.eval(SNAPSHOT, 0)
        self.now = int(now)
        self.kinds, self.ttls, self.content = {}, {}, {}
        self.places_of = None
        for key, kind, ttl, content in rows:
            key, kind = text(key), text(kind)
            if kind == "stream":
                content = [pairs([text(item) for item in entry]) for entry in content]
            else:
                content = [text(item) for item in content]
            if kind == "hash":
                content = pairs(content)
            if kind == "zset":
                content = {member: float(score) for member, score in pairs(content).items()}
            self.kinds[key], self.ttls[key], self.content[key] = kind, ttl, content
        self.jobs = {key[7:]: fields for key, fields in self.content.items()
                     if key.startswith("rq:job:") and self.kinds[key] == "hash"}

    def get(self, key):
        return self.content.get(key, {})

    def named(self, prefix):
        """(rest of the name, content) of each key that begins so."""
        return [(key[len(prefix):], content) for key, content in self.content.items() if key.startswith(prefix)]

    def status(self, job_id):
        return self.jobs.get(job_id, {}).get("status")

    def queues(self):
        return [(name, ids) for name, ids in self.named("rq:queue:")
                if not name.endswith(":intermediate") and ":intermediate:" not in name]

    def places(self, job_id):
        """Every place where the job stands, once for each entry: ("queue", "default"), ("wip", "default"), ..."""
        if self.places_of is None:
            self.places_of = {}
            for entry, place in self.entries():
                self.places_of.setdefault(entry, []).append(place)
        return self.places_of.get(job_id, [])

    def entries(self):
        """(job, place) of all that stands anywhere."""
        yield from ((entry, ("queue", name)) for name, ids in self.queues() for entry in ids)
        yield from ((entry, ("intermediate", name[:-13])) for name, ids in self.named("rq:queue:") if name.endswith(":intermediate")
                    for entry in ids)
        for registry in REGISTRIES:
            yield from ((entry, (registry, name)) for name, entries in self.named(f"rq:{registry}:") for entry in entries)
        yield from ((entry.split(":")[0], ("wip", name)) for name, entries in self.named("rq:wip:") for entry in entries)

    def results(self, job_id):
        """Result entries, oldest first."""
        return self.get(f"rq:results:{job_id}") or []

    def met(self, dependency_id, allows_failure, gone=()):
        """Whether a dependency no longer holds back. RQ counts one that is missing as met."""
        status = self.status(dependency_id)
        if status is None:
            return dependency_id not in gone
        return status == "finished" or (status == "failed" and allows_failure)


def dependencies_of(job):
    return json.loads(job.get("dependency_ids") or "[]")


def _job_is_where_it_belongs(snapshot, job_id, job, stock):
    status, origin = job.get("status", "created"), job.get("origin", "")
    if status not in PLACES:
        return [f"{job_id}: has the status {status}"]
    expected = [] if PLACES[status] is None else [(PLACES[status], origin)]
    found = sorted(snapshot.places(job_id))
    tolerated = [expected]
    if "repeats_left" in job:     # What a repeating job returned stays in the finished registry, as RQ has it.
        tolerated.append(sorted([*expected, ("finished", origin)]))
    if status == "queued" and stock:
        # A stock worker between its steps.
        tolerated += [[("intermediate", origin)], [("intermediate", origin), ("wip", origin)], [("wip", origin)]]
    if status == "started" and stock:
        tolerated.append([("intermediate", origin), ("wip", origin)])
    if found not in tolerated:
        return [f"{job_id}: is {status} and stands in {found or 'no place'}"]
    return []


def _lifetime_is_right(snapshot, job_id, job, stock):
    status, ttl = job.get("status", "created"), snapshot.ttls[f"rq:job:{job_id}"]
    if status == "started" and ttl != -1 and not stock:
        return [f"{job_id}: expires in {ttl} s while it runs"]
    if status in ("queued", "deferred", "scheduled") and ttl != -1 and not job.get("ttl"):
        return [f"{job_id}: expires in {ttl} s while it is {status}"]
    # A canceled job keeps the lifetime that it had.
    if status == "finished" and ttl == -1 and job.get("result_ttl") != "-1":
        return [f"{job_id}: is finished and never expires"]
    if status in ("failed", "stopped") and ttl == -1 and job.get("failure_ttl") != "-1":
        return [f"{job_id}: is {status} and never expires"]
    return []


def _result_is_there(snapshot, job_id, job):
    status, results = job.get("status"), snapshot.results(job_id)
    types = {"finished": ("1",), "failed": ("2", "5"), "stopped": ("2",)}.get(status)
    if types and (not results or results[-1].get("type") not in types):
        return [f"{job_id}: is {status} and its last result is {results[-1] if results else 'missing'}"]
    executions = [entry["execution_id"] for entry in results if entry.get("execution_id")]
    if len(executions) != len(set(executions)):
        return [f"{job_id}: one execution has two results: {executions}"]
    return []


def _waits_for_something(snapshot, job_id, job, gone):
    if job.get("status") != "deferred":
        return []
    found = []
    allows_failure = job.get("allow_dependency_failures") == "1"
    unmet = [dependency for dependency in dependencies_of(job) if not snapshot.met(dependency, allows_failure, gone)]
    if not unmet:
        found.append(f"{job_id}: is deferred and nothing holds it back: "
                     f"{ {one: snapshot.status(one) for one in dependencies_of(job)} }")
    for dependency in unmet:
        if snapshot.status(dependency) and job_id not in snapshot.get(f"rq:job:{dependency}:dependents"):
            found.append(f"{job_id}: waits for {dependency}, which does not know of it")
        if dependency not in snapshot.get(f"rq:job::{job_id}:dependencies"):
            found.append(f"{job_id}: waits for {dependency}, which is not in its dependencies")
    return found


def _entries_have_jobs(snapshot, ghosts):
    found = []
    for name, ids in snapshot.named("rq:queue:"):
        if snapshot.kinds[f"rq:queue:{name}"] == "list":
            found += [f"rq:queue:{name}: {job_id} has no job" for job_id in ids
                      if job_id not in snapshot.jobs and job_id not in ghosts]
    for registry in REGISTRIES:
        for name, entries in snapshot.named(f"rq:{registry}:"):
            for job_id, score in entries.items():
                if job_id in snapshot.jobs or job_id in ghosts:
                    continue
                # Job and entry expire in the same second.
                if registry in ("finished", "failed") and 0 <= score <= snapshot.now + 1:
                    continue
                found.append(f"rq:{registry}:{name}: {job_id} has no job")
    return found


def _executions_agree(snapshot, stock, busy):
    found = []
    standing = {}
    for name, entries in snapshot.named("rq:wip:"):
        for member in entries:
            job_id, _, execution = member.partition(":")
            standing.setdefault(job_id, []).append(execution)
            status = snapshot.status(job_id)
            if status != "started" and not (stock and status == "queued"):
                found.append(f"rq:wip:{name}: {member} of a job that is {status}")
            if f"rq:execution:{member}" not in snapshot.content:
                found.append(f"rq:wip:{name}: {member} has no record")
            if execution not in snapshot.get(f"rq:executions:{job_id}"):
                found.append(f"rq:wip:{name}: {member} is not in the job's executions")
    found += [f"{job_id}: runs {len(executions)} times at once" for job_id, executions in standing.items()
              if len(executions) > 1]
    for job_id, entries in snapshot.named("rq:executions:"):
        if stock and snapshot.ttls[f"rq:executions:{job_id}"] > 0:
            continue    # RQ's cancel and maintenance leave executions to expire.
        found += [f"rq:executions:{job_id}: {execution} does not run" for execution in entries
                  if execution not in standing.get(job_id, [])]
    for member, record in snapshot.named("rq:execution:"):
        job_id, _, execution = member.partition(":")
        if execution not in standing.get(job_id, []) and not (stock and snapshot.ttls[f"rq:execution:{member}"] > 0):
            found.append(f"rq:execution:{member}: does not run")
        if not {"id", "created_at", "last_heartbeat"} <= set(record):
            found.append(f"rq:execution:{member}: is a part of a record")
    for name, members in snapshot.named("rq:worker:"):
        if not name.endswith(":executions"):
            continue
        for member in members:
            job_id, _, execution = member.partition(":")
            if execution not in standing.get(job_id, []):
                if not busy:
                    found.append(f"rq:worker:{name}: {member} does not run")
            elif snapshot.jobs[job_id].get("worker_name") != name[:-11]:
                found.append(f"rq:worker:{name}: {member} is run by {snapshot.jobs[job_id].get('worker_name')}")
    return found


def _dependents_agree(snapshot):
    found = []
    for key, members in snapshot.content.items():
        if not (key.startswith("rq:job:") and key.endswith(":dependents") and snapshot.kinds[key] == "set"):
            continue
        parent = key[7:-11]
        if parent not in snapshot.jobs and snapshot.ttls[key] == -1:
            found.append(f"{key}: belongs to no job")
        for child in members:
            if child not in snapshot.jobs:
                found.append(f"{key}: {child} has no job")
            elif parent not in dependencies_of(snapshot.jobs[child]):
                found.append(f"{key}: {child} does not wait for it")
    for key in snapshot.content:
        if key.startswith("rq:job::") and key.endswith(":dependencies") and key[8:-13] not in snapshot.jobs \
                and snapshot.ttls[key] == -1:
            found.append(f"{key}: belongs to no job")
    return found


def _groups_agree(snapshot):
    found = [f"rq:groups: {name} has no members" for name in snapshot.get("rq:groups")
             if f"rq:group:{name}" not in snapshot.content]
    for job_id, job in snapshot.jobs.items():
        if job.get("group_id") and job_id not in snapshot.get(f"rq:group:{job['group_id']}"):
            found.append(f"{job_id}: is not in its group {job['group_id']}")
    return found


def _rest(snapshot):
    found = [f"rqxx:webhooks: delivery {delivery} has no record" for delivery in snapshot.get("rqxx:webhooks")
             if f"rqxx:webhook:{delivery}" not in snapshot.content]
    found += [f"rq:results:{job_id}: belongs to no job and never expires" for job_id, _ in snapshot.named("rq:results:")
              if job_id not in snapshot.jobs and snapshot.ttls[f"rq:results:{job_id}"] == -1]
    known = snapshot.get("rq:queues")
    found += [f"rq:queue:{name}: is not among the known queues" for name, _ in snapshot.queues()
              if f"rq:queue:{name}" not in known]
    return found


def worker_counters(connection):
    """(successful, failed) by worker, of those that still have a record."""
    snapshot = Snapshot(connection)
    return {name: (int(record.get("successful_job_count", 0)), int(record.get("failed_job_count", 0)))
            for name, record in snapshot.named("rq:worker:")
            if isinstance(record, dict) and not name.endswith(":executions")}


def violations(connection, gone=(), ghosts=(), stock=False, busy=False, totals=None, workers=None):
    """Everything that does not hold, a line each.

    `gone`: ids of jobs that were deleted on purpose, so that what depends on them may wait for ever.
    `ghosts`: ids that may stand somewhere though their job has expired or been lost to a stock process.
    `stock`: stock workers may be in the middle of their steps.
    `busy`: workers may not yet know that a job was canceled, deleted or recovered while they ran it.
    `totals`: fields of rqxx:totals ("finished|default") and their numbers; those left out must be zero or absent.
    `workers`: (successful, failed) that all workers together must have counted.
    """
    snapshot = Snapshot(connection)
    found = []
    for job_id, job in sorted(snapshot.jobs.items()):
        if not job.get("data"):
            found.append(f"{job_id}: is a part of a job: {job}")
            continue
        found += _job_is_where_it_belongs(snapshot, job_id, job, stock)
        found += _lifetime_is_right(snapshot, job_id, job, stock)
        found += _result_is_there(snapshot, job_id, job)
        found += _waits_for_something(snapshot, job_id, job, gone)
    found += _entries_have_jobs(snapshot, ghosts)
    found += _executions_agree(snapshot, stock, busy)
    found += _dependents_agree(snapshot)
    found += _groups_agree(snapshot)
    found += _rest(snapshot)
    if totals is not None:
        counted = {field: int(count) for field, count in snapshot.get("rqxx:totals").items() if int(count)}
        if counted != {field: count for field, count in totals.items() if count}:
            found.append(f"rqxx:totals: {counted} instead of {totals}")
    if workers is not None:
        counters = worker_counters(connection).values()
        summed = tuple(sum(column) for column in zip(*counters)) or (0, 0)
        if summed != tuple(workers):
            found.append(f"workers have counted {summed} instead of {tuple(workers)}")
    return found


def check(connection, **options):
    found = violations(connection, **options)
    assert not found, "\n".join(found)
