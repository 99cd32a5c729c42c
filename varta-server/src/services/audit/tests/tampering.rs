//! Every form of tampering with a log is detected.

use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::services::audit::tests::*;
use crate::services::audit::{head, mac, record};

/// The files of a log, the oldest first, and its head at the end.
type Contents = Vec<Vec<u8>>;

/// Two logs of several files each, with or without a key, which is the same for both.
fn logs(is_keyed: bool) -> &'static [Contents; 2] {
    static LOGS: [OnceLock<[Contents; 2]>; 2] = [const { OnceLock::new() }; 2];
    LOGS[usize::from(is_keyed)].get_or_init(|| {
        [(); 2].map(|()| {
            let place = Place::new(is_keyed);
            let mut log = place.open();
            for number in 0..30 {
                append(&mut log, number);
            }
            log.sync().unwrap();
            let found = place.assert_whole();
            assert!(found.files.len() >= 3, "{found}");
            found.files.iter().chain([&place.head()]).map(|path| fs::read(path).unwrap()).collect()
        })
    })
}

/// The fault that the verification finds in these files.
fn fault_of(contents: &Contents, is_keyed: bool) -> Option<ChainError> {
    let place = Place::new(is_keyed);
    let (head, files) = contents.split_last().unwrap();
    for (number, bytes) in files.iter().rev().enumerate() {
        let number = u32::try_from(number).unwrap();
        let path = if number == 0 { place.path().to_path_buf() } else { numbered(place.path(), number) };
        fs::write(path, bytes).unwrap();
    }
    fs::write(place.head(), head).unwrap();
    place.fault()
}

/// The lines of the files, newlines included.
type Lines = Vec<Vec<Vec<u8>>>;

fn lines(contents: &Contents) -> Lines {
    let files = &contents[..contents.len() - 1];
    files
        .iter()
        .map(|file| file.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect())
        .collect()
}

#[derive(Clone, Debug)]
enum Tampering {
    Flip {
        file: Index,
        place: Index,
        by: u8,
    },
    Cut {
        file: Index,
        place: Index,
    },
    RemoveLine {
        file: Index,
        line: Index,
    },
    RepeatLine {
        file: Index,
        line: Index,
        behind: Index,
    },
    SwapLines {
        one: (Index, Index),
        other: (Index, Index),
    },
    SwapFiles {
        one: Index,
        other: Index,
    },
    /// A line of the other log, in place of a line or before it.
    Foreign {
        file: Index,
        line: Index,
        from: (Index, Index),
        replaces: bool,
    },
    RemoveFile {
        file: Index,
    },
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let index = any::<Index>;
    let line = || (any::<Index>(), any::<Index>());
    prop_oneof![
        4 => (index(), index(), 1..=u8::MAX).prop_map(|(file, place, by)| Tampering::Flip { file, place, by }),
        2 => (index(), index()).prop_map(|(file, place)| Tampering::Cut { file, place }),
        1 => line().prop_map(|(file, line)| Tampering::RemoveLine { file, line }),
        1 => (index(), index(), index())
            .prop_map(|(file, line, behind)| Tampering::RepeatLine { file, line, behind }),
        1 => (line(), line()).prop_map(|(one, other)| Tampering::SwapLines { one, other }),
        1 => (index(), index()).prop_map(|(one, other)| Tampering::SwapFiles { one, other }),
        1 => (index(), index(), line(), any::<bool>())
            .prop_map(|(file, line, from, replaces)| Tampering::Foreign { file, line, from, replaces }),
        1 => index().prop_map(|file| Tampering::RemoveFile { file }),
    ]
}

