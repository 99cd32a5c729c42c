//! UDP sockets: how one is bound, and the admission of plaintext datagrams, whose sender nothing attests.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use socket2::{Domain, Protocol, Socket, Type};
use varta_proto::DecodeError;

use crate::base::error::Error;
use crate::base::given_sockets::GivenSockets;
use crate::domain::beat::Sender;
use crate::domain::outcome::FrameOutcome;
use crate::ingest::message::Message;
use crate::ingest::recvmmsg::Datagram;

/// The settings of one UDP socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) address: SocketAddr,
    /// Whether an IPv6 wildcard socket leaves the IPv4 addresses to another socket.
    pub(crate) only_v6: bool,
    /// The requested receive buffer in bytes, as the kernel counts them.
    pub(crate) receive_buffer: usize,
}

/// Takes the given socket of this address, or binds one, as [`bind`] does.
///
/// # Errors
///
/// The address cannot be bound, or the given socket cannot be used.
pub(super) fn bind_or_take(
    option: &'static str,
    options: &Options,
    given: &GivenSockets,
) -> Result<(OwnedFd, SocketAddr), Error> {
    let Some(given) = given.take_inet(options.address, Type::DGRAM, option)? else {
        return bind(option, options);
    };
    let failed = |source| Error::UdpAddress { option, address: options.address, source };
    let socket = given.into_socket();
    enlarge_queue(&socket, options.receive_buffer).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?.as_socket().unwrap_or(options.address);
    Ok((socket.into(), bound))
}

/// Binds a non-blocking socket. Returns it with its address, which has the chosen port if port 0 was
/// requested.
///
/// # Errors
///
/// The address cannot be bound; the error names `option`, which requested it.
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

/// Requests a receive buffer of `bytes`. The granted size must be read back: without `CAP_NET_ADMIN` the
/// kernel silently limits it to `net.core.rmem_max`.
pub(super) fn enlarge_queue(socket: &Socket, bytes: usize) -> io::Result<()> {
    // The kernel doubles the value, for its own overhead.
    let told = bytes / 2;
    if setsockopt(socket, RcvBufForce, &told).is_ok() { Ok(()) } else { socket.set_recv_buffer_size(told) }
}

/// Decodes a datagram, with the sender that it claims. Returns why it is refused otherwise.
pub(super) fn judge(datagram: &Datagram<'_>) -> Result<(Sender, Message), FrameOutcome> {
    let source = datagram.source.ok_or(FrameOutcome::Unattested)?;
    if datagram.truncated {
        return Err(FrameOutcome::Malformed(DecodeError::BadLength { actual: datagram.payload.len() }));
    }
    let (pid, message) = Message::decode(datagram.payload).map_err(FrameOutcome::Malformed)?;
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
