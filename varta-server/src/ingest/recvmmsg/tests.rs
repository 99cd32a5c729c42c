//! Tests of receiving batches of datagrams.

use std::io::{IoSlice, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};

use super::*;
use crate::observe::pidfd::{ExitPoll, Pidfd};

fn pair() -> (Socket, UnixDatagram, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
    receiver.set_passcred(true).unwrap();
    receiver.bind(&SockAddr::unix(dir.path().join("socket")).unwrap()).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(dir.path().join("socket")).unwrap();
    (receiver, sender, dir)
}

#[test]
fn nothing_waiting_would_block() {
    let (receiver, _sender, _dir) = pair();
    let mut buffer = ReceiveBuffer::for_unix();
    assert_eq!(
        buffer.receive(receiver.as_fd(), Passed::Descriptor).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    assert_eq!(buffer.datagrams().count(), 0);
}

#[test]
fn every_datagram_of_every_batch_comes_with_its_sender() {
    let (receiver, sender, _dir) = pair();
    let mut buffer = ReceiveBuffer::for_unix();
    for round in 0..100_u8 {
        let batch = 1 + usize::from(round) % 5;
        for number in 0..batch {
            sender.send(&[round, u8::try_from(number).unwrap()]).unwrap();
        }
        assert_eq!(buffer.receive(receiver.as_fd(), Passed::Descriptor).unwrap(), batch);
        for (number, datagram) in buffer.datagrams().enumerate() {
            assert_eq!(datagram.payload, [round, u8::try_from(number).unwrap()]);
            assert!(!datagram.truncated && !datagram.extra_ancillary);
            assert_eq!(datagram.credentials.map(|credentials| credentials.pid), Some(std::process::id()));
        }
    }
}

fn pass(sender: &UnixDatagram, descriptors: &[RawFd]) {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let bytes = [IoSlice::new(&[7])];
    sendmsg::<()>(sender.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None).unwrap();
}

#[test]
fn one_descriptor_is_taken_with_a_datagram_and_owned() {
    let (receiver, sender, _dir) = pair();
    let mut buffer = ReceiveBuffer::for_unix();
    let (reader, writer) = std::io::pipe().unwrap();
    sender.send(&[1]).unwrap();
    pass(&sender, &[reader.as_raw_fd()]);
    pass(&sender, &[reader.as_raw_fd(), reader.as_raw_fd()]);
    drop(reader);
    assert_eq!(buffer.receive(receiver.as_fd(), Passed::Descriptor).unwrap(), 3);
    let seen: Vec<_> = buffer
        .datagrams()
        .map(|one| (one.has_descriptor, one.extra_ancillary, one.credentials.is_some()))
        .collect();
    assert_eq!(seen, [(false, false, true), (true, false, true), (true, true, true)]);
    let descriptors = buffer.take_descriptors();
    assert_eq!(descriptors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
    assert!(buffer.take_descriptors().is_empty());
    (&writer).write_all(&[1]).unwrap();
    drop(descriptors);
    assert_eq!((&writer).write_all(&[1]).unwrap_err().kind(), io::ErrorKind::BrokenPipe, "all are closed");
}

#[test]
fn no_descriptor_is_taken_where_none_is_wanted() {
    let (receiver, sender, _dir) = pair();
    let mut buffer = ReceiveBuffer::for_unix();
    pass(&sender, &[receiver.as_raw_fd()]);
    buffer.receive(receiver.as_fd(), Passed::Nothing).unwrap();
    let seen: Vec<_> = buffer
        .datagrams()
        .map(|one| (one.has_descriptor, one.extra_ancillary, one.credentials.is_some()))
        .collect();
    assert_eq!(seen, [(false, true, true)]);
    assert!(buffer.take_descriptors().is_empty());
}

#[test]
fn a_longer_datagram_is_seen_to_be_longer() {
    let (receiver, sender, _dir) = pair();
    let mut buffer = ReceiveBuffer::for_unix();
    sender.send(&[1; ROOM + 1]).unwrap();
    sender.send(&[2; ROOM]).unwrap();
    sender.send(&[]).unwrap();
    buffer.receive(receiver.as_fd(), Passed::Descriptor).unwrap();
    let seen: Vec<_> =
        buffer.datagrams().map(|datagram| (datagram.payload.len(), datagram.truncated)).collect();
    assert_eq!(seen, [(ROOM, true), (ROOM, false), (0, false)]);
}

#[test]
fn without_credentials_there_are_none() {
    let (receiver, sender, _dir) = pair();
    receiver.set_passcred(false).unwrap();
    let mut buffer = ReceiveBuffer::for_unix();
    sender.send(&[1]).unwrap();
    buffer.receive(receiver.as_fd(), Passed::Descriptor).unwrap();
    assert!(buffer.datagrams().all(|datagram| datagram.credentials.is_none()));
}

#[test]
fn a_udp_sender_is_known_by_its_address_in_both_families() {
    for loopback in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(receiver) = UdpSocket::bind(loopback) else { continue };
        let sender = UdpSocket::bind(loopback).unwrap();
        sender.send_to(b"one", receiver.local_addr().unwrap()).unwrap();
        sender.send_to(b"two", receiver.local_addr().unwrap()).unwrap();
        let mut buffer = ReceiveBuffer::for_udp();
        assert_eq!(buffer.receive(receiver.as_fd(), Passed::Descriptor).unwrap(), 2);
        let received: Vec<_> = buffer.datagrams().map(|one| (one.payload, one.source)).collect();
        let source = Some(sender.local_addr().unwrap());
        assert_eq!(received, [(&b"one"[..], source), (&b"two"[..], source)]);
    }
}

/// A receiver that asks for pidfds; `None` where the kernel has none to pass.
fn with_pidfds() -> Option<(Socket, UnixDatagram, tempfile::TempDir)> {
    let (receiver, sender, dir) = pair();
    pass_pidfds(receiver.as_fd(), true).ok()?;
    Some((receiver, sender, dir))
}

#[test]
fn the_pidfd_of_the_sender_comes_with_every_datagram_and_behind_what_it_passes() {
    let Some((receiver, sender, _dir)) = with_pidfds() else { return };
    let mut buffer = ReceiveBuffer::for_unix();
    let (reader, writer) = std::io::pipe().unwrap();
    sender.send(&[1]).unwrap();
    pass(&sender, &[reader.as_raw_fd()]);
    drop(reader);
    buffer.receive(receiver.as_fd(), Passed::DescriptorAndPidfd).unwrap();
    let seen: Vec<_> = buffer
        .datagrams()
        .map(|one| (one.has_descriptor, one.extra_ancillary, one.credentials.is_some()))
        .collect();
    assert_eq!(seen, [(false, false, true), (true, false, true)]);
    let pidfds = buffer.take_pidfds();
    assert_eq!(pidfds.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
    for (_, pidfd) in pidfds {
        assert_eq!(Pidfd::of_sender(pidfd).ask(), ExitPoll::Alive, "this process");
    }
    assert!(buffer.take_pidfds().is_empty());
    drop(buffer.take_descriptors());
    assert_eq!((&writer).write_all(&[1]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn of_more_descriptors_than_one_all_others_are_closed_at_once() {
    let Some((receiver, sender, _dir)) = with_pidfds() else { return };
    let mut buffer = ReceiveBuffer::for_unix();
    for count in 2..=20 {
        let (first, _writer) = std::io::pipe().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut descriptors = vec![reader.as_raw_fd(); count];
        descriptors[0] = first.as_raw_fd();
        pass(&sender, &descriptors);
        drop(reader);
        buffer.receive(receiver.as_fd(), Passed::DescriptorAndPidfd).unwrap();
        assert!(buffer.datagrams().all(|one| one.has_descriptor && one.extra_ancillary), "{count}");
        assert_eq!((&writer).write_all(&[1]).unwrap_err().kind(), io::ErrorKind::BrokenPipe, "{count}");
        assert_eq!(buffer.take_descriptors().len(), 1, "{count}");
        drop(buffer.take_pidfds());
    }
}
