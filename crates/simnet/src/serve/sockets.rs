//! The listeners of the simulated network: those that accept and those that stay silent.
//!
//! The listener of a port that many nodes share is bound to 0.0.0.0 and accepts for all of
//! 127.0.0.0/8. Silent addresses on the same port are bound in addition; the kernel prefers the
//! more specific listener.
//!
//! Invariant: 1. A shared port is first bound exclusively, so that this fails if another program or
//! another simulated network uses it; only then may the more specific listeners share it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use bitdash_core::vocabulary::address::Address;

/// A listener for all addresses of a port on the loopback interface; with why it is on all
/// interfaces where the system does not bind it to one.
pub(super) fn shared(port: u16) -> io::Result<(mio::net::TcpListener, Option<io::Error>)> {
    let listener = listen(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port), false, BACKLOG)?;
    sockopt::set_socket_reuseport(&listener, true)?;
    // Before Linux 5.7 it takes a capability.
    let refused = socket2::SockRef::from(&listener).bind_device(Some(b"lo")).err();
    Ok((into_mio(listener)?, refused))
}

/// A listener for one address.
pub(super) fn own(address: Address) -> io::Result<mio::net::TcpListener> {
    into_mio(listen(SocketAddrV4::new(address.ip(), address.port()), false, BACKLOG)?)
}

/// A listener with a full queue: the kernel drops all connection attempts.
pub(super) fn silent(address: Address, beside_shared: bool) -> io::Result<OwnedFd> {
    let place = SocketAddrV4::new(address.ip(), address.port());
    let listener = listen(place, beside_shared, 0)?;
    // A backlog of 0 leaves room for one connection. This one stays queued although its client is
    // gone.
    let filler = socket()?;
    sockopt::set_socket_linger(&filler, Some(Duration::ZERO))?;
    rustix::net::connect(&filler, &place)?;
    Ok(listener)
}

/// Whether an address refuses connections.
pub(super) fn refuses(address: Address) -> io::Result<bool> {
    let socket = socket()?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    match rustix::net::connect(&socket, &SocketAddrV4::new(address.ip(), address.port())) {
        Err(rustix::io::Errno::CONNREFUSED) => Ok(true),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(false),
    }
}

/// Makes the connection close with a reset.
pub(super) fn reset(stream: &mio::net::TcpStream) {
    // If this fails, it closes with FIN.
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Raises the soft limit on open files to the hard limit and returns the limit.
pub(super) fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If this fails, the caller's check reports it.
        let _ =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn listen(place: SocketAddrV4, beside_shared: bool, backlog: i32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    // Connections of an earlier run may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if beside_shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    rustix::net::bind(&socket, &place)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn into_mio(listener: OwnedFd) -> io::Result<mio::net::TcpListener> {
    let listener = TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    Ok(mio::net::TcpListener::from_std(listener))
}

const BACKLOG: i32 = 4096;
