//! A UDP socket: how it is made, and whom to believe when nobody vouches for anything.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use socket2::{Domain, Protocol, Socket, Type};
use varta_proto::DecodeError;

use crate::base::error::Error;
use crate::domain::beat::Sender;
use crate::domain::outcome::Outcome;
use crate::ingest::message::Message;
use crate::ingest::recvmmsg::Datagram;

/// Where a UDP socket is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) address: SocketAddr,
    /// Whether a socket for every IPv6 address leaves the IPv4 addresses to another one.
    pub(crate) only_v6: bool,
    /// How many bytes of datagrams are to fit its queue, counted as the kernel does.
    pub(crate) receive_buffer: usize,
}

/// Makes a socket that does not block. Gives it and its address, with the port that was picked if 0 was asked for.
///
/// # Errors
///
/// When the address cannot be had; `option` is by which it was asked for.
pub(super) fn bind(option: &'static str, options: &Options) -> Result<(OwnedFd, SocketAddr), Error> {
    let Options { only_v6, receive_buffer, .. } = *options;
    let address = SocketAddr::new(options.address.ip().to_canonical(), options.address.port());
    let failed = |source| Error::UdpAddress { option, address, source };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))
        .map_err(failed)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6 || address.ip() != Ipv6Addr::UNSPECIFIED).map_err(failed)?;
    }
    enlarge_queue(&socket, receive_buffer).map_err(failed)?;
    socket.bind(&address.into()).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    Ok((socket.into(), bound))
}

/// Asks for a queue of `bytes`. What was granted is to be read back: without a privilege the kernel grants no more than
/// `net.core.rmem_max` and does not say so.
fn enlarge_queue(socket: &Socket, bytes: usize) -> io::Result<()> {
    // The kernel takes twice of what it is told, for what it needs itself.
    let told = bytes / 2;
    if setsockopt(socket, RcvBufForce, &told).is_ok() { Ok(()) } else { socket.set_recv_buffer_size(told) }
}

/// Who claims to have sent what, or why it is refused.
pub(super) fn judge(datagram: &Datagram<'_>) -> Result<(Sender, Message), Outcome> {
    let source = datagram.source.ok_or(Outcome::Unattested)?;
    if datagram.truncated {
        return Err(Outcome::Malformed(DecodeError::BadLength { actual: datagram.payload.len() }));
    }
    let (pid, message) = Message::decode(datagram.payload).map_err(Outcome::Malformed)?;
    Ok((Sender::udp(source, pid), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(address: &str, only_v6: bool) -> Options {
        Options { address: address.parse().unwrap(), only_v6, receive_buffer: 100_000 }
    }

    #[test]
    fn a_socket_for_all_ipv6_addresses_takes_ipv4_too_unless_another_one_does() {
        let Ok((_both, address)) = bind("--udp", &options("[::]:0", false)) else { return };
        let ipv4 = format!("0.0.0.0:{}", address.port());
        assert!(matches!(bind("--udp", &options(&ipv4, false)), Err(Error::UdpAddress { .. })));
        let (_one, address) = bind("--udp", &options("[::]:0", true)).unwrap();
        bind("--udp", &options(&format!("0.0.0.0:{}", address.port()), false)).unwrap();
    }

    #[test]
    fn an_address_is_taken_by_one_server_only() {
        let (_first, address) = bind("--udp", &options("127.0.0.1:0", false)).unwrap();
        let error = bind("--udp", &options(&address.to_string(), false)).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn the_queue_is_as_long_as_asked_for_where_the_kernel_lets_it() {
        let (socket, _) = bind("--udp", &options("127.0.0.1:0", false)).unwrap();
        assert_eq!(socket2::SockRef::from(&socket).recv_buffer_size().unwrap(), 100_000);
    }
}
