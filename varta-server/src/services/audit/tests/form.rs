//! The format of records and of the verification report.

use std::os::unix::fs::PermissionsExt;

use crate::services::audit::tests::*;
use crate::services::audit::{mac, record};

#[test]
fn a_record_is_a_line_of_json_that_holds_the_hash_of_the_one_before_it() {
    let place = Place::new(false);
    let mut log = place.open();
    assert_eq!(append(&mut log, 5), 2);
    log.sync().unwrap();
    let records = place.records(place.path());
    let [first, second] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(
        (&first["seq"], &first["event"], &first["format"]),
        (&1.into(), &"log_started".into(), &1.into())
    );
    assert_eq!((&first["prev"], &first["seal"]), (&"0".repeat(64).into(), &"sha256".into()));
    assert_eq!(first["log"].as_str().map(str::len), Some(32));
    assert_eq!((&second["seq"], &second["prev"]), (&2.into(), &first["hash"]));
    assert_eq!(
        (&second["at"], &second["event"]),
        (&"2023-11-14T22:13:25.000Z".into(), &"command_ended".into())
    );
    assert_eq!((&second["agent"], &second["outcome"]["signal"]), (&"billing\n\"7\"".into(), &9.into()));
    for path in [place.path(), &place.head()] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let head: Value = serde_json::from_str(&fs::read_to_string(place.head()).unwrap()).unwrap();
    assert_eq!((&head["seq"], &head["last"]), (&2.into(), &second["hash"]));
}

/// Independent of this code: `sha256sum` and `openssl dgst` compute the same.
#[test]
fn the_hash_is_that_of_the_line_up_to_where_it_stands() {
    let hash_of = |is_keyed: bool| {
        let mut line = Vec::new();
        let directory = tempfile::tempdir().unwrap();
        let key = write_key(directory.path(), KEY);
        let sealer = mac::Authenticator::read(is_keyed.then_some(key.as_path())).unwrap();
        let entry = record::AuditEntry { at: at(0), event: "e", fields: Map::new() };
        let link = entry.compose(Link::START, &sealer, &mut line).unwrap();
        let (body, _) = str::from_utf8(&line).unwrap().split_once(",\"hash\":").unwrap();
        let none = "0".repeat(64);
        let expected =
            r#"{"seq":1,"at":"2023-11-14T22:13:20.000Z","event":"e","prev":""#.to_owned() + &none + "\"";
        assert_eq!(body, expected);
        link.hash.to_string()
    };
    assert_eq!(hash_of(false), "b6e1a25008d4d587eef8281b0a497f5f21af04ded6333ce59855c32a56146b6a");
    assert_eq!(hash_of(true), "e7556045451aa43a9a8cb999b4eec1a42f45e9b54c4a522ec9271d0663cdcb1b");
}

#[test]
fn what_cannot_be_a_record_is_refused_and_the_log_goes_on() {
    let place = Place::new(false);
    let mut log = place.open();
    let long = "x".repeat(70_000);
    let named = |key: &str, value: &str| Map::from_iter([(key.to_owned(), Value::from(value))]);
    for (event, fields, said) in [
        ("", Map::new(), "no name of an event"),
        ("Quoted\"", Map::new(), "no name of an event"),
        ("fine", named("hash", "x"), "cannot be called `hash`"),
        ("fine", named("seq", "x"), "cannot be called `seq`"),
        ("fine", named("long", &long), "is longer than 65536"),
    ] {
        let refused = log.append(at(0), event, fields).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
        assert!(refused.to_string().contains(said), "{refused}");
    }
    let longest = 65_536 - 300;
    assert_eq!(log.append(at(0), "fine", named("long", &long[..longest])).unwrap(), 2);
    log.sync().unwrap();
    place.assert_whole();
}

