//! Which sockets are taken, and by what.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};

use super::*;

fn given(sockets: impl IntoIterator<Item = (OwnedFd, &'static str)>) -> GivenSockets {
    let given = sockets.into_iter().map(|(socket, name)| {
        GivenSocket::new(socket, false, Name::OfManager(FIRST, name.to_owned())).unwrap()
    });
    GivenSockets {
        list: Arc::new(Mutex::new(given.collect())),
        files: SocketFiles::default(),
        store: SocketStore::default(),
    }
}

fn read(variables: &[(&str, &str)]) -> Result<Option<Vec<(RawFd, String)>>, Error> {
    let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    descriptors(find, 7, || Some(99))
}

#[test]
fn only_what_is_meant_for_this_process_is_taken_with_the_names_that_there_are() {
    let named = |names: &[(RawFd, &str)]| {
        Some(names.iter().map(|(number, name)| (*number, (*name).to_owned())).collect::<Vec<_>>())
    };
    let table: [(&[(&str, &str)], _); 6] = [
        (&[], None),
        (&[("LISTEN_FDS", "2")], None),
        (&[("LISTEN_FDS", "2"), ("LISTEN_PID", "8")], None),
        (&[("LISTEN_FDS", "1"), ("LISTEN_PID", "7"), ("LISTEN_PIDFDID", "98")], None),
        (
            &[("LISTEN_FDS", "2"), ("LISTEN_PID", "7"), ("LISTEN_PIDFDID", "99")],
            named(&[(3, "unknown"), (4, "unknown")]),
        ),
        (
            &[("LISTEN_FDS", "3"), ("LISTEN_PID", "7"), ("LISTEN_FDNAMES", "a::c:d")],
            named(&[(3, "a"), (4, "unknown"), (5, "c")]),
        ),
    ];
    for (variables, wanted) in table {
        assert_eq!(read(variables).unwrap(), wanted, "{variables:?}");
    }
    for wrong in ["x", "-1", "5000", "99999999999999999999"] {
        let said = read(&[("LISTEN_FDS", wrong), ("LISTEN_PID", "7")]).unwrap_err().to_string();
        assert!(said.contains(&format!("LISTEN_FDS={wrong}")), "{said}");
    }
}

#[test]
fn a_socket_is_taken_once_by_the_option_that_names_its_address() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("varta.sock");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind(udp.local_addr().unwrap()).unwrap();
    let address = udp.local_addr().unwrap();
    let sockets = given([
        (UnixDatagram::bind(&path).unwrap().into(), "varta.socket"),
        (udp.into(), "varta.socket"),
        (tcp.into(), "varta.socket"),
    ]);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    let take = |path: &Path| sockets.take_unix(path, Type::DGRAM, "--socket").unwrap();
    assert!(take(&directory.path().join("other")).is_none());
    let unix = take(&link.join("varta.sock")).unwrap();
    assert!(!unix.removes_file(), "its file stays");
    assert!(take(&path).is_none());
    let inet = |address, kind, option| sockets.take_inet(address, kind, option).unwrap();
    let any_port = SocketAddr::new(address.ip(), 0);
    assert!(inet(SocketAddr::from(([127, 0, 0, 2], 0)), Type::DGRAM, "--udp").is_none());
    assert!(inet(any_port, Type::DGRAM, "--udp").is_some());
    assert!(inet(address, Type::DGRAM, "--udp").is_none());
    let said = sockets.check_all_taken().unwrap_err().to_string();
    assert!(said.contains(&format!("no option names {address} (stream)")), "{said}");
    assert!(inet(address, Type::STREAM, "--metrics-addr").is_some());
    sockets.check_all_taken().unwrap();
}

#[test]
fn where_any_port_will_do_the_name_says_which_socket_is_meant() {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let [plain, sealed] = [bind(), bind()];
    let wanted = sealed.local_addr().unwrap();
    let sockets = given([(plain.into(), "udp"), (sealed.into(), "secure-udp")]);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let taken = sockets.take_inet(any, Type::DGRAM, "--secure-udp").unwrap().unwrap();
    assert_eq!(taken.inet(), Some(wanted));
    assert!(sockets.take_inet(any, Type::DGRAM, "--secure-udp").unwrap().is_none(), "the other is for --udp");
}

#[test]
fn one_of_another_kind_or_that_does_not_listen_is_refused_with_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("varta.sock");
    let sockets = given([(UnixListener::bind(&path).unwrap().into(), "control")]);
    let said = sockets.take_unix(&path, Type::DGRAM, "--socket").unwrap_err().to_string();
    assert!(
        said.starts_with("descriptor 3 (control) of the service manager: --socket")
            && said.contains("is a stream socket, and a datagram socket is needed"),
        "{said}"
    );
    let silent = Socket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    silent.bind(&any.into()).unwrap();
    let sockets = given([(silent.into(), "metrics-addr")]);
    let said = sockets.take_inet(any, Type::STREAM, "--metrics-addr").unwrap_err().to_string();
    assert!(said.contains("does not listen"), "{said}");
}

#[test]
fn what_is_taken_does_not_block_and_is_not_inherited() {
    let (one, _other) = UnixDatagram::pair().unwrap();
    fcntl(&one, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let taken = GivenSocket::new(one.into(), false, Name::OfManager(FIRST, String::new())).unwrap();
    assert!(taken.socket.nonblocking().unwrap());
    assert_eq!(fcntl(&taken.socket, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
    let file = tempfile::tempfile().unwrap();
    assert!(GivenSocket::new(file.into(), false, Name::OfManager(FIRST, String::new())).is_err());
}
