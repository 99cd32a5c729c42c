//! Tests of the state service with lost changes, full disks, and invalid databases.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::base::error::Error;
use crate::base::time::MonoTime;
use crate::domain::tracker::RegistryChange;
use crate::engine::state_queue::STATE_QUEUE;
use crate::services::state::tests::*;

#[test]
fn what_was_lost_is_made_up_for_by_a_sweep() {
    let world = World::new();
    let mut run = world.open();
    run.turn();
    run.answer(&[]);
    assert_eq!(run.writer.sweep.next, Next::Begin { at: MonoTime::NEVER }, "there is nobody to go over");
    for pid in 1..=u32::try_from(STATE_QUEUE).unwrap() {
        run.sink.note(RegistryChange::Forgotten(forgotten(pid)));
    }
    run.sink.note(RegistryChange::Known(Box::new(agent(1))));
    assert!(world.counted("varta_sink_dropped_total{sink=\"state\"} 1"));
    // The full queue has no place for the response yet.
    run.turn();
    run.turn();
    run.answer(&[agent(1)]);
    while run.waiting() > 0 {
        run.turn();
    }
    drop(run);
    assert_eq!(world.open().pids(), [1]);
}

#[test]
fn a_full_disk_is_counted_nothing_is_lost_while_there_is_room_and_it_goes_on_when_there_is_room_again() {
    let world = World::new();
    let mut run = world.open();
    let limit = |run: &mut Run, pages: i64| {
        let database = run.writer.database.as_ref().unwrap();
        database.pragma_update(None, "max_page_count", pages).unwrap();
    };
    limit(&mut run, 1);
    for pid in 1..=500 {
        run.take(event(pid));
        run.note(agent(pid));
    }
    run.write();
    run.write();
    assert!(world.counted("varta_state_write_errors_total 2"));
    assert_eq!((world.count("history"), run.writer.pending.len()), (0, 1_000));
    limit(&mut run, 1_000_000);
    run.write();
    assert_eq!((world.count("history"), world.count("agents")), (500, 500));
    assert!(world.counted("varta_state_write_errors_total 2"));
    assert!(world.counted("varta_sink_dropped_total{sink=\"state\"} 0"));
}

#[test]
fn while_the_disk_is_full_what_is_kept_is_bounded() {
    let world = World::new();
    let mut run = world.open();
    run.turn();
    run.answer(&[]);
    run.writer.database.as_ref().unwrap().pragma_update(None, "max_page_count", 1).unwrap();
    for pid in 1..=100_000 {
        run.sink.transition(&transition(pid), false);
        if pid % 1_000 == 0 {
            run.turn();
        }
    }
    let kept = run.writer.pending.len() + run.waiting();
    assert!(kept <= STATE_QUEUE + 4_096, "{kept}");
    assert!(world.counted(&format!("varta_sink_dropped_total{{sink=\"state\"}} {}", 100_000 - kept)));
}

#[test]
fn a_broken_database_is_moved_aside_at_the_start() {
    let world = World::new();
    let mut run = world.open();
    run.note(agent(1));
    run.write();
    drop(run);
    fs::write(world.path(), "this is not a database, and longer than a hundred bytes ".repeat(100)).unwrap();
    assert_eq!(world.open().pids(), [0; 0]);
    let aside = world.directory.path().join("varta.db.corrupt");
    assert!(fs::read_to_string(&aside).unwrap().starts_with("this is not"));
    // The same for another program's database, which replaces the file moved aside before.
    fs::remove_file(world.path()).unwrap();
    Connection::open(world.path()).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
    assert_eq!(world.open().pids(), [0; 0]);
    assert!(!fs::read(&aside).unwrap().starts_with(b"this is not"));
}

#[test]
fn a_pipe_in_the_place_of_the_database_or_of_its_journals_is_refused_without_waiting() {
    for name in ["varta.db", "varta.db-journal", "varta.db-wal", "varta.db-shm"] {
        let world = World::new();
        let pipe = world.directory.path().join(name);
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let refused = world.try_open().unwrap_err();
        assert!(matches!(refused, Error::StateDatabase { .. }), "{refused}");
        assert!(refused.to_string().contains("is not a regular file"), "{refused}");
    }
}

#[test]
fn files_that_are_removed_or_moved_while_they_are_used_are_noticed_and_begun_anew_with_all_agents() {
    let elsewhere = tempfile::tempdir().unwrap();
    let steps: [&dyn Fn(&World); 5] = [
        &|world| fs::remove_file(world.path()).unwrap(),
        &|world| fs::rename(world.path(), world.directory.path().join("moved.db")).unwrap(),
        &|world| fs::remove_file(world.directory.path().join("varta.db-wal")).unwrap(),
        &|world| fs::rename(world.directory.path(), elsewhere.path().join("moved")).unwrap(),
        &|world| {
            fs::remove_dir_all(world.directory.path()).unwrap();
            fs::write(elsewhere.path().join("other"), "").unwrap();
        },
    ];
    for (number, step) in steps.iter().enumerate() {
        let world = World::new();
        let mut run = world.open();
        run.note(agent(1));
        run.write();
        run.sweep(&[agent(1)]);
        step(&world);
        let now = run.now;
        assert!(run.writer.look(now), "step {number}");
        assert!(!run.writer.look(now), "step {number}: it is in place again");
        assert!(world.counted("varta_files_replaced_total{part=\"state\"} 1"));
        assert!(world.counted("varta_faults{part=\"state\"} 0"));
        run.sweep(&[agent(1), agent(2)]);
        drop(run);
        assert_eq!(world.open().pids(), [1, 2], "step {number}: from the sweep");
    }
}

