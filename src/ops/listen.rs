//! Binds a TCP port from a flag, with the meaning that such a flag has in Thanos.
//!
//! A port is first reserved, then listened on: a server that is not ready to answer holds its port, so that a conflict
//! is reported at start, and refuses connections.
//!
//! `:10902`, `0.0.0.0:10902` and `[::]:10902` all mean every address of the host, IPv4 and IPv6 at once: a cluster that
//! has only IPv6 works with the default flags.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel may hold for us before we accept them; it caps this at its own limit.
const BACKLOG: i32 = 1024;

/// A port could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address:?} (flag {flag}): {cause}{hint}")]
pub struct BindError {
    address: String,
    flag: &'static str,
    hint: &'static str,
    /// Part of the text, and so no source that would be printed once more.
    cause: io::Error,
}

/// A port that is ours and refuses connections until [`Reserved::listen`]. Dropping it frees the port.
#[derive(Debug)]
pub struct Reserved {
    socket: Socket,
    address: SocketAddr,
    asked: String,
    flag: &'static str,
}

/// Reserves `address` (`host:port`, the host may be empty): no other process can bind it, and nobody can connect to it. An
/// error names `flag`.
///
/// # Errors
/// The address cannot be resolved or bound.
pub async fn reserve(address: &str, flag: &'static str) -> Result<Reserved, BindError> {
    let bound = bind(address).await.and_then(|socket| {
        let address = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::other("the socket has no IP address"))?;
        Ok((socket, address))
    });
    match bound {
        Ok((socket, bound)) => Ok(Reserved {
            socket,
            address: bound,
            asked: address.to_owned(),
            flag,
        }),
        Err(cause) => Err(BindError::new(address, flag, cause)),
    }
}

/// Binds `address` and listens, and returns the address; an error names `flag`.
///
/// # Errors
/// The address cannot be resolved or bound.
pub async fn listen(address: &str, flag: &'static str) -> Result<(TcpListener, SocketAddr), BindError> {
    let reserved = reserve(address, flag).await?;
    let address = reserved.local_address();
    Ok((reserved.listen()?, address))
}

impl Reserved {
    /// The address that is bound: with the real port where 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections from now on, on the Tokio runtime that this is called in.
    ///
    /// # Errors
    /// The kernel refuses. The port being taken is possible only after a restart while old connections were still being
    /// forgotten.
    pub fn listen(self) -> Result<TcpListener, BindError> {
        let Self {
            socket, asked, flag, ..
        } = self;
        // The connections inherit it; without it a restart would have to wait for the old ones to be forgotten.
        let listening = socket
            .set_reuse_address(true)
            .and_then(|()| socket.listen(BACKLOG))
            .and_then(|()| TcpListener::from_std(socket.into()));
        listening.map_err(|cause| BindError::new(&asked, flag, cause))
    }
}

impl BindError {
    fn new(address: &str, flag: &'static str, cause: io::Error) -> Self {
        Self {
            address: address.to_owned(),
            flag,
            hint: match cause.kind() {
                io::ErrorKind::AddrInUse => "; another process holds this port: stop it or choose another port",
                io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher port",
                io::ErrorKind::InvalidInput => "; give host:port, such as 0.0.0.0:10902 or :10902",
                _ => "",
            },
            cause,
        }
    }
}

async fn bind(address: &str) -> io::Result<Socket> {
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the port is missing"))?;
    let port: u16 = port
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the port is not a number from 0 to 65535"))?;
    if matches!(host, "" | "0.0.0.0" | "[::]") {
        return everywhere(port);
    }
    // The resolver knows the zone of an IPv6 address, without brackets.
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for candidate in tokio::net::lookup_host((host, port)).await? {
        match bind_one(candidate, false) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// All addresses of the host; only those of IPv4 where the kernel has no IPv6.
fn everywhere(port: u16) -> io::Result<Socket> {
    match bind_one((Ipv6Addr::UNSPECIFIED, port).into(), true) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind_one((Ipv4Addr::UNSPECIFIED, port).into(), false),
        bound => bound,
    }
}

/// Two sockets that both reuse addresses can hold the same port until one of them listens. So ours does so only where
/// old connections of the port are still being forgotten; there a second holder is found out when it listens.
fn bind_one(address: SocketAddr, both_families: bool) -> io::Result<Socket> {
    match bind_with(address, both_families, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bind_with(address, both_families, true),
        bound => bound,
    }
}

fn bind_with(address: SocketAddr, both_families: bool, reuse: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(reuse)?;
    if both_families {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn an_empty_host_means_all_addresses_of_both_families() {
        for address in [":0", "0.0.0.0:0", "[::]:0"] {
            let (_listener, bound) = listen(address, "--http-address").await.unwrap();
            TcpStream::connect((Ipv4Addr::LOCALHOST, bound.port())).await.unwrap();
            if bound.is_ipv6() {
                TcpStream::connect((Ipv6Addr::LOCALHOST, bound.port())).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_reserved_port_is_held_and_refuses_until_it_listens() {
        let reserved = reserve("127.0.0.1:0", "--grpc-address").await.unwrap();
        let address = reserved.local_address();
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let taken = reserve(&address.to_string(), "--grpc-address").await.unwrap_err();
        assert!(taken.to_string().contains("another process holds this port"), "{taken}");
        let shown = format!("{:#}", anyhow::Error::from(taken));
        assert_eq!(
            shown.matches("os error").count(),
            1,
            "each cause is named once: {shown}"
        );
        let listener = reserved.listen().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        // The side that closes first keeps the port for a while, which must not hold up a restart.
        drop(server.unwrap());
        drop((client.unwrap(), listener));
        let again = reserve(&address.to_string(), "--grpc-address").await.unwrap();
        again.listen().unwrap();
    }

    #[tokio::test]
    async fn a_name_and_a_single_address_are_bound() {
        // Where the kernel has no IPv6, its addresses are for nobody.
        let v6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        for (address, can) in [
            ("localhost:0", true),
            ("127.0.0.1:0", true),
            ("[127.0.0.1]:0", true),
            ("[localhost]:0", true),
            ("[::1]:0", v6),
            // The loopback interface has the number 1.
            ("[::1%1]:0", v6),
        ] {
            match listen(address, "--http-address").await {
                Ok((_listener, bound)) => assert!(can && bound.ip().is_loopback(), "{address}: {bound}"),
                Err(error) => assert!(!can, "{error}"),
            }
        }
    }

    #[tokio::test]
    async fn errors_name_the_address_the_flag_and_the_way_out() {
        let (_listener, bound) = listen("127.0.0.1:0", "--http-address").await.unwrap();
        let held = bound.to_string();
        for (address, wanted) in [
            (held.as_str(), "another process holds this port"),
            ("10902", "the port is missing"),
            ("localhost:http", "not a number from 0 to 65535"),
        ] {
            let error = listen(address, "--http-address").await.unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
            assert!(error.contains("--http-address") && error.contains(address), "{error}");
        }
    }
}
