"""The supervisor's decisions, by example: time is an argument, nothing runs."""

from __future__ import annotations

from ops.supervisor.core import SupervisorCore
from ops.supervisor.events import (
    Adopted,
    AllReady,
    Done,
    Effect,
    Event,
    Exited,
    Inspect,
    Inspected,
    Kill,
    Note,
    Observed,
    Ready,
    Serving,
    Start,
    Started,
    StartFailed,
    StartZygote,
    StopRequested,
    Terminate,
    Tick,
    ZygoteLost,
    ZygoteUp,
)
from ops.supervisor.limits import SupervisionLimits
from ops.supervisor.spec import ProcessSpec

LIMITS = SupervisionLimits()


def spec(name: str, *, role: str = "toy", standby: bool = False, stop_stage: int = 0) -> ProcessSpec:
    return ProcessSpec(
        name=name, role=role, entry="", config_type="", config=b"", standby=standby, stop_stage=stop_stage
    )


class Driver:
    """A core and a clock; notes are kept apart."""

    def __init__(self, *specs: ProcessSpec, kill_hung: bool = True) -> None:
        self.core = SupervisorCore(specs, LIMITS, kill_hung=kill_hung)
        self.now_ms = 1000
        self.notes: list[str] = []

    def step(self, event: Event, after_ms: int = 0) -> list[Effect]:
        effects: list[Effect] = []
        for _ in range(after_ms // 1000):
            self.now_ms += 1000
            effects += self.core.step(Tick(), self.now_ms)
        self.now_ms += after_ms % 1000
        effects += self.core.step(event, self.now_ms)
        self.notes += [effect.text for effect in effects if isinstance(effect, Note)]
        return [effect for effect in effects if not isinstance(effect, Note)]

    def start(self) -> Driver:
        """Bring everything up to ready; standbys but the first serve."""
        self.step(Tick())
        self.step(ZygoteUp())
        led = set()
        for status in self.core.statuses():
            self.step(Started(status.name, 100))
            standby = self.core._processes[status.name].standby
            self.step(Serving(status.name) if standby and status.role in led else Ready(status.name))
            led.add(status.role)
        assert self.core.ready()
        return self

    def state(self, name: str) -> str:
        return next(status.state for status in self.core.statuses() if status.name == name)

    def watch(self, name: str, ms: int, *, beats: int, stopped: bool = False, excused: bool = False) -> list[Effect]:
        """Look at a counter that stands still, every 250 ms, answering what is asked; stop at the first effect."""
        for _ in range(ms // 250):
            effects = self.step(Observed(name, beats), 250)
            if effects == [Inspect(name)]:
                effects = self.step(Inspected(name, stopped, excused))
            if effects:
                return effects
        return []


def test_processes_start_once_the_zygote_can_fork() -> None:
    driver = Driver(spec("a"), spec("b"))
    assert driver.step(Tick()) == [StartZygote()]
    assert driver.step(Tick(), 100) == []
    assert driver.step(ZygoteUp()) == [Start("a"), Start("b")]
    assert driver.step(Started("a", 1)) == []
    assert driver.step(Ready("a")) == []
    driver.step(Started("b", 2))
    assert driver.step(Ready("b")) == [AllReady()]


def test_one_standby_of_a_role_being_ready_is_enough() -> None:
    driver = Driver(spec("c1", role="controller", standby=True), spec("c2", role="controller", standby=True))
    driver.step(Tick())
    driver.step(ZygoteUp())
    for name in ("c1", "c2"):
        driver.step(Started(name, 1))
        assert driver.step(Serving(name)) == []
    assert not driver.core.ready()
    assert driver.step(Ready("c2")) == [AllReady()]


def test_first_restart_of_a_process_that_served_is_at_once_and_those_after_it_back_off() -> None:
    driver = Driver(spec("a")).start()
    assert driver.step(Exited("a"), LIMITS.settled_ms) == [Start("a")]
    delays = []
    for _ in range(8):
        driver.step(Started("a", 1))
        assert driver.step(Exited("a")) == []
        waited = 0
        while driver.step(Tick(), 50) != [Start("a")]:
            waited += 50
        delays.append(waited + 50)
    assert delays == [100, 200, 400, 800, 1600, 3200, 5000, 5000]
    assert driver.core.restarts("a") == 9


def test_deadline_is_no_later_than_the_next_restart() -> None:
    driver = Driver(spec("a")).start()
    for _ in range(2):
        driver.step(Exited("a"))
        driver.step(Started("a", 1))
    driver.step(Exited("a"))
    assert driver.core.next_deadline_ms(driver.now_ms) - driver.now_ms <= LIMITS.back_off_ms * 2


def test_permanent_failure_before_all_were_ready_ends_the_start_with_its_reason() -> None:
    driver = Driver(spec("a"), spec("b"))
    driver.step(Tick())
    driver.step(ZygoteUp())
    driver.step(Started("a", 1))
    driver.step(Started("b", 2))
    assert driver.step(Exited("a", "log.dirs=x: no such disk", permanent=True)) == [Terminate("b")]
    assert driver.step(Exited("b")) == [Done("a: log.dirs=x: no such disk")]


def test_process_that_dies_three_times_at_the_start_ends_the_start() -> None:
    driver = Driver(spec("a"))
    driver.step(Tick())
    driver.step(ZygoteUp())
    for _ in range(2):
        driver.step(Started("a", 1))
        driver.step(Exited("a", "boom"))
        driver.step(Tick(), LIMITS.back_off_ms)
    driver.step(Started("a", 1))
    assert driver.step(Exited("a", "boom")) == [Done("a: boom")]


def test_permanent_failure_later_is_retried() -> None:
    driver = Driver(spec("a"), spec("b")).start()
    assert driver.step(Exited("a", "bad", permanent=True), 5000) == [Start("a")]
    assert driver.state("b") == "running"


def test_failure_beside_adopted_processes_does_not_end_them() -> None:
    driver = Driver(spec("a"), spec("b"))
    driver.step(Adopted("a", 7, 2, ready=True, serving=True, keep=True))
    driver.step(ZygoteUp())
    driver.step(Started("b", 1))
    driver.step(Exited("b", "bad", permanent=True))
    assert driver.state("a") == "running"
    assert not driver.core.stopping


def test_adopted_process_of_another_configuration_is_ended_then_started() -> None:
    driver = Driver(spec("a"))
    assert driver.step(Adopted("a", 7, 2, ready=True, serving=True, keep=False)) == [Terminate("a"), StartZygote()]
    driver.step(ZygoteUp())
    assert driver.step(Exited("a")) == [Start("a")]
    assert driver.core.restarts("a") == 2


def test_adopted_process_that_does_not_end_is_killed() -> None:
    driver = Driver(spec("a"))
    driver.step(Adopted("a", 7, 0, ready=False, serving=False, keep=False))
    driver.step(ZygoteUp())
    assert driver.step(Tick(), LIMITS.stop_ms - 1) == []
    assert driver.step(Tick(), 1) == [Kill("a")]


def test_adopted_process_nobody_asks_for_is_ended_and_forgotten() -> None:
    driver = Driver(spec("a")).start()
    assert driver.step(Adopted("broker-9", 7, 0, ready=True, serving=True, keep=False)) == [Terminate("broker-9")]
    assert driver.core.ready()
    assert driver.step(Exited("broker-9")) == []
    assert [status.name for status in driver.core.statuses()] == ["a"]


def test_process_without_progress_is_killed_and_started_anew() -> None:
    driver = Driver(spec("a")).start()
    driver.step(Observed("a", 5))
    assert driver.watch("a", LIMITS.hung_ms - 250, beats=5) == []
    assert driver.watch("a", 2000, beats=5) == [Kill("a")]
    assert driver.step(Exited("a")) == [Start("a")]
    assert any("no progress" in note for note in driver.notes)


def test_process_that_makes_progress_is_left_alone() -> None:
    driver = Driver(spec("a")).start()
    for beats in range(100):
        assert driver.step(Observed("a", beats), 900) == []


def test_slow_disk_or_debugger_excuses_for_a_while() -> None:
    driver = Driver(spec("a")).start()
    driver.step(Observed("a", 5))
    assert driver.watch("a", LIMITS.excused_ms - 500, beats=5, excused=True) == []
    assert driver.watch("a", 2000, beats=5, excused=True) == [Kill("a")]


def test_process_that_recovers_may_take_longer_but_not_if_it_is_stopped() -> None:
    driver = Driver(spec("a"))
    driver.step(Tick())
    driver.step(ZygoteUp())
    driver.step(Started("a", 1))
    driver.step(Observed("a", 1))
    assert driver.watch("a", LIMITS.starting_hung_ms - 1000, beats=1) == []
    assert driver.watch("a", 2000, beats=1, stopped=True) == [Kill("a")]


def test_each_kill_for_hanging_makes_the_supervisor_more_patient() -> None:
    driver = Driver(spec("a")).start()
    waits = []
    for _ in range(3):
        driver.step(Observed("a", 5))
        began = driver.now_ms
        assert driver.watch("a", 120_000, beats=5) == [Kill("a")]
        waits.append((driver.now_ms - began) // LIMITS.hung_ms)
        driver.step(Exited("a"))
        driver.step(Tick(), 5000)
        driver.step(Started("a", 1))
        driver.step(Ready("a"))
    assert waits == [1, 2, 4]


def test_no_kill_hung_leaves_it_alone() -> None:
    driver = Driver(spec("a"), kill_hung=False).start()
    driver.step(Observed("a", 5))
    assert driver.watch("a", 60_000, beats=5, stopped=True) == []


def test_supervisor_that_was_stopped_itself_blames_nobody() -> None:
    driver = Driver(spec("a")).start()
    driver.step(Observed("a", 5))
    driver.now_ms += 3_600_000
    assert driver.step(Observed("a", 5)) == []
    assert driver.watch("a", LIMITS.hung_ms - 500, beats=5) == []


def test_lost_zygote_is_replaced_and_pending_starts_are_asked_again() -> None:
    driver = Driver(spec("a"), spec("b")).start()
    driver.step(Exited("a"), 3000)
    assert driver.step(ZygoteLost("SIGKILL")) == [StartZygote()]
    assert driver.state("b") == "running"
    assert driver.step(ZygoteUp()) == [Start("a")]


def test_zygote_that_does_not_fork_is_replaced_and_asked_again() -> None:
    driver = Driver(spec("a"))
    driver.step(Tick())
    assert driver.step(ZygoteUp()) == [Start("a")]
    assert driver.step(Tick(), LIMITS.hung_ms - 1000) == []
    assert driver.step(Tick(), 1000) == [StartZygote()]
    assert "does not answer" in driver.notes[-1]
    assert driver.step(ZygoteUp()) == [Start("a")]


def test_zygote_that_does_not_answer_is_replaced() -> None:
    driver = Driver(spec("a"))
    assert driver.step(Tick()) == [StartZygote()]
    assert driver.step(Tick(), LIMITS.starting_hung_ms - 1) == []
    assert driver.step(Tick(), 1) == [StartZygote()]


def test_module_that_can_not_be_imported_ends_the_start() -> None:
    driver = Driver(spec("a"))
    driver.step(Tick())
    assert driver.step(ZygoteLost("can't import x", permanent=True)) == [Done("can't import x")]


def test_fork_that_fails_is_tried_again() -> None:
    driver = Driver(spec("a")).start()
    driver.step(Exited("a"), 3000)
    driver.step(StartFailed("a", "no memory"))
    assert driver.step(Tick(), LIMITS.back_off_ms) == [Start("a")]


def test_shutdown_goes_stage_by_stage() -> None:
    driver = Driver(spec("gateway"), spec("broker", stop_stage=1), spec("controller", stop_stage=2)).start()
    assert driver.step(StopRequested()) == [Terminate("gateway")]
    assert driver.step(Exited("gateway")) == [Terminate("broker")]
    assert driver.step(Exited("broker")) == [Terminate("controller")]
    assert driver.step(Exited("controller")) == [Done()]


def test_each_stage_of_the_shutdown_is_bounded() -> None:
    driver = Driver(spec("gateway"), spec("broker", stop_stage=1)).start()
    driver.step(StopRequested())
    assert driver.step(Tick(), LIMITS.stop_ms) == [Kill("gateway")]
    assert driver.step(Exited("gateway")) == [Terminate("broker")]
    assert driver.step(Tick(), LIMITS.stop_ms - 1) == []
    assert driver.step(Tick(), 1) == [Kill("broker")]
    assert driver.step(Exited("broker")) == [Done()]


def test_second_request_to_stop_kills_at_once() -> None:
    driver = Driver(spec("gateway"), spec("broker", stop_stage=1)).start()
    driver.step(StopRequested())
    assert driver.step(StopRequested()) == [Kill("gateway")]
    assert driver.step(Exited("gateway")) == [Terminate("broker"), Kill("broker")]


def test_process_that_not_even_a_kill_ends_is_named() -> None:
    driver = Driver(spec("a")).start()
    driver.step(StopRequested())
    driver.step(Tick(), LIMITS.stop_ms)
    (done,) = driver.step(Tick(), LIMITS.killed_ms)
    assert isinstance(done, Done)
    assert "a (100)" in done.failure


def test_process_that_was_being_forked_at_the_stop_is_ended_too() -> None:
    driver = Driver(spec("a")).start()
    driver.step(Exited("a"), 3000)
    assert driver.step(StopRequested()) == []
    assert driver.step(Started("a", 9)) == [Terminate("a")]
    assert driver.step(Exited("a")) == [Done()]
