//! Binding a TCP port from a flag, with the meaning that such a flag has in Thanos.
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
#[error("cannot listen on {address:?} (flag {flag}): {source}{hint}")]
pub struct BindError {
    address: String,
    flag: &'static str,
    hint: &'static str,
    source: io::Error,
}

/// Binds `address` (`host:port`, the host may be empty), and says which address that became; an error names `flag`.
pub async fn listen(address: &str, flag: &'static str) -> Result<(TcpListener, SocketAddr), BindError> {
    let bound = bind(address).await.and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|source| BindError {
        address: address.to_owned(),
        flag,
        hint: match source.kind() {
            io::ErrorKind::AddrInUse => "; another process holds this port: stop it or choose another port",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher port",
            io::ErrorKind::InvalidInput => "; give host:port, such as 0.0.0.0:10902 or :10902",
            _ => "",
        },
        source,
    })
}

async fn bind(address: &str) -> io::Result<TcpListener> {
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the port is missing"))?;
    let port: u16 = port
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the port is no number from 0 to 65535"))?;
    if matches!(host, "" | "0.0.0.0" | "[::]") {
        return everywhere(port);
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for candidate in tokio::net::lookup_host(address).await? {
        match bind_one(candidate, false) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// All addresses of the host; only those of IPv4 where the kernel has no IPv6.
fn everywhere(port: u16) -> io::Result<TcpListener> {
    match bind_one((Ipv6Addr::UNSPECIFIED, port).into(), true) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind_one((Ipv4Addr::UNSPECIFIED, port).into(), false),
        bound => bound,
    }
}

fn bind_one(address: SocketAddr, both_families: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Without it a restart would have to wait for the old connections to be forgotten.
    socket.set_reuse_address(true)?;
    if both_families {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
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
    async fn a_name_and_a_single_address_are_bound() {
        for address in ["localhost:0", "127.0.0.1:0"] {
            let (_listener, bound) = listen(address, "--http-address").await.unwrap();
            assert!(bound.ip().is_loopback());
        }
    }

    #[tokio::test]
    async fn errors_name_the_address_the_flag_and_the_way_out() {
        let (_listener, bound) = listen("127.0.0.1:0", "--http-address").await.unwrap();
        let held = bound.to_string();
        for (address, wanted) in [
            (held.as_str(), "another process holds this port"),
            ("10902", "the port is missing"),
            ("localhost:http", "no number from 0 to 65535"),
        ] {
            let error = listen(address, "--http-address").await.unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
            assert!(error.contains("--http-address") && error.contains(address), "{error}");
        }
    }
}