#[test]
fn what_is_printed_tells_people_and_programs_the_same() {
    let place = Place::new(true);
    let mut log = place.open();
    for number in 0..40 {
        append(&mut log, number);
    }
    log.sync().unwrap();
    append(&mut log, 40);
    drop(log);
    let found = place.assert_whole();
    let json: Value = serde_json::from_str(&found.to_json()).unwrap();
    assert_eq!(
        (&json["ok"], &json["broken"], &json["seal"]),
        (&true.into(), &Value::Null, &"hmac-sha256".into())
    );
    let (records, head) = (json["records"].as_u64().unwrap(), json["head_seq"].as_u64().unwrap());
    assert_eq!((&json["first"]["seq"], json["last"]["seq"].as_u64()), (&1.into(), Some(records)));
    assert_eq!(head, records - 1);
    let hash = json["last"]["hash"].as_str().unwrap().to_owned();
    let text = found.to_string();
    assert!(text.contains(&format!("\nrecords     {records}: 1 to {records}, from ")), "{text}");
    assert!(text.contains(&format!("\nend         1 records behind record {head}, ")), "{text}");
    assert!(text.ends_with(&format!("\nlast        {records}:{hash}\n")), "{text}");

    let expect = |text: String| {
        let files = Files { expect_last: Some(Link::parse(&text).unwrap()), ..place.files() };
        verify(&files).unwrap().broken.map(|broken| broken.fault)
    };
    assert_eq!(expect(format!("{records}:{hash}")), None);
    assert_eq!(expect(format!("{}:{hash}", records - 1)), Some(ChainError::Unexpected));
    assert_eq!(expect(format!("{}:{hash}", records + 1)), Some(ChainError::CutOff { last: records + 1 }));
    for wrong in ["", "1", "x:y", "01:00", &format!("1:{}", hash.to_uppercase())] {
        assert!(Link::parse(wrong).is_err(), "{wrong}");
    }

    fs::remove_file(&found.files[0]).unwrap();
    let later = verify(&Files { from_start: false, ..place.files() }).unwrap();
    assert!(
        later.broken.is_none() && later.to_string().contains("older records are not among these"),
        "{later}"
    );
    let broken = verify(&place.files()).unwrap();
    assert!(
        broken.to_string().contains("\nbroken      ") && !broken.to_string().contains("\nlast "),
        "{broken}"
    );
    let json: Value = serde_json::from_str(&broken.to_json()).unwrap();
    assert_eq!(
        (&json["ok"], &json["broken"]["fault"], &json["broken"]["line"]),
        (&false.into(), &"not_from_start".into(), &1.into())
    );
    assert!(broken.into_result().unwrap_err().to_string().contains("line 1, record "));
}

#[test]
fn a_file_that_a_newer_server_began_is_refused_by_its_version_and_left_as_it_is() {
    for (is_keyed, is_in_the_head) in [(false, false), (true, false), (false, true), (true, true)] {
        let place = Place::new(is_keyed);
        let mut log = place.open();
        append(&mut log, 1);
        log.sync().unwrap();
        drop(log);
        let found = place.assert_whole().last.unwrap();
        let sealer = mac::Authenticator::read(place.options.key_file.as_deref()).unwrap();
        let fields = Map::from_iter([("format".to_owned(), Value::from(2))]);
        let entry = record::AuditEntry { at: at(2), event: record::CONTINUED, fields };
        let (last, mut line) = (Link { seq: found.seq, hash: found.hash }, Vec::new());
        let newest = entry.compose(last, &sealer, &mut line).unwrap();
        fs::rename(place.path(), numbered(place.path(), 1)).unwrap();
        fs::write(place.path(), &line).unwrap();
        if is_in_the_head {
            head::Head::open(place.path()).unwrap().write(newest, &sealer).unwrap();
        }
        let head = fs::read(place.head()).unwrap();
        assert_eq!(place.fault(), Some(ChainError::Newer { format: 2 }));
        let said = place.refused();
        let expected = "audit.log: line 1, record 3: a newer varta-server wrote this (version 2 of the format; this one \
                        knows 1); use that one, or give this one another file with --audit-log";
        assert!(said.ends_with(expected), "{said}");
        assert_eq!((fs::read(place.path()).unwrap(), fs::read(place.head()).unwrap()), (line, head));
    }
}

#[test]
fn a_key_is_long_and_closed_to_others() {
    let mut place = Place::new(false);
    let short = write_key(place.directory.path(), "0123456789abcdef0123456789abcde");
    place.options.key_file = Some(short.clone());
    let said = AuditLog::open(&place.options).unwrap_err().to_string();
    assert!(said.contains("at least 32"), "{said}");
    fs::set_permissions(&short, fs::Permissions::from_mode(0o644)).unwrap();
    let said = AuditLog::open(&place.options).unwrap_err().to_string();
    assert!(said.contains("chmod 600"), "{said}");
    assert!(!place.path().exists() && !place.head().exists());
}
