//! Whose a notification is, and what it means for the agent.
//!
//! A service is an agent by its main process: the one that it names (`MAINPID`), or else the first that speaks for it.
//! What descends from the main process speaks for the same service; but if such a process says that it is ready or
//! stops, it means itself. A process that has just been started may be a tool that speaks for its parent, as
//! systemd-notify does: it is one if it ends well within [`SETTLES_AFTER`], and a service of its own if it is still
//! there by then.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::beat::Notification;
use crate::domain::process::ExitStatus;
use crate::domain::service_message::ServiceMessage;
use crate::ingest::notify::kin::Kin;
use crate::ingest::notify::service::Service;
use crate::ingest::recvmmsg::Credentials;

/// The time after which a process that lives is no tool; and for which what is still to be read of a process that has
/// ended is taken for its own.
pub(super) const SETTLES_AFTER: Duration = Duration::from_secs(1);
/// The most services. Each takes a descriptor.
pub(super) const MAX_SERVICES: usize = 8_192;
/// The most processes of which it is not known yet whether they are services, and the most messages of each.
pub(super) const MAX_UNSETTLED: usize = 1_024;
pub(super) const MAX_HELD: usize = 16;
/// The most processes that may take the place of a service's main process.
pub(super) const MAX_HEIRS: usize = 16;
/// The most processes whose ancestors are remembered, and for how long.
const MAX_LINEAGES: usize = 4_096;
const LINEAGE_HOLDS: Duration = Duration::from_secs(1);
/// Process 1 of the server's namespace, which adopts what others leave.
const INIT: u32 = 1;

/// What becomes of a message.
#[derive(Debug, PartialEq)]
pub(super) enum Fate {
    /// The agent that is this process says this, at this time.
    Said(u32, MonoTime, Notification),
    /// It has no effect on any agent.
    Passed,
    /// It is not known for which service it speaks.
    Unattributed,
    /// There is no room for one more service.
    NoRoom,
}

/// A process that may be a tool.
#[derive(Debug)]
struct Unsettled {
    settles_at: MonoTime,
    /// As they were when its first message was read.
    lineage: Lineage,
    cgroup: Option<String>,
    held: Vec<(MonoTime, ServiceMessage)>,
}

/// What a process descends from, as of a time.
#[derive(Clone, Copy, Debug)]
struct Lineage {
    parent: Option<u32>,
    /// The nearest ancestor that is a service.
    service: Option<u32>,
    at: MonoTime,
}

/// All services that speak sd_notify(3).
#[derive(Debug)]
pub(super) struct Bridge<K> {
    kin: K,
    services: HashMap<u32, Service>,
    unsettled: HashMap<u32, Unsettled>,
    /// The service of each process that may take the place of its main process.
    heirs: HashMap<u32, u32>,
    lineages: HashMap<u32, Lineage>,
    refused_main_pids: u64,
    /// Of services that ended right after their start, which have the exit status.
    pidfds: Vec<(u32, OwnedFd)>,
}

impl<K: Kin> Bridge<K> {
    pub(super) fn new(kin: K) -> Self {
        Bridge {
            kin,
            services: HashMap::new(),
            unsettled: HashMap::new(),
            heirs: HashMap::new(),
            lineages: HashMap::new(),
            refused_main_pids: 0,
            pidfds: Vec::new(),
        }
    }

    pub(super) fn kin(&mut self) -> &mut K {
        &mut self.kin
    }

    /// The number of services whose main process is there.
    pub(super) fn len(&self) -> usize {
        self.services.values().filter(|service| service.ended_at.is_none()).count()
    }

    /// How often a process was named as main process that is no kin of who named it, since the last call.
    pub(super) fn take_refused_main_pids(&mut self) -> u64 {
        mem::take(&mut self.refused_main_pids)
    }

    /// The pidfds of services that ended right after their start.
    pub(super) fn take_pidfds(&mut self) -> Vec<(u32, OwnedFd)> {
        mem::take(&mut self.pidfds)
    }

    /// When [`Bridge::settle`] is due.
    pub(super) fn next_due(&self) -> Option<MonoTime> {
        let forgets = |service: &Service| service.ended_at.map(|ended_at| ended_at + SETTLES_AFTER);
        let settles = self.unsettled.values().map(|unsettled| unsettled.settles_at);
        settles.chain(self.services.values().filter_map(forgets)).min()
    }

