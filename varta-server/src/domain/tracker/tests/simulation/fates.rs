//! Fates: what agents do, and what happens to them.

use crate::domain::tracker::tests::simulation::reference::STATUSES;
use crate::domain::tracker::tests::simulation::worker::State;
use crate::domain::tracker::tests::simulation::world::{Event, Simulation};
use crate::domain::tracker::tests::*;

impl Simulation {
    pub(super) fn wake(&mut self, agent: usize, handle: u32) {
        let worker = &mut self.workers[agent];
        if worker.handle != handle {
            return;
        }
        let next = match worker.state {
            State::Away => return,
            State::Paused(until) if until > self.now => until,
            State::Paused(_) | State::Beating => {
                worker.state = State::Beating;
                let beat = worker.beat(self.now);
                let arrivals = worker.link.carry(&mut worker.chance, self.now);
                let next = worker.next_wake(self.now);
                for at in arrivals.into_iter().flatten() {
                    self.plan(at, Event::Beat { beat, handle });
                }
                next
            }
        };
        self.plan(next, Event::Wake { agent, handle });
    }

    pub(super) fn decide_fate(&mut self, agent: usize) {
        let now = self.now;
        let worker = &mut self.workers[agent];
        if worker.state == State::Away && !worker.may_connect(now) {
            return;
        }
        if worker.state == State::Away {
            // A process in its place, or the same process with a new handle.
            if worker.chance.happens(0.7) && self.processes.processes.contains_key(&worker.sender.pid) {
                worker.connect(now);
            } else {
                worker.start_time = worker.start_time.map(|start_time| start_time + 1);
                worker.connect(now);
                let worker = worker.clone();
                self.spawn(&worker);
            }
            let handle = self.workers[agent].handle;
            self.plan(now, Event::Wake { agent, handle });
            return;
        }
        let fate = worker.chance.below(10);
        worker.undisturbed &= fate >= 9;
        match fate {
            0 | 1 => {
                let until = now + worker.chance.millis(0, 9_000);
                worker.state = State::Paused(until);
            }
            2 => {
                let signal = ExitStatus::Killed { signal: 9, core_dumped: false };
                let death = worker.chance.one_of(&[
                    signal,
                    ExitStatus::Exited { code: 0 },
                    ExitStatus::Exited { code: 3 },
                ]);
                self.crash(agent, death);
            }
            3 | 4 => {
                let control = worker.goodbye(now);
                let handle = worker.handle;
                worker.state = State::Away;
                let arrivals = worker.link.carry(&mut worker.chance, now);
                let ends = worker.chance.happens(0.5);
                for at in arrivals.into_iter().flatten() {
                    self.plan(at, Event::Control { control: control.clone(), handle });
                }
                if ends {
                    self.crash(agent, ExitStatus::Exited { code: 1 });
                }
            }
            5 if worker.may_connect(now) => {
                worker.connect(now);
                let handle = worker.handle;
                self.plan(now, Event::Wake { agent, handle });
            }
            6 => {
                let control = worker.hello(now);
                let (at, handle) = (worker.link.carry_last(now), worker.handle);
                self.plan(at, Event::Control { control, handle });
            }
            7 => {
                let (beat, handle) = (worker.last_word(now), worker.handle);
                for at in worker.link.carry(&mut worker.chance, now).into_iter().flatten() {
                    self.plan(at, Event::Beat { beat, handle });
                }
                self.crash(agent, ExitStatus::Exited { code: 101 });
            }
            _ => worker.status = worker.chance.one_of(&STATUSES),
        }
    }

    /// Ends the process of an agent. Mostly the tracker gets the exit of a local process, after all that it
    /// sent.
    fn crash(&mut self, agent: usize, death: ExitStatus) {
        let worker = &mut self.workers[agent];
        worker.state = State::Away;
        let pid = worker.sender.pid;
        let Some(start_time) = worker.start_time else { return };
        self.processes.processes.remove(&pid);
        if worker.chance.happens(0.8) {
            let at = worker.link.carry_last(self.now) + worker.chance.millis(0, 200);
            self.plan(at, Event::Death { pid, start_time, death });
        }
    }
}
