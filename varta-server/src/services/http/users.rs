//! Users with passwords, by a file of htpasswd: each line is a name, a colon and a hash of bcrypt.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::str;
use std::sync::{Mutex, PoisonError};

use bcrypt::HashParts;
use ring::hmac;
use ring::rand::SystemRandom;
use subtle::{Choice, ConstantTimeEq};

use crate::base::error::Error;
use crate::base::files::private_file;

/// The most bytes of a file.
const MAX_FILE_LEN: usize = 64 << 10;
/// The most users of a file.
const MAX_USERS: usize = 64;
/// The most bytes of a name.
const MAX_NAME_LEN: usize = 255;
/// The costs that a hash may have: with each the check of a password takes twice as long, with the greatest about a
/// second.
const MIN_COST: u32 = 4;
const MAX_COST: u32 = 14;

/// The users of a file. `Debug` shows neither names nor hashes.
pub struct Users {
    users: Vec<User>,
    /// Of what was accepted, for each user the name, the hash and the last password under `key`: the next check of the
    /// same takes no time.
    accepted: Mutex<Vec<Option<[u8; 32]>>>,
    /// Made for this process, so that a copy of its memory is of no use for guessing.
    key: hmac::Key,
}

struct User {
    name: String,
    hash: String,
}

/// A name and a password, as a client shows them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'r> {
    pub(super) name: &'r [u8],
    pub(super) password: &'r [u8],
}

impl Users {
    /// The stand-in for users that are not read.
    pub(super) fn nobody() -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[]);
        Users { users: Vec::new(), accepted: Mutex::default(), key }
    }

    /// Reads a file, which must be closed to others. Empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    ///
    /// It cannot be read, is open to others, names no user or too many, or has a line that is no user with a hash of
    /// bcrypt whose cost is 4 to 14.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refused = |fault: String| {
            Error::configuration_file(path, format!("{fault}; see --metrics-basic-auth-file"))
        };
        let content = private_file::read(path, MAX_FILE_LEN).map_err(refused)?;
        let text = str::from_utf8(&content).map_err(|_| refused("is not UTF-8 text".to_owned()))?;
        let users = parse(text).map_err(refused)?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| refused("cannot be used, because the system gives no random numbers".to_owned()))?;
        Ok(Users { accepted: Mutex::new(vec![None; users.len()]), users, key })
    }

    /// Whether this was accepted before. It takes as long for every name and password of the same length.
    pub(super) fn remember(&self, shown: Shown<'_>) -> bool {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut is_one = Choice::from(0);
        for (user, accepted) in self.users.iter().zip(accepted) {
            let digest = self.digest(user, shown);
            let is_known = Choice::from(u8::from(accepted.is_some()));
            is_one |= accepted.unwrap_or_default().ct_eq(&digest) & is_known;
        }
        is_one.into()
    }

    /// Checks a password, which takes as long as the hash says. A name that no user has takes as long as that of one
    /// of the users, always the same.
    pub(super) fn check(&self, shown: Shown<'_>) -> bool {
        let found = self.users.iter().position(|user| user.name.as_bytes() == shown.name);
        let index = found.unwrap_or_else(|| self.stand_in(shown.name));
        let user = &self.users[index];
        // Hashes were checked when they were read.
        let is_right = bcrypt::verify(shown.password, &user.hash).unwrap_or(false) && found.is_some();
        if is_right {
            let digest = self.digest(user, shown);
            self.accepted.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(digest);
        }
        is_right
    }

    /// The user by whose hash an unknown name is checked.
    fn stand_in(&self, name: &[u8]) -> usize {
        let tag = hmac::sign(&self.key, name);
        usize::from(tag.as_ref()[0]) % self.users.len()
    }

    fn digest(&self, user: &User, shown: Shown<'_>) -> [u8; 32] {
        let mut digest = hmac::Context::with_key(&self.key);
        for part in [shown.name, user.hash.as_bytes(), shown.password] {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let tag = digest.sign();
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.users.len())
    }
}

fn parse(text: &str) -> Result<Vec<User>, String> {
    let mut users = Vec::new();
    let mut names = HashSet::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let user = user(line).map_err(|fault| format!("line {}: {fault}", index + 1))?;
        if !names.insert(user.name.clone()) {
            return Err(format!(
                "line {}: an earlier line has the same name; remove one of the two",
                index + 1
            ));
        }
        users.push(user);
    }
    match users.len() {
        0 => Err("names no user; `htpasswd -nB NAME` makes a line".to_owned()),
        1..=MAX_USERS => Ok(users),
        _ => Err(format!("has more than {MAX_USERS} users")),
    }
}

