//! Tests of the exit watcher on real processes.

use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use super::*;
use crate::observe::descriptor_limit::raise_descriptor_limit;
use crate::observe::testing::{Child, LIMIT, await_that, kernel_tells_exits};

fn watcher() -> ExitWatcher {
    ExitWatcher::new(Clock::start(), 4096).unwrap()
}

/// The next exit; fails if none is reported within [`LIMIT`].
async fn next(watcher: &mut ExitWatcher) -> ProcessExit {
    tokio::time::timeout(LIMIT, watcher.next()).await.expect("a death is told").unwrap()
}

/// The process of a child.
fn of(child: &Child) -> WatchedProcess {
    with(child.pid(), child.start_time())
}

fn with(pid: u32, start_time: NonZeroU64) -> WatchedProcess {
    let lineage = Lineage { command: 7 };
    WatchedProcess { pid, start_time: Some(start_time), was_alive: false, tag: PidfdTag::UNKNOWN, lineage }
}

fn watch(watcher: &mut ExitWatcher, key: u64, child: &Child) {
    watcher.watch(key, of(child), None).unwrap();
}

fn become_zombie(child: &mut Child) {
    let pid = child.pid();
    child.close_input();
    await_that("it is a zombie", || Stat::of_process(pid).is_some_and(|stat| stat.is_dead()));
}

#[tokio::test]
async fn every_death_is_told_with_how_it_came() {
    let deaths = [
        ("exit 0", ExitStatus::Exited { code: 0 }),
        ("exit 3", ExitStatus::Exited { code: 3 }),
        ("kill -KILL $$", ExitStatus::Killed { signal: 9, core_dumped: false }),
        ("ulimit -c 0; kill -SEGV $$", ExitStatus::Killed { signal: 11, core_dumped: false }),
    ];
    let mut watcher = watcher();
    for (key, (script, death)) in deaths.into_iter().enumerate() {
        let key = u64::try_from(key).unwrap();
        let mut child = Child::shell(&format!("read line; {script}"));
        let process = of(&child);
        watch(&mut watcher, key, &child);
        child.close_input();
        assert_eq!(next(&mut watcher).await, ProcessExit { key, process, death }, "{script}");
        assert!(watcher.len() == 0);
    }
}

#[tokio::test]
async fn a_process_that_is_dead_before_it_is_watched_is_told_at_once() {
    let mut child = Child::shell("read line; exit 7");
    let start_time = child.start_time();
    become_zombie(&mut child);
    let mut watcher = watcher();
    watcher.watch(1, with(child.pid(), start_time), None).unwrap();
    assert_eq!(next(&mut watcher).await.death, ExitStatus::Exited { code: 7 });
}

#[tokio::test]
async fn one_that_is_reaped_before_it_is_watched_is_gone() {
    let mut child = Child::shell("read line");
    let (pid, start_time) = (child.pid(), child.start_time());
    child.close_input();
    child.reap();
    let mut watcher = watcher();
    assert!(matches!(watcher.watch(1, with(pid, start_time), None), Err(WatchError::Gone)));
    assert_eq!((watcher.len(), watcher.refusals().gone), (0, 1));
}

#[tokio::test]
async fn an_exit_that_was_looked_at_is_still_to_be_taken_once() {
    let mut child = Child::shell("read line; exit 7");
    let mut watcher = watcher();
    watch(&mut watcher, 1, &child);
    assert_eq!(watcher.peek().count(), 0);
    become_zombie(&mut child);
    for _ in 0..2 {
        let deaths: Vec<_> = watcher.peek().map(|exit| exit.death).collect();
        assert_eq!(deaths, [ExitStatus::Exited { code: 7 }]);
    }
    assert_eq!(next(&mut watcher).await.death, ExitStatus::Exited { code: 7 });
    assert_eq!(watcher.try_next().unwrap(), None);
}

#[tokio::test]
async fn exits_that_are_put_back_come_first_and_in_their_order() {
    let mut child = Child::shell("read line; exit 7");
    let mut watcher = watcher();
    watch(&mut watcher, 1, &child);
    become_zombie(&mut child);
    assert_eq!(watcher.peek().count(), 1);
    let exits: Vec<_> = [(2, 8), (3, 9)]
        .map(|(key, code)| ProcessExit { key, process: of(&child), death: ExitStatus::Exited { code } })
        .into();
    watcher.put_back(exits);
    let keys = |exits: Vec<ProcessExit>| exits.iter().map(|exit| exit.key).collect::<Vec<_>>();
    assert_eq!(keys(watcher.peeked().copied().collect()), [2, 3, 1]);
    let taken = std::iter::from_fn(|| watcher.try_next().unwrap()).collect();
    assert_eq!(keys(taken), [2, 3, 1]);
}

#[tokio::test]
async fn one_that_is_reaped_after_it_is_watched_is_told_of() {
    let mut child = Child::shell("read line; exit 6");
    let mut watcher = watcher();
    watch(&mut watcher, 1, &child);
    child.close_input();
    child.reap();
    let death = next(&mut watcher).await.death;
    if kernel_tells_exits() {
        assert_eq!(death, ExitStatus::Exited { code: 6 });
    } else {
        assert_eq!(death, ExitStatus::Unknown);
    }
}