    /// Takes over a service that was known before this server started. `within` is the time within which its
    /// keep-alives are awaited.
    pub(super) fn know(&mut self, pid: u32, within: Option<Duration>, now: MonoTime) {
        if self.services.len() < MAX_SERVICES && self.kin.watch(pid, None) {
            let cgroup = self.kin.cgroup(pid);
            self.services.entry(pid).or_insert_with(|| Service::new(pid, within, cgroup, now));
        }
    }

    /// Handles a message. `pidfd` is that of the sender, where the kernel gave it.
    pub(super) fn handle(
        &mut self,
        sender: &Credentials,
        pidfd: Option<OwnedFd>,
        message: ServiceMessage,
        now: MonoTime,
    ) -> Vec<Fate> {
        let pid = sender.pid;
        if message.is_empty() {
            return vec![Fate::Passed];
        }
        if let Some(named) = message.main_pid {
            match self.main_process(sender, named) {
                Some(main) => return self.handle_named(main, pid, pidfd, &message, now),
                None => self.refused_main_pids += 1,
            }
        }
        if self.services.contains_key(&pid) {
            return vec![self.apply(pid, &message, now)];
        }
        if self.unsettled.contains_key(&pid) {
            return self.hold(pid, message, now);
        }
        let lineage = self.lineage(pid, now);
        if let Some(main) = lineage.service
            && !message.is_ready
            && !message.is_stopping
        {
            return vec![self.apply(main, &message, now)];
        }
        if lineage.service.is_none() && !message.is_of_service() {
            let cgroup = self.kin.cgroup(pid);
            return vec![self.apply_by_cgroup(cgroup.as_deref(), &message, now)];
        }
        if self.kin.age(pid).is_none_or(|age| age < SETTLES_AFTER) {
            return self.begin_holding(pid, pidfd, lineage, message, now);
        }
        vec![self.take_as_itself(pid, pidfd, lineage.service, &message, now)]
    }

    /// Handles the end of a process that is watched.
    pub(super) fn handle_end(&mut self, pid: u32, now: MonoTime) -> Vec<Fate> {
        let end = self.kin.end_of(pid);
        let pidfd = self.kin.unwatch(pid);
        if let Some(main) = self.heirs.remove(&pid)
            && let Some(service) = self.services.get_mut(&main)
        {
            service.heirs.retain(|heir| *heir != pid);
        }
        let unsettled = self.unsettled.remove(&pid);
        if let Some(service) = self.services.get_mut(&pid) {
            // What it has sent before may not have been read.
            service.ended_at = Some(now);
            let heirs = mem::take(&mut service.heirs);
            let held = unsettled.into_iter().flat_map(|unsettled| unsettled.held);
            let mut fates: Vec<_> = held.map(|(at, said)| self.apply(pid, &said, at)).collect();
            fates.extend(self.succeed(heirs, now));
            return fates;
        }
        unsettled.map(|unsettled| self.end_unsettled(pid, pidfd, unsettled, end)).unwrap_or_default()
    }

    /// Decides on processes that may have been tools, by the time.
    pub(super) fn settle(&mut self, now: MonoTime) -> Vec<Fate> {
        self.services
            .retain(|_, service| service.ended_at.is_none_or(|ended_at| now < ended_at + SETTLES_AFTER));
        let due = self.unsettled.iter().filter(|(_, unsettled)| unsettled.settles_at <= now);
        let due: Vec<_> = due.map(|(pid, _)| *pid).collect();
        due.into_iter().flat_map(|pid| self.settle_one(pid, now)).collect()
    }

    /// Decides on all of them now: another server goes on.
    pub(super) fn settle_all(&mut self, now: MonoTime) -> Vec<Fate> {
        let all: Vec<_> = self.unsettled.keys().copied().collect();
        all.into_iter().flat_map(|pid| self.settle_one(pid, now)).collect()
    }

    fn settle_one(&mut self, pid: u32, now: MonoTime) -> Vec<Fate> {
        if self.kin.end_of(pid).is_some() {
            return self.handle_end(pid, now);
        }
        let Some(Unsettled { lineage, held, .. }) = self.unsettled.remove(&pid) else { return Vec::new() };
        let service = lineage.service.filter(|service| self.services.contains_key(service));
        held.into_iter().map(|(at, said)| self.take_as_itself(pid, None, service, &said, at)).collect()
    }

