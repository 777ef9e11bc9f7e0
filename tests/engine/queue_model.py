"""One partition of a queue as a small machine, for looking at every order in which the moves around it can come.

A move is what one statement does at one instant, so two statements of one transaction are two moves and anything may come between
them. Every transaction runs under READ COMMITTED: a statement sees what was committed when it began, waits for a row's lock, and then
sees that row (but nothing else) as it is now. A transaction ends in a commit or is broken off. The moves in schema.sql:

  somebody writes, checks, commits   enqueues: an INSERT into dbos.workflow_status, then its trigger engine.nudge_enqueued;
                                     ends, parks, cancels: an UPDATE that takes owner_xid away, then NUDGE_FREED in
                                     engine/entries.py or the trigger engine.nudge_changed;
                                     wakes, resumes: an UPDATE to ENQUEUED, then engine.nudge_changed
  claim locks, takes, decides        engine.claim: the partitions "for no key update"; the counts and `visited` to `taken`, with the
                                     UPDATE of the workflows; the UPDATE of engine.queue_partition, with its `exists`
  janitor takes nudges, wakes        engine.look_again: `taken`; `told`, under the lock that "on conflict do update" takes
  janitor looks, marks               engine.look_again: the snapshot of `due`; what its UPDATE writes once the row is locked
  forget, reconcile                  FORGET_EMPTY; STRANDED and CAPPED in engine/queues.py

Only writers have transaction ids here: those of claims and janitors just put off the last look. Time is left out: what is due may be
looked at right away or after everything else.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

S = TypeVar("S")

NO_CAP = 99


class Explored(NamedTuple):
    """How many states there are, and the shortest way to one that is wrong: its moves, then what is wrong. Empty: there is none."""

    states: int
    way: list[str]


def explore(starts: Iterable[S], moves: Callable[[S], Iterable[tuple[str, S]]], wrong: Callable[[S], str | None]) -> Explored:
    """Visit every state that can be reached, those with few moves first, up to the first wrong one."""
    came_from: dict[S, tuple[S, str] | None] = dict.fromkeys(starts)
    left = deque(came_from)
    while left:
        state = left.popleft()
        if (what := wrong(state)) is not None:
            way = [what]
            while (step := came_from[state]) is not None:
                state, move = step
                way.append(move)
            return Explored(len(came_from), way[::-1])
        for move, then in moves(state):
            if then not in came_from:
                came_from[then] = (state, move)
                left.append(then)
    return Explored(len(came_from), [])


class Rules(NamedTuple):
    """Who takes part, and the form of the algorithm; the defaults of that are what schema.sql does."""

    jobs: str  # the status of each workflow at the beginning
    cap: int = NO_CAP
    claims: int = 1
    janitors: int = 1
    returns: int = 0  # how often one may be parked and woken, or cancelled and resumed
    #: When a writer reads whether the partition needs a nudge. "nudge first": and leaves it at once, before what it is about.
    check: Literal["later statement", "same snapshot", "nudge first"] = "later statement"
    nudge: Literal["if gated", "always", "never"] = "if gated"  # of one that makes room
    looks: int = 2
    counting: Literal["under the lock", "in the statement that locks", "without the lock"] = "under the lock"
    #: A claim counts the time to the first look from its own beginning: one that had to wait writes a time that has passed.
    claims_are_late: bool = False
    reconciles: bool = False


class Job(NamedTuple):
    """A workflow: '-' not there, Q queued, H at work, P parked, C cancelled, X ended; and what a transaction makes of it.

    by: who that is, 'claim 0' or a writer: 'saw' (it has looked, and writes next), 'check' (its trigger comes next), 'done'.
    """

    status: str
    becomes: str = ""
    by: str = ""
    nudges: bool = False
    xid: int = 0


class Claim(NamedTuple):
    """A claim on the partition; `held` is what it counted before it had the lock, `left` the room that it leaves under the cap."""

    at: Literal["idle", "counted", "locked", "took", "decided"] = "idle"
    held: int = 0
    left: int = 0
    letter: str = ""


class Janitor(NamedTuple):
    """One that looks again, and what it saw when it looked; its transaction ids only where they will be asked for."""

    at: Literal["idle", "took", "woke", "looked", "marked"] = "idle"
    saw_work: bool = False
    saw_full: bool = False
    xmin: int = 0
    xmax: int = 0
    writes: tuple[str, bool, int] | None = None


class World(NamedTuple):
    """A partition's row (`state` m: there is none), the nudges, its workflows, and everybody's place in what they do."""

    state: str
    is_due: bool
    check_xid: int  # 0: none
    is_nudged: bool
    next_xid: int
    jobs: tuple[Job, ...]
    claims: tuple[Claim, ...]
    janitors: tuple[Janitor, ...]
    returns: int


Moves = Iterator[tuple[str, World]]


def explore_partition(rules: Rules) -> Explored:
    """Never are more at work than the cap allows, and no workflow is queued where nobody will look; with reconciling, not in the end."""
    states = ("r",) if "Q" in rules.jobs else ("r", "m")
    jobs, claims, janitors = tuple(map(Job, sorted(rules.jobs))), (Claim(),) * rules.claims, (Janitor(),) * rules.janitors
    starts = [World(state, False, 0, False, 1, jobs, claims, janitors, rules.returns) for state in states]

    def wrong(s: World) -> str | None:
        if rules.reconciles and any(_moves(s, rules)):
            return None
        return _wrong(s, rules)

    return explore(starts, lambda s: ((move, _renumbered(then)) for move, then in _moves(s, rules)), wrong)


def _wrong(s: World, rules: Rules) -> str | None:
    held = _held(s)
    if held > rules.cap:
        return f"{held} at work under a cap of {rules.cap}"
    if s.state == "r" or (s.state == "g" and held >= rules.cap) or not _has_queued(s):
        return None
    is_quiet = not (s.is_nudged or s.is_due or any(j.by for j in s.jobs))
    if is_quiet and all(c.at == "idle" for c in s.claims) and all(j.at == "idle" for j in s.janitors):
        return f"stranded in {s.state}: queued, there is room, and nobody will look"
    return None


def _renumbered(s: World) -> World:
    """The same with the smallest transaction ids that keep their order, so that there are not more states than differences."""
    seen = {j.xid for j in s.jobs} | {s.check_xid, s.next_xid, 0}
    for janitor in s.janitors:
        seen |= {janitor.xmin, janitor.xmax, janitor.writes[2] if janitor.writes else 0}
    if len(seen) == s.next_xid + 1:
        return s
    rank = {xid: n for n, xid in enumerate(sorted(seen))}
    janitors = [
        j._replace(xmin=rank[j.xmin], xmax=rank[j.xmax], writes=j.writes and (*j.writes[:2], rank[j.writes[2]]))
        for j in s.janitors
    ]
    return s._replace(
        jobs=tuple(j._replace(xid=rank[j.xid]) for j in s.jobs),
        check_xid=rank[s.check_xid],
        next_xid=rank[s.next_xid],
        janitors=tuple(janitors),
    )


def _held(s: World) -> int:
    return sum(j.status == "H" for j in s.jobs)


def _has_queued(s: World) -> bool:
    return any(j.status == "Q" for j in s.jobs)


def _is_locked(s: World, rules: Rules) -> bool:
    return any(j.at in ("woke", "marked") for j in s.janitors) or (
        rules.counting != "without the lock" and any(c.at in ("locked", "took", "decided") for c in s.claims)
    )


def _swap(items: tuple[Any, ...], at: int, item: Any) -> tuple[Any, ...]:
    """The items with one changed, in an order of no meaning: who is who does not matter."""
    return tuple(sorted((*items[:at], item, *items[at + 1 :])))


def _write(s: World, written: tuple[str, bool, int], rules: Rules) -> World:
    """The partition's row as a commit leaves it.

    Who looked before that will see it changed, and not due yet; unless whoever changed it counted from long ago.
    """
    kept = s.janitors if rules.claims_are_late else (Janitor() if j.at == "looked" else j for j in s.janitors)
    return s._replace(state=written[0], is_due=written[1], check_xid=written[2], janitors=tuple(sorted(kept)))


def _moves(s: World, rules: Rules) -> Moves:
    for at, job in enumerate(s.jobs):
        if at == 0 or job != s.jobs[at - 1]:
            for move, then, changes in _writer_moves(s, job, rules):
                yield move, s._replace(jobs=_swap(s.jobs, at, then), **changes)
    for at, claim in enumerate(s.claims):
        yield from _claim_moves(s, at, claim, rules)
    for at, janitor in enumerate(s.janitors):
        if at == 0 or janitor != s.janitors[at - 1]:
            yield from _janitor_moves(s, at, janitor, rules)
    if s.state == "e" and not s.is_due and not _is_locked(s, rules):
        yield "forget", _write(s, ("m", False, 0), rules)
    is_stuck = s.state in ("e", "m") or (s.state == "g" and _held(s) < rules.cap)
    if rules.reconciles and is_stuck and not (s.is_due or s.is_nudged) and _has_queued(s):
        yield "reconcile", s._replace(is_nudged=True)


# -- writers --------------------------------------------------------------------------------------------------------------

#: What others make of a workflow that nobody has locked. To park or cancel uses up a return.
BECOMES = {"-": "Q", "H": "XPCQ", "P": "Q", "Q": "C", "C": "Q"}
VERBS = {
    "-Q": "enqueue",
    "HX": "end",
    "HP": "park",
    "HC": "cancel",
    "HQ": "take back",
    "PQ": "wake",
    "QC": "cancel",
    "CQ": "resume",
}
COSTS = ("HP", "HC", "HQ", "QC")


def _writer_moves(s: World, job: Job, rules: Rules) -> Iterator[tuple[str, Job, dict[str, Any]]]:
    """What is done to one workflow next: the move, the workflow after it, and what else changes."""
    if not job.by:
        for becomes in BECOMES.get(job.status, ""):
            what = job.status + becomes
            if (what in COSTS and not s.returns) or (job.status == "H" and rules.cap == NO_CAP):
                continue  # without a cap it makes no difference what becomes of it
            changes = {"returns": s.returns - 1} if what in COSTS else {}
            if rules.check == "later statement":
                then = job._replace(becomes=becomes, by="check", xid=s.next_xid)
                yield VERBS[what], then, {**changes, "next_xid": s.next_xid + 1}
            elif rules.check == "same snapshot":
                then = job._replace(becomes=becomes, by="saw", nudges=_nudges(s, what, rules))
                yield f"{VERBS[what]}: snapshot", then, changes
            else:
                changes["is_nudged"] = s.is_nudged or _nudges(s, what, rules)
                yield f"{VERBS[what]}: check and nudge", job._replace(becomes=becomes, by="saw"), changes
    elif job.by == "saw":
        yield VERBS[job.status + job.becomes], job._replace(by="done", xid=s.next_xid), {"next_xid": s.next_xid + 1}
    elif job.by == "check":
        what = job.status + job.becomes
        yield f"{VERBS[what]}: check", job._replace(by="done", nudges=_nudges(s, what, rules)), {}
    elif job.by == "done":
        yield f"{VERBS[job.status + job.becomes]}: commit", Job(job.becomes), {"is_nudged": s.is_nudged or job.nudges}
    if job.by in ("check", "done"):
        yield f"{VERBS[job.status + job.becomes]}: break off", Job(job.status), {}


def _nudges(s: World, what: str, rules: Rules) -> bool:
    """Whether this needs a nudge, as far as one can see now."""
    frees = what[0] == "H" and (rules.nudge == "always" or (rules.nudge == "if gated" and s.state == "g"))
    return frees or (what[1] == "Q" and s.state in ("e", "s", "m"))


# -- claims ---------------------------------------------------------------------------------------------------------------


def _claim_moves(s: World, at: int, c: Claim, rules: Rules) -> Moves:
    me = f"claim {at}"

    def now(then: Claim, **changes: Any) -> World:
        return s._replace(claims=(*s.claims[:at], then, *s.claims[at + 1 :]), **changes)

    def settled(status: str) -> tuple[Job, ...]:
        return tuple(sorted(Job(status or j.status) if j.by == me else j for j in s.jobs))

    if c.at == "idle" and s.state == "r":
        if rules.counting == "in the statement that locks":
            yield f"{me} counts", now(Claim("counted", _held(s)))
        elif not _is_locked(s, rules):
            yield f"{me} locks", now(Claim("locked"))
    elif c.at == "counted" and not _is_locked(s, rules):
        yield f"{me} locks", now(Claim("locked", c.held) if s.state == "r" else Claim())
    elif c.at == "locked":
        place = rules.cap - (c.held if rules.counting == "in the statement that locks" else _held(s))
        free = sum(j.status == "Q" and not j.by for j in s.jobs)
        for most in {free, min(free, 1)}:  # as it has room for
            then, jobs = _take(s, me, place, most)
            yield f"{me} takes", now(then, jobs=jobs)
    elif c.at == "took":
        more = any(j.status == "Q" and j.by != me for j in s.jobs)
        yield f"{me} decides", now(Claim("decided", letter=c.letter or ("g" if c.left <= 0 else "s" if more else "e")))
    elif c.at == "decided":
        is_due = c.letter == "s" or (c.letter in "eg" and rules.looks > 0)
        yield f"{me} commits {c.letter}", _write(now(Claim(), jobs=settled("H")), (c.letter, is_due, 0), rules)
    if c.at in ("locked", "took", "decided"):
        yield f"{me} breaks off", now(Claim(), jobs=settled(""))


def _take(s: World, me: str, place: int, most: int) -> tuple[Claim, tuple[Job, ...]]:
    """Where a claim with that much room stands, and the workflows, once it has taken what it can; nobody else has locked those."""
    taking, jobs = min(place, most), list(s.jobs)
    left = place - max(taking, 0)
    for n, j in enumerate(jobs):
        if taking > 0 and j.status == "Q" and not j.by:
            jobs[n], taking = Job("Q", "H", me), taking - 1
    is_sated = 0 < most < sum(j.status == "Q" and not j.by for j in s.jobs) and left > 0
    return Claim("took", left=left, letter="r" if is_sated else ""), tuple(sorted(jobs))


# -- janitors -------------------------------------------------------------------------------------------------------------


def _janitor_moves(s: World, at: int, j: Janitor, rules: Rules) -> Moves:
    def now(then: Janitor, **changes: Any) -> World:
        return s._replace(janitors=_swap(s.janitors, at, then), **changes)

    if j.at == "idle":
        if s.is_nudged:
            yield "janitor takes nudges", now(Janitor("took"), is_nudged=False)
        if s.is_due:
            xmin = min((job.xid for job in s.jobs if job.xid), default=s.next_xid) if s.check_xid or rules.claims_are_late else 0
            xmax = s.next_xid if s.check_xid == 0 or rules.claims_are_late else 0
            yield "janitor looks", now(Janitor("looked", _has_queued(s), _held(s) >= rules.cap, xmin, xmax))
    elif j.at == "took":
        if not _is_locked(s, rules):
            yield "janitor wakes", now(Janitor("woke", writes=None if s.state == "r" else ("r", False, 0)))
        yield "janitor breaks off", now(Janitor(), is_nudged=True)
    elif j.at == "woke":
        yield "janitor commits r", now(Janitor()) if j.writes is None else _write(now(Janitor()), j.writes, rules)
        yield "janitor breaks off", now(Janitor(), is_nudged=True)
    elif j.at == "looked":
        if _is_locked(s, rules) or not s.is_due:
            yield "janitor passes on", now(Janitor())
        else:
            yield "janitor marks", now(Janitor("marked", writes=_mark(s, j, rules)))
    else:
        assert j.writes is not None
        yield f"janitor commits {j.writes[0]}, {'due' if j.writes[1] else 'final'}", _write(now(Janitor()), j.writes, rules)
        yield "janitor breaks off", now(Janitor())


def _mark(s: World, j: Janitor, rules: Rules) -> tuple[str, bool, int]:
    """What a look makes of the partition: (state, is_due, check_xid)."""
    stays = (s.state == "e" and not j.saw_work) or (s.state == "g" and j.saw_full)
    if not stays:
        return "r", False, 0
    if s.check_xid == 0 and rules.looks > 1:
        return s.state, True, j.xmax
    return (s.state, True, s.check_xid) if j.xmin < s.check_xid else (s.state, False, 0)
