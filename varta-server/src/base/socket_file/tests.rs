//! What becomes of the file of a socket.

use super::*;

fn options(path: PathBuf) -> SocketOptions {
    SocketOptions { path, is_default: false, mode: 0o600, group: None }
}

fn bind(options: &SocketOptions) -> Result<(UnixDatagram, SocketFile), Error> {
    SocketFile::bind(options, &SocketFiles::default())
}

#[test]
fn a_file_whose_socket_another_server_has_is_left_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("varta.sock");
    let files = SocketFiles::default();
    let bound = SocketFile::bind(&options(path.clone()), &files).unwrap();
    assert_eq!(files.held().len(), 1);
    files.keep(true);
    drop(bound);
    assert!(path.exists() && files.held().is_empty());
}

#[test]
fn the_file_has_the_mode_asked_for_and_goes_with_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/varta.sock");
    let (_socket, file) = bind(&SocketOptions { mode: 0o660, ..options(path.clone()) }).unwrap();
    assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o660);
    assert_eq!(fs::metadata(dir.path().join("made")).unwrap().mode() & 0o777, 0o700);
    drop(file);
    assert!(!path.exists());
}

#[test]
fn a_live_server_is_refused_and_keeps_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("varta.sock");
    let (_socket, first) = bind(&options(path.clone())).unwrap();
    assert!(matches!(bind(&options(path.clone())), Err(Error::SocketInUse { .. })));
    assert_eq!(identity_of(&fs::symlink_metadata(&path).unwrap()), first.place().identity);
}

#[test]
fn another_type_of_socket_that_is_alive_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("varta.sock");
    let _stream = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(matches!(bind(&options(path)), Err(Error::SocketInUse { .. })));
}

#[test]
fn a_socket_for_connections_is_made_with_the_same_care() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("varta.sock.control");
    let listen = || SocketFile::listen(&path, 1, "--control-socket", &SocketFiles::default());
    let (socket, file) = listen().unwrap();
    assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
    let refused = listen().unwrap_err().to_string();
    assert!(refused.contains("another server") && refused.ends_with("with --control-socket"), "{refused}");
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    drop(file);
    assert!(!path.exists());
    drop((socket, UnixListener::bind(&path).unwrap()));
    assert!(path.exists(), "a plain socket leaves its file behind");
    drop(listen().unwrap());
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    assert!(listen().unwrap_err().to_string().contains("is not a socket"));
}

#[test]
fn the_socket_of_a_dead_server_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("varta.sock");
    drop(UnixDatagram::bind(&path).unwrap());
    assert!(path.exists(), "a plain socket leaves its file behind");
    bind(&options(path)).unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("varta.sock");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&options(path.clone())), Err(Error::NotASocket { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_file_that_another_server_put_in_its_place_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("varta.sock");
    let (_socket, file) = bind(&options(path.clone())).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixDatagram::bind(&path).unwrap();
    drop(file);
    assert!(path.exists());
}

#[test]
fn a_link_that_took_the_files_place_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("varta.sock");
    let (_socket, file) = bind(&options(path.clone())).unwrap();
    let precious = dir.path().join("precious");
    fs::write(&precious, "").unwrap();
    fs::set_permissions(&precious, Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&precious, &path).unwrap();
    assert!(file.place().open_to(None, 0o666).is_err());
    assert_eq!(fs::metadata(&precious).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_default_directory_that_others_may_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    let default = SocketOptions { is_default: true, ..options(dir.path().join("varta.sock")) };
    assert!(matches!(bind(&default), Err(Error::UnsafeDirectory { .. })));
}

#[test]
fn a_pipe_in_the_place_of_the_directory_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let refused = bind(&options(pipe.join("varta.sock"))).unwrap_err().to_string();
    assert!(refused.contains("make the socket's directory: Not a directory"), "{refused}");
}

#[test]
fn a_path_that_is_too_long_is_refused_with_its_length() {
    let long = options(PathBuf::from(format!("/tmp/{}", "x".repeat(120))));
    assert!(matches!(bind(&long), Err(Error::SocketPathTooLong { length: 125, most: 107, .. })));
}