impl Tampering {
    /// Applies the change, which may have no effect.
    fn apply(&self, contents: &mut Contents, other: &Contents) {
        let files = contents.len() - 1;
        match self {
            Tampering::Flip { file, place, by } => {
                let bytes = &mut contents[file.index(files + 1)];
                let place = place.index(bytes.len());
                bytes[place] ^= by;
            }
            Tampering::Cut { file, place } => {
                let bytes = &mut contents[file.index(files + 1)];
                bytes.truncate(place.index(bytes.len()));
            }
            Tampering::SwapFiles { one, other } => {
                contents.swap(one.index(files + 1), other.index(files + 1));
            }
            Tampering::RemoveFile { file } => {
                contents.remove(file.index(files));
            }
            Tampering::RemoveLine { .. }
            | Tampering::RepeatLine { .. }
            | Tampering::SwapLines { .. }
            | Tampering::Foreign { .. } => {
                let mut all = lines(contents);
                self.apply_to_lines(&mut all, &lines(other));
                for (bytes, lines) in contents.iter_mut().zip(all) {
                    *bytes = lines.concat();
                }
            }
        }
    }

    fn apply_to_lines(&self, all: &mut [Vec<Vec<u8>>], foreign: &[Vec<Vec<u8>>]) {
        let place = |all: &[Vec<Vec<u8>>], (file, line): &(Index, Index)| {
            let file = file.index(all.len());
            (file, line.index(all[file].len()))
        };
        match self {
            Tampering::RemoveLine { file, line } => {
                let (file, line) = place(all, &(*file, *line));
                all[file].remove(line);
            }
            Tampering::RepeatLine { file, line, behind } => {
                let (file, line) = place(all, &(*file, *line));
                let (again, behind) = (all[file][line].clone(), behind.index(all[file].len()));
                all[file].insert(behind + 1, again);
            }
            Tampering::SwapLines { one, other } => {
                let (one, other) = (place(all, one), place(all, other));
                let line = all[one.0][one.1].clone();
                all[one.0][one.1] = std::mem::replace(&mut all[other.0][other.1], line);
            }
            Tampering::Foreign { file, line, from, replaces } => {
                let (file, line) = place(all, &(*file, *line));
                let from = place(foreign, from);
                let theirs = foreign[from.0][from.1].clone();
                if *replaces { all[file][line] = theirs } else { all[file].insert(line, theirs) }
            }
            _ => unreachable!("the others are no matter of lines"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_changed_removed_repeated_moved_or_cut_is_found(tampering in tampering(), is_keyed: bool) {
        let [log, other] = logs(is_keyed);
        let mut contents = log.clone();
        tampering.apply(&mut contents, other);
        let fault = fault_of(&contents, is_keyed);
        prop_assert_eq!(fault.is_some(), contents != *log, "{:?}", fault);
    }

    #[test]
    fn whatever_stands_in_the_files_is_looked_at_and_found_wanting(
        pieces in proptest::collection::vec((any::<Index>(), any::<Vec<u8>>()), 0..8),
        head: Vec<u8>,
    ) {
        // Random bytes between parts of a record.
        let pieces: Vec<u8> = pieces.iter().flat_map(|(place, bytes)| {
            const PARTS: [&str; 6] = ["{\"seq\":", "1", ",\"at\":\"", "\",\"event\":\"", "\",\"prev\":\"", "\"}\n"];
            [PARTS[place.index(PARTS.len())].as_bytes(), bytes].concat()
        }).collect();
        prop_assert!(fault_of(&vec![pieces, head], false).is_some());
    }
}

#[test]
fn every_byte_counts() {
    let [log, _] = logs(true);
    let last = log.len() - 2;
    // The end of the newest file, and the head.
    let end = log[last].len() - 300..log[last].len();
    let head = 0..log[last + 1].len();
    for (file, place) in end.map(|place| (last, place)).chain(head.map(|place| (last + 1, place))) {
        let mut contents = log.clone();
        contents[file][place] ^= 1;
        assert!(fault_of(&contents, true).is_some(), "{file} {place}");
    }
}

#[test]
fn each_fault_is_called_by_its_name() {
    let [log, other] = logs(true);
    let fault = |change: &dyn Fn(&mut Lines)| {
        let mut all = lines(log);
        change(&mut all);
        let mut contents: Contents = all.iter().map(|file| file.concat()).collect();
        contents.push(log[log.len() - 1].clone());
        fault_of(&contents, true)
    };
    let count = u64::try_from(lines(log).concat().len()).unwrap();
    assert_eq!(fault(&|_| {}), None);
    assert_eq!(fault(&|all| all[0][2][80] ^= 1), Some(ChainError::Changed));
    assert_eq!(fault(&|all| all[0][2].insert(0, b' ')), Some(ChainError::NotARecord));
    assert_eq!(fault(&|all| all[0][2] = vec![b'x'; 70_000]), Some(ChainError::TooLong));
    assert_eq!(fault(&|all| all[0][2..3].fill(Vec::new())), Some(ChainError::MissingBefore { expected: 3 }));
    assert_eq!(fault(&|all| all[0][2] = all[0][1].clone()), Some(ChainError::Repeated));
    assert_eq!(fault(&|all| all[0][2] = lines(other)[0][2].clone()), Some(ChainError::OtherLog));
    assert_eq!(fault(&|all| all[0][0].clear()), Some(ChainError::NoBeginning));
    assert_eq!(
        fault(&|all| all.last_mut().unwrap().last_mut().unwrap().truncate(9)),
        Some(ChainError::Torn { bytes: 9 })
    );
    assert_eq!(
        fault(&|all| all.last_mut().unwrap().last_mut().unwrap().clear()),
        Some(ChainError::CutOff { last: count })
    );
    assert_eq!(fault(&|all| all[0].clear()), Some(ChainError::NotFromStart));
    assert_eq!(fault(&|all| all.fill(Vec::new())), Some(ChainError::CutOff { last: count }));
    assert_eq!(fault_of(logs(false).first().unwrap(), true), Some(ChainError::WrongHead));
    let mut mixed = logs(false)[0].clone();
    mixed.pop();
    mixed.push(log[log.len() - 1].clone());
    assert_eq!(fault_of(&mixed, true), Some(ChainError::OtherSeal));
}

#[test]
fn who_makes_all_hashes_anew_without_the_key_is_found() {
    let [log, _] = logs(true);
    let mut forged: Contents = vec![Vec::new(); log.len()];
    let (mut last, mut line) = (Link::START, Vec::new());
    for (file, lines) in lines(log).iter().enumerate() {
        for record in lines {
            let record: Value = serde_json::from_slice(record).unwrap();
            let mut fields = record.as_object().unwrap().clone();
            fields.retain(|key, _| !["seq", "at", "event", "prev", "hash"].contains(&key.as_str()));
            fields.insert("agent".to_owned(), "somebody else".into());
            let entry = record::AuditEntry { at: at(0), event: record["event"].as_str().unwrap(), fields };
            last = entry.compose(last, &mac::Authenticator::Plain, &mut line).unwrap();
            forged[file].extend_from_slice(&line);
        }
    }
    let place = Place::new(false);
    let head = head::Head::open(place.path()).unwrap();
    head.write(last, &mac::Authenticator::Plain).unwrap();
    *forged.last_mut().unwrap() = fs::read(place.head()).unwrap();
    assert_eq!(fault_of(&forged, false), None, "nobody can tell without the key");
    assert_eq!(fault_of(&forged, true), Some(ChainError::WrongHead));
    // Also with the original head.
    *forged.last_mut().unwrap() = log.last().unwrap().clone();
    assert_eq!(fault_of(&forged, true), Some(ChainError::Changed));
}

/// A rollback of log and head is not detectable from the files alone; it takes the last hash, noted
/// elsewhere.
#[test]
fn a_log_that_was_set_back_with_its_head_is_found_by_the_hash_that_was_noted() {
    let place = Place::new(true);
    let mut log = place.open();
    append(&mut log, 1);
    log.sync().unwrap();
    let before = [place.path().to_path_buf(), place.head()].map(|path| (fs::read(&path).unwrap(), path));
    append(&mut log, 2);
    log.sync().unwrap();
    let json: Value = serde_json::from_str(&place.assert_whole().to_json()).unwrap();
    let noted = format!("{}:{}", json["last"]["seq"], json["last"]["hash"].as_str().unwrap());
    for (bytes, path) in before {
        fs::write(path, bytes).unwrap();
    }
    place.assert_whole();
    let files = Files { expect_last: Some(Link::parse(&noted).unwrap()), ..place.files() };
    let broken = verify(&files).unwrap().broken.unwrap();
    assert_eq!((broken.fault, broken.seq), (ChainError::CutOff { last: 3 }, Some(3)));
}