    /// A message of a process that is no tool: of a new service, or of a part of one.
    fn take_as_itself(
        &mut self,
        pid: u32,
        pidfd: Option<OwnedFd>,
        beneath: Option<u32>,
        message: &ServiceMessage,
        at: MonoTime,
    ) -> Fate {
        match beneath {
            None => self.apply_or_register(pid, pidfd, message, at),
            Some(main) => {
                self.note_heir(pid, pidfd, main, message);
                self.apply(
                    main,
                    &ServiceMessage { is_ready: false, is_stopping: false, ..message.clone() },
                    at,
                )
            }
        }
    }

    /// Holds a message back until it is known whether its sender is a tool.
    fn begin_holding(
        &mut self,
        pid: u32,
        pidfd: Option<OwnedFd>,
        lineage: Lineage,
        message: ServiceMessage,
        now: MonoTime,
    ) -> Vec<Fate> {
        if self.unsettled.len() >= MAX_UNSETTLED {
            return vec![Fate::NoRoom];
        }
        let cgroup = self.kin.cgroup(pid);
        let is_there = self.kin.watch(pid, pidfd);
        let settles_at = now + SETTLES_AFTER;
        self.unsettled.insert(pid, Unsettled { settles_at, lineage, cgroup, held: vec![(now, message)] });
        if is_there { Vec::new() } else { self.handle_end(pid, now) }
    }

    fn hold(&mut self, pid: u32, message: ServiceMessage, now: MonoTime) -> Vec<Fate> {
        match self.unsettled.get_mut(&pid) {
            Some(unsettled) if unsettled.held.len() < MAX_HELD => {
                unsettled.held.push((now, message));
                Vec::new()
            }
            Some(_) | None => vec![Fate::NoRoom],
        }
    }

    /// The messages of a process that has ended soon after its start.
    fn end_unsettled(
        &mut self,
        pid: u32,
        pidfd: Option<OwnedFd>,
        unsettled: Unsettled,
        end: Option<ExitStatus>,
    ) -> Vec<Fate> {
        let Unsettled { lineage, cgroup, held, settles_at } = unsettled;
        let ended_well = matches!(end, None | Some(ExitStatus::Exited { code: 0 } | ExitStatus::Unknown));
        let service = lineage.service.filter(|service| self.services.contains_key(service));
        if !ended_well && service.is_none() {
            // A service that could not be started, or ended at once.
            let fates =
                held.into_iter().map(|(at, said)| self.apply_or_register(pid, None, &said, at)).collect();
            if let Some(service) = self.services.get_mut(&pid) {
                service.ended_at = Some(settles_at);
            }
            self.kin.unwatch(pid);
            self.pidfds.extend(pidfd.map(|pidfd| (pid, pidfd)));
            return fates;
        }
        let may_be_meant = |parent: &u32| *parent > INIT && *parent != std::process::id();
        let parent = lineage.parent.filter(may_be_meant).filter(|parent| self.kin.watch(*parent, None));
        let meant = service.or(parent);
        let apply = |(at, said): (MonoTime, ServiceMessage)| match meant {
            Some(main) => self.apply_or_register(main, None, &said, at),
            None => self.apply_by_cgroup(cgroup.as_deref(), &said, at),
        };
        held.into_iter().map(apply).collect()
    }

    /// A message of a process of which only the cgroup is known: it speaks for the service there, if there is one
    /// and no more.
    fn apply_by_cgroup(&mut self, cgroup: Option<&str>, message: &ServiceMessage, at: MonoTime) -> Fate {
        let Some(cgroup) = cgroup else { return Fate::Unattributed };
        let mut there = self.services.iter().filter(|(_, service)| service.cgroup.as_deref() == Some(cgroup));
        match (there.next().map(|(main, _)| *main), there.next()) {
            (Some(main), None) => self.apply(main, message, at),
            _ => Fate::Unattributed,
        }
    }

    fn apply_or_register(
        &mut self,
        pid: u32,
        pidfd: Option<OwnedFd>,
        message: &ServiceMessage,
        at: MonoTime,
    ) -> Fate {
        if !self.services.contains_key(&pid) {
            if self.services.len() >= MAX_SERVICES {
                return Fate::NoRoom;
            }
            self.kin.watch(pid, pidfd);
            self.unsettled.remove(&pid);
            let (within, cgroup) = (self.kin.keep_alives_within(pid), self.kin.cgroup(pid));
            self.services.insert(pid, Service::new(pid, within, cgroup, at));
        }
        self.apply(pid, message, at)
    }