fn user(line: &str) -> Result<User, String> {
    let (name, hash) = line.split_once(':').ok_or("is not NAME:HASH")?;
    if name.is_empty() || name.len() > MAX_NAME_LEN || name.chars().any(char::is_control) {
        return Err(format!(
            "a name has 1 to {MAX_NAME_LEN} bytes, and none of its characters is a control character"
        ));
    }
    if !["$2a$", "$2b$", "$2y$"].iter().any(|version| hash.starts_with(version)) {
        return Err("the password is not hashed by bcrypt; `htpasswd -nB NAME` does that".to_owned());
    }
    let parts: HashParts = hash.parse().map_err(|_| "the hash of bcrypt is damaged".to_owned())?;
    let cost = parts.get_cost();
    if !(MIN_COST..=MAX_COST).contains(&cost) {
        return Err(format!("the cost of the hash is {cost}, and may be {MIN_COST} to {MAX_COST}"));
    }
    Ok(User { name: name.to_owned(), hash: hash.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Of the password `secret`, by crypt(3) of libxcrypt.
    const SECRET: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

    fn read(text: &str, mode: u32) -> Result<Users, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Users::read(&path)
    }

    fn hash_of(password: &str) -> String {
        bcrypt::hash_with_result(password, 4).unwrap().format_for_version(bcrypt::Version::TwoY)
    }

    fn shown<'r>(name: &'r str, password: &'r str) -> Shown<'r> {
        Shown { name: name.as_bytes(), password: password.as_bytes() }
    }

    #[test]
    fn a_password_is_checked_by_its_hash_and_then_remembered_for_its_user_only() {
        let (a, b) = (hash_of("one"), hash_of("two:with a colon").replacen("$2y$", "$2b$", 1));
        let users = read(&format!("# who scrapes\n\na:{a}\nb:{b}  \r\n"), 0o600).unwrap();
        for wrong in [("a", "two"), ("b", "one"), ("c", "one"), ("", ""), ("a", ""), ("a", "one ")] {
            let wrong = shown(wrong.0, wrong.1);
            assert!(!users.remember(wrong) && !users.check(wrong) && !users.remember(wrong), "{wrong:?}");
        }
        for right in [("a", "one"), ("b", "two:with a colon")] {
            let right = shown(right.0, right.1);
            assert!(!users.remember(right) && users.check(right) && users.remember(right), "{right:?}");
        }
        assert!(!users.remember(shown("b", "one")) && !users.remember(shown("c", "one")));
        assert_eq!(format!("{users:?}"), "Users(2)");
    }

    #[test]
    fn hashes_of_another_implementation_are_understood() {
        let users = read(
            "y:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n\
             a:$2a$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n\
             b:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n\
             \u{e4}:$2y$04$ZYXWVUTSRQPONMLKJIHGFev58UsRRWwSKKvTLzkQE9IabGOR5bPsa\n",
            0o600,
        );
        let users = users.unwrap();
        for right in [("y", "secret"), ("a", "secret"), ("b", "secret"), ("\u{e4}", "p\u{e4}ss:w\u{f6}rd")] {
            assert!(users.check(shown(right.0, right.1)), "{right:?}");
        }
    }

    #[test]
    fn an_unknown_name_is_checked_by_the_hash_of_one_user_and_always_the_same() {
        let text: String = (0..8).map(|n| format!("user{n}:{SECRET}\n")).collect();
        let users = read(&text, 0o600).unwrap();
        let stand_ins: Vec<_> = (0..200).map(|n| users.stand_in(format!("nobody{n}").as_bytes())).collect();
        assert!((0..8).all(|user| stand_ins.contains(&user)), "{stand_ins:?}");
        assert_eq!(users.stand_in(b"nobody7"), stand_ins[7]);
        // Also where the password is that of the user whose hash it is.
        let known = read(&format!("a:{}\n", hash_of("one")), 0o600).unwrap();
        assert!(!known.check(shown("nobody", "one")) && !known.remember(shown("nobody", "one")));
    }

    #[test]
    fn each_fault_is_named_and_no_hash_is_repeated() {
        let line = format!("a:{SECRET}");
        let many: String = (0..=MAX_USERS).map(|n| format!("user{n}:{SECRET}\n")).collect();
        for (text, fault) in [
            ("", "names no user; `htpasswd -nB NAME` makes a line"),
            ("# nobody\n", "names no user"),
            (&format!("{line}\nb"), "line 2: is not NAME:HASH"),
            (&format!(":{SECRET}"), "line 1: a name has 1 to 255 bytes"),
            (&format!("a\u{7}:{SECRET}"), "line 1: a name has"),
            (&format!("{line}\n\n{line}"), "line 3: an earlier line has the same name"),
            (
                "a:$apr1$abcdefgh$ijklmnopqrstuvwxyz0123",
                "line 1: the password is not hashed by bcrypt; `htpasswd -nB",
            ),
            ("a:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "not hashed by bcrypt"),
            (&line.replace("$2y$", "$2x$"), "not hashed by bcrypt"),
            (&line[..line.len() - 1], "line 1: the hash of bcrypt is damaged"),
            (&line.replace("$04$", "$xx$"), "line 1: the hash of bcrypt is damaged"),
            (&line.replace("$04$", "$15$"), "line 1: the cost of the hash is 15, and may be 4 to 14"),
            (&line.replace("$04$", "$03$"), "the cost of the hash is 3"),
            (&many, "has more than 64 users"),
            (&"# ".repeat(40_000), "is longer than 65536 bytes"),
        ] {
            let error = read(text, 0o600).unwrap_err();
            let said = error.to_string();
            assert_eq!(error.exit_status(), 2);
            assert!(said.contains(fault) && said.ends_with("see --metrics-basic-auth-file"), "{said}");
            assert!(!said.contains("$2") && !said.contains("abcdefgh"), "{said}");
        }
        assert!(read(&line, 0o644).unwrap_err().to_string().contains("is open to others (mode 0644)"));
    }
}