#[tokio::test]
async fn another_process_with_the_same_pid_is_not_watched() {
    let child = Child::shell("read line");
    let mut watcher = watcher();
    let another = child.start_time().checked_add(1).unwrap();
    assert!(matches!(watcher.watch(1, with(child.pid(), another), None), Err(WatchError::Gone)));
    assert!(watcher.len() == 0);
}

#[tokio::test]
async fn the_end_of_a_thread_is_no_death() {
    let mut child = Child::playing("threads");
    let mut watcher = watcher();
    watch(&mut watcher, 1, &child);
    for _ in 0..3 {
        child.say("end a thread");
        child.hear("a thread ended");
        assert_eq!(watcher.try_next().unwrap(), None);
    }
    child.close_input();
    assert_eq!(next(&mut watcher).await.death, ExitStatus::Exited { code: 4 });
}

#[tokio::test]
async fn a_process_that_becomes_another_program_is_still_watched() {
    let mut child = Child::playing("exec");
    let mut watcher = watcher();
    watch(&mut watcher, 1, &child);
    child.say("go on");
    child.hear("another program");
    assert_eq!(watcher.try_next().unwrap(), None);
    child.close_input();
    assert_eq!(next(&mut watcher).await.death, ExitStatus::Exited { code: 5 });
}

#[tokio::test]
async fn a_status_that_only_the_parent_may_see_is_told_when_the_parent_has_seen_it() {
    let mut child = Child::shell("read line; exit 3");
    let mut watcher = watcher();
    watcher.read_stat = |_| None;
    watch(&mut watcher, 1, &child);
    become_zombie(&mut child);
    if !kernel_tells_exits() {
        return;
    }
    assert_eq!(watcher.try_next().unwrap(), None);
    child.reap();
    assert_eq!(next(&mut watcher).await.death, ExitStatus::Exited { code: 3 });
}

#[tokio::test]
async fn a_status_that_nobody_asks_for_is_not_waited_for_without_end() {
    let mut child = Child::shell("read line; exit 3");
    let mut watcher = watcher();
    watcher.read_stat = |_| None;
    watch(&mut watcher, 1, &child);
    become_zombie(&mut child);
    assert_eq!(next(&mut watcher).await.death, ExitStatus::Unknown);
    assert!(!watcher.watches(1));
    // It may be asked for after all.
    if crate::observe::testing::kernel_tells_exits() {
        assert_eq!(watcher.try_next().unwrap(), None);
        child.reap();
        assert_eq!(next(&mut watcher).await.death, ExitStatus::Exited { code: 3 });
        assert!(watcher.len() == 0);
    }
}

#[tokio::test]
async fn who_is_dead_is_known_before_it_is_known_how_it_ended() {
    let mut child = Child::shell("read line; exit 3");
    let mut watcher = watcher();
    watcher.read_stat = |_| None;
    watch(&mut watcher, 1, &child);
    let dead = |watcher: &mut ExitWatcher| -> Vec<_> {
        let peeked: Vec<_> = watcher.peek().map(|exit| exit.process).collect();
        peeked.into_iter().chain(watcher.unreaped().copied()).collect()
    };
    assert_eq!(dead(&mut watcher), []);
    become_zombie(&mut child);
    for _ in 0..2 {
        assert_eq!(dead(&mut watcher), [of(&child)]);
    }
    watcher.unwatch(1);
    assert_eq!(watcher.unreaped().count(), 0);
}

#[tokio::test]
async fn a_process_that_proc_hides_is_watched_by_its_pid_alone() {
    let mut child = Child::shell("read line; exit 3");
    let mut watcher = watcher();
    watcher.read_stat = |_| None;
    let process = WatchedProcess {
        pid: child.pid(),
        start_time: None,
        was_alive: false,
        tag: PidfdTag::UNKNOWN,
        lineage: Lineage::default(),
    };
    watcher.watch(1, process, None).unwrap();
    child.close_input();
    child.reap();
    let exit = next(&mut watcher).await;
    assert_eq!(exit.process, WatchedProcess { was_alive: true, ..process });
    if crate::observe::testing::kernel_tells_exits() {
        assert_eq!(exit.death, ExitStatus::Exited { code: 3 });
    }
}

#[tokio::test]
async fn one_that_proc_hides_was_alive_for_the_next_server_too_and_not_if_it_had_ended_before_it_was_watched()
{
    let mut child = Child::shell("read line; exit 3");
    let hidden = |was_alive| {
        let (tag, lineage) = (PidfdTag::UNKNOWN, Lineage::default());
        WatchedProcess { pid: child.pid(), start_time: None, was_alive, tag, lineage }
    };
    let (early, [late, next_server]) = (hidden(false), [hidden(false), hidden(true)]);
    let mut watcher = watcher();
    watcher.read_stat = |_| None;
    watcher.watch(1, early, None).unwrap();
    become_zombie(&mut child);
    watcher.watch(2, late, None).unwrap();
    watcher.watch(3, next_server, None).unwrap();
    let mut exits = Vec::new();
    for _ in 0..3 {
        let exit = next(&mut watcher).await;
        exits.push((exit.key, exit.process.was_alive));
    }
    exits.sort_unstable();
    assert_eq!(exits, [(1, true), (2, false), (3, true)]);
}

