//! Tests of what a server makes of the last sign of the one before, and of its database.

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::services::state::tests::*;

const YEAR_MS: i64 = 365 * 86_400_000;

/// An agent that is silent for longer than it may be.
fn stalled(pid: u32) -> AgentSnapshot {
    AgentSnapshot { verdict: Verdict::Stalled, ..agent(pid) }
}

/// How long each agent was silent before the server that reads this, and whether that is the least.
fn silences(run: &Run) -> Vec<(u64, bool)> {
    let mut kept: Vec<_> = run.kept.iter().map(|kept| &kept.agent).collect();
    kept.sort_by_key(|agent| agent.agent.pid);
    kept.iter().map(|agent| (agent.silent_before.as_secs(), agent.silent_at_least)).collect()
}

/// The database of a server that was killed: it knew an agent that was up and one that was stalled, and has a
/// row of history.
fn killed() -> World {
    let world = World::new();
    let mut run = world.open();
    run.note(agent(1));
    run.note(stalled(2));
    run.take(event(2));
    run.write();
    world
}

#[test]
fn the_silence_of_an_agent_that_was_up_is_not_known_after_a_kill_and_is_after_an_orderly_stop() {
    let world = killed();
    let [(up, is_least), (stalled, is_known)] = silences(&world.open())[..] else { panic!("there are two") };
    assert!((up, is_least) == (0, true) && (10..60).contains(&stalled) && !is_known);
    let mut run = world.open();
    run.note(agent(1));
    run.take(Event::Complete);
    run.write();
    drop(run);
    let run = world.open();
    assert!(silences(&run).iter().all(|(silence, is_least)| (10..60).contains(silence) && !is_least));
    // The next one is killed before it has written anything of its agents.
    let mut run = run;
    run.turn();
    drop(run);
    assert_eq!(silences(&world.open())[0], (0, true));
}

#[test]
fn what_was_not_known_of_a_silence_is_not_known_to_the_next_server() {
    let world = World::new();
    let mut run = world.open();
    run.note(AgentSnapshot { silent_at_least: true, ..stalled(1) });
    run.take(Event::Complete);
    run.write();
    drop(run);
    assert!(matches!(silences(&world.open())[..], [(10..60, true)]));
}

#[test]
fn a_wall_clock_that_was_set_makes_nobody_old_and_deletes_no_history() {
    for shift in [-YEAR_MS, YEAR_MS] {
        let world = killed();
        // The same as if the clock had been set the other way meanwhile.
        let database = Connection::open(world.path()).unwrap();
        for (table, column) in [
            ("server", "wall_ms"),
            ("agents", "last_beat_ms"),
            ("agents", "busy_until_ms"),
            ("history", "at_ms"),
        ] {
            database.execute(&format!("UPDATE {table} SET {column} = {column} + ?1"), [shift]).unwrap();
        }
        drop(database);
        let mut run = world.open();
        assert!(matches!(silences(&run)[..], [(0, true), (10..60, false)]), "{:?}", silences(&run));
        assert!((900..=1_000).contains(&run.kept[0].agent.busy_until.as_nanos().div_euclid(1_000_000_000)));
        run.take(event(3));
        run.write();
        assert_eq!(world.count("history"), 2);
    }
}

#[test]
fn a_wall_clock_that_cannot_be_right_after_a_boot_makes_nobody_old_and_deletes_no_history() {
    for shift in [-YEAR_MS, YEAR_MS] {
        let world = killed();
        let database = Connection::open(world.path()).unwrap();
        database
            .execute("UPDATE server SET boot = 'another pid:[1] 0', wall_ms = wall_ms + ?1", [shift])
            .unwrap();
        database.execute("UPDATE agents SET last_beat_ms = last_beat_ms + ?1", [shift]).unwrap();
        database.execute("UPDATE history SET at_ms = at_ms + ?1", [shift]).unwrap();
        drop(database);
        let mut run = world.open();
        assert!(matches!(silences(&run)[..], [(0, true), (10..60, true)]), "{:?}", silences(&run));
        run.take(event(3));
        run.write();
        assert_eq!(world.count("history"), 2);
    }
}

#[test]
fn a_sign_is_given_every_second_while_there_are_agents() {
    let world = World::new();
    let mut run = world.open();
    run.turn();
    let forget = || {
        Connection::open(world.path()).unwrap().execute("UPDATE server SET wall_ms = 0", []).unwrap();
    };
    let is_there = || world.look::<i64>("SELECT wall_ms FROM server") > 0;
    assert!(is_there(), "a server says at once that it is there");
    assert_eq!(world.look::<i64>("SELECT starts FROM server"), 1);
    run.answer(&[agent(1)]);
    forget();
    run.writer.turn(run.now + Duration::from_millis(900));
    assert!(!is_there());
    run.writer.turn(run.now + Duration::from_millis(1_000));
    assert!(is_there());
    run.turn();
    run.answer(&[]);
    forget();
    run.writer.turn(run.now + Duration::from_secs(10));
    assert!(!is_there(), "there is nobody whose silence could be told");
}

#[test]
fn a_step_of_the_wall_clock_writes_all_agents_anew() {
    let world = World::new();
    let mut run = world.open();
    run.turn();
    run.answer(&[agent(1)]);
    assert!(!run.writer.lost.load(std::sync::atomic::Ordering::Relaxed));
    run.writer.sign.wall = run.writer.sign.wall.before(Duration::from_secs(10));
    run.note(agent(1));
    run.write();
    assert!(run.writer.lost.load(std::sync::atomic::Ordering::Relaxed));
}

#[test]
fn what_is_no_database_is_refused_where_none_was_before_and_stays_as_it_is() {
    let world = World::new();
    let refused = |what: &str| {
        let refused = world.try_open().unwrap_err();
        assert_eq!(refused.exit_status(), 1);
        let said = refused.to_string();
        assert!(said.contains(world.path().to_str().unwrap()) && said.contains(what), "{said}");
    };
    fs::write(world.path(), "#!/bin/sh").unwrap();
    refused("it is not an SQLite database, and no server has kept its state in this directory before");
    assert_eq!(fs::read(world.path()).unwrap(), b"#!/bin/sh");

    fs::remove_file(world.path()).unwrap();
    Connection::open(world.path()).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
    let before = fs::read(world.path()).unwrap();
    refused("it is not a database of varta-server");
    assert!(fs::read(world.path()).unwrap() == before);

    fs::remove_file(world.path()).unwrap();
    mkfifo(&world.path(), Mode::S_IRWXU).unwrap();
    refused("it is not a regular file");
}
