use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::string::{String, ToString};
use std::{format, vec};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Writes a file, and returns the result of reading all keys from it.
fn read(content: impl AsRef<[u8]>, mode: u32) -> Result<Vec<Key>, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    Key::all_from_file(&path).map_err(|error| {
        assert_eq!(error.path(), path);
        error.fault().to_string()
    })
}

#[test]
fn a_private_file_gives_its_keys_in_order() {
    let other = "f".repeat(64);
    let keys = read(format!("{KEY}\n{other}\n"), 0o400).unwrap();
    assert_eq!(keys, [KEY, &other].map(|text| Key::from_hex(text).unwrap()));
}

#[test]
fn each_fault_of_a_file_is_named() {
    let many = format!("{KEY}\n").repeat(MAX_KEY_FILE_LEN / 65);
    assert_eq!(read(&many, 0o600).unwrap().len(), 252);
    let table: [(Vec<u8>, u32, &str); 8] = [
        (KEY.into(), 0o604, "others than its owner can use it (mode 0604); chmod 600 it"),
        (KEY.into(), 0o620, "others than its owner can use it (mode 0620); chmod 600 it"),
        (KEY.into(), 0o601, "others than its owner can use it (mode 0601); chmod 600 it"),
        (many.repeat(2).into(), 0o600, "is longer than 16384 bytes"),
        (vec![b'#'; MAX_KEY_FILE_LEN + 1], 0o600, "is longer than 16384 bytes"),
        (vec![0xff; 64], 0o600, "is not text"),
        (b"# none\n".into(), 0o600, "holds no key; `openssl rand -hex 32` makes one"),
        (b"hunter2".into(), 0o600, "line 1: a key has 64 hexadecimal characters, this has 7"),
    ];
    for (content, mode, fault) in table {
        assert_eq!(read(content, mode).unwrap_err(), fault);
    }
    assert_eq!(
        read(vec![b'#'; MAX_KEY_FILE_LEN], 0o600).unwrap_err().split(';').next(),
        Some("holds no key")
    );
}

#[test]
fn only_a_regular_file_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    fs::write(&file, KEY).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let link = directory.path().join("link");
    symlink(&file, &link).unwrap();
    let socket = directory.path().join("socket");
    let _bound = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();

    let fault = |path: &Path| Key::from_file(path).unwrap_err().fault().to_string();
    assert!(Key::from_file(&file).is_ok());
    assert_eq!(fault(&link), "is a symlink; name the file itself");
    assert_eq!(fault(directory.path()), "is not a regular file");
    assert_eq!(fault(&socket), "is not a regular file");
    assert!(fault(&directory.path().join("none")).starts_with("cannot be read: "));
}

#[test]
fn one_key_is_wanted_where_one_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    fs::write(&path, format!("{KEY}\n{KEY}\n{KEY}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let error = Key::from_file(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("key file {}: holds 3 keys, and one is wanted", path.display()));
}

#[test]
fn the_owner_is_us_or_root_where_it_is_known_who_we_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, KEY).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let found = fs::metadata(&path).unwrap();
    let owner = found.uid();
    assert!(check_private(&found, Some(owner)).is_ok());
    assert!(check_private(&found, None).is_ok());
    // For root every file's owner is acceptable, but root can give a file to another user.
    if owner == 0 {
        assert!(check_private(&found, Some(7)).is_ok());
        std::os::unix::fs::chown(&path, Some(7), None).unwrap();
        let fault = Key::from_file(&path).unwrap_err().fault().to_string();
        assert_eq!(fault, "belongs to user 7, and to neither this process's user nor root");
    } else {
        let fault = check_private(&found, Some(owner + 1)).unwrap_err();
        assert!(matches!(fault, KeyFileFault::ForeignOwner { uid } if uid == owner));
    }
}

#[test]
fn what_systemd_opens_to_the_service_by_an_access_list_counts_below_its_directory_only() {
    let below = |path: &str, directory: Option<&str>| is_below(Path::new(path), directory.map(OsStr::new));
    let directory = Some("/run/credentials/varta.service");
    assert!(below("/run/credentials/varta.service/key", directory));
    for path in [
        "/run/credentials/varta.service",
        "/run/credentials/varta.service/../key",
        "/run/credentials/varta.service/a/key",
        "/run/credentials/other/key",
        "key",
    ] {
        assert!(!below(path, directory), "{path}");
    }
    assert!(!below("/key", None) && !below("/key", Some("")) && !below("run/key", Some("run")));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, KEY).unwrap();
    for (mode, is_right) in [(0o440, true), (0o400, false), (0o640, false), (0o444, false)] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let found = fs::metadata(&path).unwrap();
        let is_roots = found.uid() == 0;
        let credentials = Some(directory.path().as_os_str());
        assert_eq!(is_credential(&path, &found, credentials), is_right && is_roots, "{mode:o}");
    }
}