#[tokio::test]
async fn one_who_only_takes_what_there_is_is_told_of_it_too() {
    let mut child = Child::shell("read line; exit 3");
    let mut watcher = watcher();
    watcher.read_stat = |_| None;
    watch(&mut watcher, 1, &child);
    become_zombie(&mut child);
    let mut death = None;
    await_that("the death is told", || {
        death = watcher.try_next().unwrap();
        death.is_some()
    });
    assert_eq!(death.map(|death| death.death), Some(ExitStatus::Unknown));
}

#[tokio::test]
async fn above_the_cap_nobody_is_watched_and_that_is_counted() {
    let children = [Child::shell("read line"), Child::shell("read line")];
    let mut watcher = ExitWatcher::new(Clock::start(), 1).unwrap();
    watch(&mut watcher, 1, &children[0]);
    let refused = watcher.watch(2, of(&children[1]), None);
    assert!(matches!(refused, Err(WatchError::Full { cap: 1 })));
    assert_eq!(
        (watcher.len(), watcher.refusals()),
        (1, WatchRefusals { full: 1, ..WatchRefusals::default() })
    );
    // A freed place can be taken by another process.
    watch(&mut watcher, 1, &children[1]);
    assert!(watcher.unwatch(1));
    watch(&mut watcher, 2, &children[0]);
}

#[tokio::test]
async fn who_is_no_longer_watched_has_no_descriptor_and_is_not_told_of() {
    let mut child = Child::shell("read line");
    let mut watcher = watcher();
    watch(&mut watcher, 1, &child);
    let descriptor = watcher.watched[&1].pidfd.as_fd().as_raw_fd();
    let link = format!("/proc/self/fd/{descriptor}");
    assert!(std::fs::read_link(&link).unwrap().to_string_lossy().contains("pidfd"));
    assert!(watcher.unwatch(1));
    assert!(!watcher.unwatch(1));
    become_zombie(&mut child);
    assert_eq!(watcher.try_next().unwrap(), None);
}

#[tokio::test]
async fn a_key_that_is_used_again_does_not_inherit_a_death() {
    let (mut first, second) = (Child::shell("read line"), Child::shell("read line"));
    let mut watcher = watcher();
    watch(&mut watcher, 1, &first);
    become_zombie(&mut first);
    // The kernel has reported it, and the report was not examined yet.
    assert_eq!(watcher.pidfds.get_ref().take_ready(&mut watcher.named).unwrap(), 1);
    watch(&mut watcher, 1, &second);
    assert_eq!(watcher.try_next().unwrap(), None);
    second.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(next(&mut watcher).await.death, ExitStatus::Killed { signal: 15, core_dumped: false });
}

#[tokio::test]
async fn a_wait_that_is_given_up_loses_nothing() {
    let mut child = Child::shell("read line; exit 2");
    let mut watcher = watcher();
    watch(&mut watcher, 1, &child);
    for _ in 0..100 {
        tokio::select! {
            biased;
            death = watcher.next() => panic!("nobody died, and still {death:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    child.close_input();
    let told = async {
        loop {
            tokio::select! {
                death = watcher.next() => break death.unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
    };
    let death = tokio::time::timeout(LIMIT, told).await.expect("a death is told");
    assert_eq!(death.death, ExitStatus::Exited { code: 2 });
}

#[tokio::test]
async fn a_thousand_that_die_at_once_are_all_told_of() {
    const CHILDREN: usize = 1000;
    raise_descriptor_limit().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut watcher = watcher();
    let mut children = Vec::new();
    for key in 0..CHILDREN {
        let mut command = Command::new("cat");
        let child = command.stdin(reader.try_clone().unwrap()).stdout(Stdio::null()).spawn().unwrap();
        let start_time = Stat::of_thread(child.id(), child.id()).unwrap().start_time;
        watcher.watch(u64::try_from(key).unwrap(), with(child.id(), start_time), None).unwrap();
        children.push(child);
    }
    assert_eq!(watcher.len(), CHILDREN);
    // The children read from this pipe, and no other process writes to it.
    drop(writer);
    let mut told = vec![false; CHILDREN];
    for _ in 0..CHILDREN {
        let death = next(&mut watcher).await;
        assert_eq!(death.death, ExitStatus::Exited { code: 0 });
        let key = usize::try_from(death.key).unwrap();
        assert_eq!(death.process.pid, children[key].id());
        assert!(!std::mem::replace(&mut told[key], true), "told twice");
    }
    assert!(watcher.len() == 0);
    for mut child in children {
        child.wait().unwrap();
    }
}
