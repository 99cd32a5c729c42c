use super::*;
use std::os::unix::fs::symlink;

fn nothing(_: &str) -> Option<OsString> {
    None
}

fn candidate(path: &Path, owner: Option<u32>) -> SocketCandidate {
    SocketCandidate { address: socket_address(path).unwrap(), owner }
}

fn paths(transport: &UdsTransport) -> Vec<&Path> {
    transport.candidates.iter().map(SocketCandidate::path).collect()
}

#[test]
fn varta_socket_comes_before_every_other_path() {
    let lookup = |name: &str| (name == "VARTA_SOCKET").then(|| "/srv/varta.sock".into());
    assert_eq!(paths(&UdsTransport::at_default(lookup).unwrap()), [Path::new("/srv/varta.sock")]);
}

#[test]
fn an_empty_varta_socket_counts_as_none() {
    let lookup = |name: &str| (name == "VARTA_SOCKET").then(OsString::new);
    let transport = UdsTransport::at_default(lookup).unwrap();
    assert_eq!(paths(&transport), address::candidate_socket_paths_from(sys::effective_uid(), nothing));
}

#[test]
fn the_first_candidate_that_answers_is_the_only_one_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let [gone, stale, live, unasked] = ["gone", "stale", "live", "unasked"].map(|name| dir.path().join(name));
    drop(UnixDatagram::bind(&stale).unwrap());
    let server = UnixDatagram::bind(&live).unwrap();
    let _other = UnixDatagram::bind(&unasked).unwrap();
    let candidates = [&gone, &stale, &live, &unasked].map(|path| candidate(path, None));

    let mut transport = UdsTransport { socket: None, candidates: candidates.into() };
    assert_eq!(transport.send(&[7; 32]).unwrap(), 32);
    assert_eq!(paths(&transport), [live]);
    drop(server);
    assert_eq!(transport.reconnect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_reconnect_that_fails_leaves_the_connection_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (dir.path().join("varta.sock"), dir.path().join("elsewhere"));
    let server = UnixDatagram::bind(&path).unwrap();
    let mut transport = UdsTransport::connect(&path).unwrap();
    fs::rename(&path, &elsewhere).unwrap();

    assert_eq!(transport.reconnect().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(transport.send(&[7; 32]).unwrap(), 32);
    assert_eq!(server.recv(&mut [0; 64]).unwrap(), 32);
}

#[test]
fn a_directory_below_tmp_has_to_be_our_own() {
    let dir = tempfile::tempdir().unwrap();
    let (own, link) = (dir.path().join("own"), dir.path().join("link"));
    fs::create_dir(&own).unwrap();
    symlink(&own, &link).unwrap();
    let _server = UnixDatagram::bind(own.join("varta.sock")).unwrap();
    let uid = sys::effective_uid();
    let connect = |dir: &Path, owner| candidate(&dir.join("varta.sock"), Some(owner)).connect();

    assert!(connect(&own, uid).is_ok());
    assert_eq!(connect(&own, uid + 1).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(connect(&link, uid).unwrap_err().kind(), io::ErrorKind::PermissionDenied);

    let owners = |transport: &UdsTransport| {
        transport.candidates.iter().map(|candidate| candidate.owner).collect::<Vec<_>>()
    };
    let lookup = |name: &str| (name == "RUNTIME_DIRECTORY").then(|| "/tmp/varta".into());
    assert_eq!(owners(&UdsTransport::at_default(lookup).unwrap())[..2], [Some(uid), None]);
}

#[test]
fn a_path_that_no_socket_can_have_is_refused_at_once() {
    for path in ["", "/with\0zero", &"x".repeat(200)] {
        let error = UdsTransport::at(path.as_ref()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}: {error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn a_connect_error_names_the_path_and_says_what_to_do() {
    let message = |paths: &[&str], hint, source: io::Error| {
        let paths = paths.join(" or ");
        ConnectError { paths, hint, source }.into_io().to_string()
    };
    let table = [
        (
            message(&["/run/a"], ConnectHint::Path, io::ErrorKind::NotFound.into()),
            "cannot connect to /run/a: entity not found; \
             start varta-server, or connect to the path at which it listens",
        ),
        (
            message(&["/run/a", "/tmp/b"], ConnectHint::Environment, io::ErrorKind::NotFound.into()),
            "cannot connect to /run/a or /tmp/b: entity not found; \
             start varta-server, or name its socket in VARTA_SOCKET",
        ),
        (
            message(&["/run/a"], ConnectHint::Path, io::ErrorKind::ConnectionRefused.into()),
            "cannot connect to /run/a: connection refused; the server that made this socket is gone: \
             start varta-server, or connect to the path at which it listens",
        ),
        (
            message(&["/tmp/b"], ConnectHint::Environment, io::ErrorKind::PermissionDenied.into()),
            "cannot connect to /tmp/b: permission denied; its directory belongs to somebody else: \
             remove it, or name its socket in VARTA_SOCKET",
        ),
        (
            message(&["/run/a"], ConnectHint::Path, io::Error::from_raw_os_error(libc::EACCES)),
            "cannot connect to /run/a: Permission denied (os error 13); \
             the server's --socket-mode and --socket-group say who may connect",
        ),
    ];
    for (message, expected) in table {
        assert_eq!(message, expected);
    }
}
