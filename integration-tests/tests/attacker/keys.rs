//! Keys that are exchanged while the server runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use varta_integration_tests::{
    ANOTHER_KEY, Network, Options, RemoteAgent, SHARED_KEY, Server, Signal, line, loopback_socket,
    write_secret,
};

use crate::world::{OTHERS, SECURE, VICTIM, World};

/// Puts other keys into a file, as an editor does.
fn write_keys(path: &Path, keys: &str) {
    fs::write(path, format!("{keys}\n")).unwrap();
}

/// Has the server read its keys again, and waits until the log has the result for the `count`th time.
#[track_caller]
fn read_again(server: &Server, start: &str, count: usize) -> String {
    server.signal(Signal::HangUp);
    server.expect(line(start).nth(count))["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_key_that_was_taken_away_opens_nothing_and_when_it_comes_back_nothing_old() {
    const READ: &str = "the key files were read again";
    let mut world = World::with(Options::new().accepted_keys(SHARED_KEY));
    let address = world.secure[0];
    let [key, accepted] = ["shared.key", "accepted.keys"].map(|name| world.server.directory().join(name));
    let with_key =
        |key, pid| RemoteAgent::with_key(Arc::new(loopback_socket()), Network::SharedKey, key, address, pid);
    let (mut old, mut new) = (with_key(SHARED_KEY, VICTIM), with_key(ANOTHER_KEY, VICTIM + 1));
    let recorded: Vec<_> = (0..5).map(|_| world.hear(&mut old)).collect();
    let early = new.hold_back();
    world.attack(new.socket(), address, &early, "decrypt_failed");

    // The new one is there, and the old one still is; a key is read from its file, whichever it was.
    write_keys(&key, ANOTHER_KEY);
    world.check();
    read_again(&world.server, READ, 1);
    world.hear(&mut old);
    let recorded_of_new = world.hear(&mut new);
    world.attack(old.socket(), address, &recorded[4], "replayed");

    // The old one goes. One of the others has it too, and is out with it.
    write_keys(&accepted, ANOTHER_KEY);
    world.check();
    read_again(&world.server, READ, 2);
    let mut left_behind = world.others.remove(1);
    assert_eq!(left_behind.transport(), SECURE);
    for _ in 0..10 {
        let refused = old.hold_back();
        world.attack(old.socket(), address, &refused, "decrypt_failed");
        let refused = left_behind.hold_back();
        world.attack(left_behind.socket(), address, &refused, "decrypt_failed");
        world.hear(&mut new);
    }
    world.attack(old.socket(), address, &recorded[4], "decrypt_failed");

    // It comes back, and what was recorded while it was there is as old as ever.
    write_keys(&accepted, SHARED_KEY);
    world.check();
    read_again(&world.server, READ, 3);
    for datagram in recorded.iter().chain([&recorded_of_new]) {
        world.attack(&loopback_socket(), address, datagram, "replayed");
    }
    world.hear(&mut old);
    world.hear(&mut new);
    world.others.push(left_behind);
    world.others_beat();
    let scrape = world.check();
    // What was refused had been numbered, and is missing.
    let missing = scrape.sum("varta_agent_beats_lost_total", &[]);
    assert_eq!(missing, 20.0, "{}", scrape.text);
    assert_eq!(scrape.value("varta_agents", &[("state", "up")]), world.bystanders() as f64 + 2.0);
    assert!(world.server.transitions().iter().all(|change| change.cause == "first_beat"));
}

#[test]
fn a_new_key_file_that_cannot_be_used_leaves_all_keys_as_they_were_and_is_named() {
    const KEPT: &str = "keys and configuration stay as they were";
    let mut world = World::new();
    let address = world.secure[0];
    let directory = world.server.directory().to_path_buf();
    let path = directory.join("shared.key");
    let elsewhere = write_secret(&directory, "elsewhere.key", ANOTHER_KEY);
    let put = |mode, content: &str| {
        write_keys(&path, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    type Fault<'a> = (&'a str, &'a dyn Fn());
    let faults: [Fault<'_>; 9] = [
        ("open to its group", &|| put(0o640, ANOTHER_KEY)),
        ("open to all", &|| put(0o604, ANOTHER_KEY)),
        ("not hexadecimal", &|| put(0o600, &ANOTHER_KEY.replace('a', "g"))),
        ("too short", &|| put(0o600, &ANOTHER_KEY[1..])),
        ("two keys", &|| put(0o600, &format!("{ANOTHER_KEY}\n{SHARED_KEY}"))),
        ("empty", &|| fs::write(&path, "").unwrap()),
        ("not there", &|| fs::remove_file(&path).unwrap()),
        ("a symlink", &|| symlink(&elsewhere, &path).unwrap()),
        ("a pipe", &|| {
            fs::remove_file(&path).unwrap();
            assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&path).status().unwrap().success());
        }),
    ];
    let mut old = world.agent(Network::SharedKey, VICTIM);
    let socket = Arc::new(loopback_socket());
    let mut new = RemoteAgent::with_key(socket, Network::SharedKey, ANOTHER_KEY, address, VICTIM + 1);
    for (count, (fault, make)) in (1..).zip(faults) {
        make();
        let said = read_again(&world.server, KEPT, count);
        assert!(said.contains(path.to_str().unwrap()), "{fault}: {said}");
        assert!(!said.contains(&ANOTHER_KEY[..16]), "{fault}: {said}");
        world.hear(&mut old);
        let refused = new.hold_back();
        world.attack(new.socket(), address, &refused, "decrypt_failed");
        world.check();
    }
    // It still reads one that can be used.
    fs::remove_file(&path).unwrap();
    put(0o600, ANOTHER_KEY);
    read_again(&world.server, "the key files were read again", 1);
    world.hear(&mut new);
    let refused = old.hold_back();
    world.attack(old.socket(), address, &refused, "decrypt_failed");
    // The one that has the old key is refused, too, and still known.
    world.others.retain(|other| other.pid() != OTHERS + 1);
    world.assert_the_others_are_unaffected(3);
}
