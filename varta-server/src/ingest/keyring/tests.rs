//! Tests of the keyring: numbering, rotation, replay across rotations, and key files that cannot be used.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use varta_proto::secure::{Session, seal_master, seal_shared};
use varta_proto::{Frame, Status};

use super::*;

const PID: u32 = 4242;

struct World {
    directory: TempDir,
    files: KeyFiles,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| Some(directory.path().join(name));
        let files = KeyFiles { key: path("key"), accepted: path("accepted"), master: path("master") };
        let world = World { directory, files };
        world.write("key", &[1]);
        world.write("accepted", &[2, 1, 3]);
        world.write("master", &[4, 5]);
        world
    }

    fn write(&self, name: &str, keys: &[u8]) {
        let path = self.directory.path().join(name);
        let text: String =
            keys.iter().map(|byte| format!("{}\n", format!("{byte:02x}").repeat(32))).collect();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    fn keyring(&self) -> Keyring {
        Keyring::read(&self.files, 100, Duration::from_secs(5), Vec::new()).unwrap()
    }
}

fn frame(nonce: u64) -> [u8; 32] {
    Frame::new(Status::Ok, PID, 7, nonce, 0).to_bytes()
}

fn shared(key: u8, salt: u8) -> Vec<u8> {
    let key = Key::from_bytes([key; 32]);
    seal_shared(&key, &mut Session::new([salt; 16]), &frame(1)).unwrap().to_vec()
}

fn mastered(key: u8, pid: u32, salt: u8) -> Vec<u8> {
    let key = Key::from_bytes([key; 32]).agent_key(pid);
    seal_master(&key, pid, &mut Session::new([salt; 16]), &frame(1)).unwrap().to_vec()
}

fn judge(keyring: &Keyring, payload: &[u8]) -> Result<KeyId, FrameOutcome> {
    let datagram = Datagram {
        payload,
        truncated: false,
        extra_ancillary: false,
        has_descriptor: false,
        credentials: None,
        source: Some(([10, 0, 0, 1], 4000).into()),
    };
    keyring.open().authenticate(&datagram, MonoTime::from_secs(1)).map(|(sender, _)| sender.lane.key)
}

#[test]
fn each_key_opens_what_it_sealed_and_has_a_number_of_its_own() {
    let keyring = World::new().keyring();
    let numbers = [
        judge(&keyring, &shared(1, 1)),
        judge(&keyring, &shared(2, 2)),
        judge(&keyring, &shared(3, 3)),
        judge(&keyring, &mastered(4, PID, 4)),
        judge(&keyring, &mastered(5, PID, 5)),
    ];
    assert_eq!(numbers, [0, 1, 2, 3, 4].map(|number| Ok(KeyId(number))));
}

#[test]
fn what_no_key_opens_is_refused_and_said() {
    let keyring = World::new().keyring();
    assert_eq!(judge(&keyring, &shared(9, 1)), Err(FrameOutcome::DecryptFailed));
    assert_eq!(judge(&keyring, &mastered(9, PID, 1)), Err(FrameOutcome::DecryptFailed));
    assert_eq!(judge(&keyring, &mastered(4, PID + 1, 1)), Err(FrameOutcome::PidMismatch));
    assert_eq!(
        judge(&keyring, &frame(1)),
        Err(FrameOutcome::Malformed(DecodeError::BadLength { actual: 32 })),
        "plaintext has no business here"
    );
}

#[test]
fn keys_are_rotated_without_forgetting_what_has_come() {
    let world = World::new();
    let keyring = world.keyring();
    let (old, new) = (shared(1, 1), shared(7, 2));
    assert_eq!(judge(&keyring, &old), Ok(KeyId(0)));
    assert_eq!(judge(&keyring, &new), Err(FrameOutcome::DecryptFailed));
    world.write("key", &[7]);
    world.write("accepted", &[1]);
    keyring.stage(&world.files, Duration::from_secs(5)).unwrap().commit();
    assert_eq!(judge(&keyring, &new), Ok(KeyId(5)));
    assert_eq!(judge(&keyring, &old), Err(FrameOutcome::Replayed));
    world.write("accepted", &[2]);
    keyring.stage(&world.files, Duration::from_secs(5)).unwrap().commit();
    assert_eq!(judge(&keyring, &old), Err(FrameOutcome::DecryptFailed));
    world.write("accepted", &[1]);
    keyring.stage(&world.files, Duration::from_secs(5)).unwrap().commit();
    assert_eq!(judge(&keyring, &old), Err(FrameOutcome::Replayed), "a key that comes back is the same key");
}

#[test]
fn a_file_that_cannot_be_used_leaves_the_keys_as_they_were() {
    let world = World::new();
    let keyring = world.keyring();
    world.write("key", &[7]);
    world.write("master", &[]);
    let error = keyring.stage(&world.files, Duration::from_secs(5)).unwrap_err().to_string();
    assert!(error.contains("master") && error.contains("key"), "{error}");
    assert_eq!(judge(&keyring, &shared(7, 1)), Err(FrameOutcome::DecryptFailed));
    assert_eq!(judge(&keyring, &shared(1, 1)), Ok(KeyId(0)));
}

#[test]
fn a_long_list_of_keys_is_refused() {
    let world = World::new();
    let many: Vec<u8> = (1..=17).collect();
    world.write("accepted", &many);
    let error = Keyring::read(&world.files, 100, Duration::from_secs(5), Vec::new()).unwrap_err().to_string();
    assert!(error.contains("holds 17 keys") && error.contains("at most 16"), "{error}");
}