    fn apply(&mut self, main: u32, message: &ServiceMessage, at: MonoTime) -> Fate {
        match self.services.get_mut(&main) {
            Some(service) => Fate::Said(main, at, service.say(message, at)),
            None => Fate::Unattributed,
        }
    }

    /// A message that names `main` as the main process of its service.
    fn handle_named(
        &mut self,
        main: u32,
        sender: u32,
        pidfd: Option<OwnedFd>,
        message: &ServiceMessage,
        now: MonoTime,
    ) -> Vec<Fate> {
        let mut fates = Vec::new();
        if main != sender
            && !self.services.contains_key(&main)
            && let Some(mut former) = self.services.remove(&sender)
        {
            // It says itself that another process is the one to watch.
            self.kin.unwatch(sender);
            let leaves = ServiceMessage { is_stopping: true, ..ServiceMessage::default() };
            let left = Notification { is_derived: true, ..former.say(&leaves, now) };
            fates.push(Fate::Said(sender, now, left));
        }
        let pidfd = pidfd.filter(|_| main == sender);
        fates.push(self.apply_or_register(main, pidfd, message, now));
        fates
    }

    /// The process that a sender may name as its main process: itself, or one of the same user that is related to it
    /// by descent or by its cgroup.
    fn main_process(&mut self, sender: &Credentials, named: u32) -> Option<u32> {
        let main = self.kin.resolve(sender.pid, named)?;
        if main == sender.pid {
            return Some(main);
        }
        let is_same_user = sender.uid == 0 || self.kin.uid(main) == Some(sender.uid);
        if main <= INIT || main == std::process::id() || !is_same_user {
            return None;
        }
        let is_kin = self.kin.ancestors(sender.pid).contains(&main)
            || self.kin.ancestors(main).contains(&sender.pid)
            || self.kin.cgroup(sender.pid).is_some_and(|own| self.kin.cgroup(main) == Some(own));
        is_kin.then_some(main)
    }

    fn lineage(&mut self, pid: u32, now: MonoTime) -> Lineage {
        if let Some(known) = self.lineages.get(&pid)
            && now.since(known.at) < LINEAGE_HOLDS
            && known.service.is_none_or(|service| self.services.contains_key(&service))
        {
            return *known;
        }
        let ancestors = self.kin.ancestors(pid);
        let service = ancestors.iter().copied().find(|ancestor| self.services.contains_key(ancestor));
        let lineage = Lineage { parent: ancestors.first().copied(), service, at: now };
        if self.lineages.len() >= MAX_LINEAGES {
            self.lineages.clear();
        }
        // One that is beneath no service may come to be beneath one with the next message.
        if service.is_some() {
            self.lineages.insert(pid, lineage);
        }
        lineage
    }

    /// Notes that a part of a service may take the place of its main process, or will not any more.
    fn note_heir(&mut self, pid: u32, pidfd: Option<OwnedFd>, main: u32, message: &ServiceMessage) {
        let Some(service) = self.services.get_mut(&main) else { return };
        let is_heir = service.heirs.contains(&pid);
        if message.is_stopping && is_heir {
            service.heirs.retain(|heir| *heir != pid);
            self.heirs.remove(&pid);
            self.kin.unwatch(pid);
        } else if message.is_ready
            && !is_heir
            && service.heirs.len() < MAX_HEIRS
            && self.kin.watch(pid, pidfd)
        {
            service.heirs.push(pid);
            self.heirs.insert(pid, main);
        }
    }

    /// Has the first of these that lives take the place of a main process that has ended.
    fn succeed(&mut self, heirs: Vec<u32>, now: MonoTime) -> Option<Fate> {
        heirs.iter().for_each(|heir| _ = self.heirs.remove(heir));
        let mut living = heirs.into_iter().filter(|heir| self.kin.end_of(*heir).is_none());
        let main = living.next()?;
        let others: Vec<_> = living.collect();
        let is_ready = ServiceMessage { is_ready: true, ..ServiceMessage::default() };
        let fate = match self.apply_or_register(main, None, &is_ready, now) {
            Fate::Said(pid, at, said) => Fate::Said(pid, at, Notification { is_derived: true, ..said }),
            Fate::Passed | Fate::Unattributed | Fate::NoRoom => return None,
        };
        if let Some(service) = self.services.get_mut(&main) {
            others.iter().for_each(|heir| _ = self.heirs.insert(*heir, main));
            service.heirs = others;
        }
        Some(fate)
    }
}