#[test]
fn a_directory_that_cannot_be_made_again_is_a_fault_until_it_can() {
    let world = World::new();
    let mut run = world.open();
    run.note(agent(1));
    run.write();
    fs::remove_dir_all(world.directory.path()).unwrap();
    fs::write(world.directory.path(), "in the way").unwrap();
    let now = run.now;
    assert!(run.writer.look(now));
    let (is_ready, said) = world.faults.report(true);
    assert!(!is_ready && said.contains("cannot be written to"), "{said}");
    fs::remove_file(world.directory.path()).unwrap();
    run.writer.write(now);
    assert_eq!(world.faults.report(true), (true, String::new()));
    assert!(world.path().exists());
}

#[test]
fn a_database_that_breaks_while_it_is_used_is_moved_aside_and_written_anew() {
    let world = World::new();
    let mut run = world.open();
    for pid in 1..=500 {
        run.note(agent(pid));
    }
    run.write();
    // Overwrites all pages but the first, which identifies the file.
    run.writer
        .database
        .as_ref()
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let mut bytes = fs::read(world.path()).unwrap();
    bytes[4_096..].fill(0xa5);
    run.writer.database = None;
    fs::write(world.path(), bytes).unwrap();
    run.note(agent(7));
    run.write();
    assert!(world.counted("varta_state_write_errors_total 1"));
    assert!(world.directory.path().join("varta.db.corrupt").exists());
    run.write();
    run.turn();
    run.answer(&[agent(8)]);
    drop(run);
    assert_eq!(world.open().pids(), [8], "from the sweep");
}

#[test]
fn a_newer_database_and_its_journal_are_left_alone_byte_for_byte() {
    for journal_mode in ["delete", "wal"] {
        let world = World::new();
        drop(world.open());
        let newer = Connection::open(world.path()).unwrap();
        newer.pragma_update(None, "journal_mode", journal_mode).unwrap();
        // As after a crash: the journal is still there.
        newer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        newer.pragma_update(None, "user_version", 9).unwrap();
        drop(newer);
        let files = ["varta.db", "varta.db-wal"].map(|name| world.directory.path().join(name));
        let content = || files.each_ref().map(|file| fs::read(file).ok());
        let before = content();
        assert_eq!(before[1].is_some(), journal_mode == "wal");
        let refused = world.try_open().unwrap_err();
        assert!(matches!(refused, Error::NewerState { version: 9, .. }), "{refused}");
        assert_eq!(refused.exit_status(), 1);
        assert!(content() == before, "{journal_mode}");
    }
}

#[test]
fn tables_of_earlier_versions_are_made_into_those_of_the_present_one() {
    let before_2 = ["ALTER TABLE agents DROP COLUMN unit", "ALTER TABLE agents DROP COLUMN labels"];
    let before_3 = [
        "ALTER TABLE agents DROP COLUMN silent_at_least",
        "ALTER TABLE history DROP COLUMN silent_at_least",
        "DROP TABLE server",
    ];
    let before_4 = ["ALTER TABLE agents DROP COLUMN is_unawaited", "ALTER TABLE agents DROP COLUMN said"];
    for version in [1, 2, 3, 4, 5] {
        let world = World::new();
        let mut run = world.open();
        run.note(agent(7));
        run.take(event(7));
        run.write();
        drop(run);
        let database = Connection::open(world.path()).unwrap();
        let before_3 = before_3.iter().filter(|_| version < 3);
        let before_4 = before_4.iter().filter(|_| version < 4);
        let added_since = before_2.iter().filter(|_| version < 2).chain(before_3).chain(before_4);
        let before_5 = ["DROP TABLE jobs"];
        let added_since = added_since.chain(before_5.iter().filter(|_| version < 5));
        let added_since = added_since.chain(&["ALTER TABLE agents DROP COLUMN stood_ms"]);
        added_since.for_each(|statement| database.execute_batch(statement).unwrap());
        database.pragma_update(None, "user_version", version).unwrap();
        drop(database);
        let mut run = world.open();
        assert_eq!((run.pids(), world.count("history")), (vec![7], 1));
        assert_eq!(world.look::<i64>("PRAGMA user_version"), version, "it does not run yet");
        let known = &run.kept[0].agent;
        let of_2 = known.unit.is_some() && !known.labels.is_empty();
        assert_eq!(of_2, version >= 2);
        if version < 3 {
            assert_eq!(
                (known.silent_before, known.silent_at_least),
                (Duration::ZERO, true),
                "no sign says when"
            );
        }
        assert!(version >= 4 || !known.is_unawaited && known.said.is_none());
        assert_eq!(known.stood, None);
        run.turn();
        drop(run);
        assert_eq!(world.look::<i64>("PRAGMA user_version"), 6);
        assert_eq!((world.open().pids(), world.count("history")), (vec![7], 1));
    }
}

#[test]
fn rows_that_make_no_sense_are_passed_over() {
    let world = World::new();
    let mut run = world.open();
    (1..=4).map(agent).for_each(|agent| run.note(agent));
    run.write();
    drop(run);
    let database = Connection::open(world.path()).unwrap();
    for (column, value, pid) in [("twin", "65", 1), ("verdict", "'well'", 2), ("origin", "'udp here'", 3)] {
        database.execute(&format!("UPDATE agents SET {column} = {value} WHERE pid = {pid}"), []).unwrap();
    }
    assert_eq!(world.open().pids(), [4]);
}
