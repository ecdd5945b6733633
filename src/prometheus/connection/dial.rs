//! A TCP connection to a name that may have several addresses, as in RFC 8305 ("happy eyeballs").
//!
//! Addresses are tried in the resolver's order, alternating between the two families. An attempt starts 250 ms after
//! the one before, or as soon as that has failed; the first connection wins, and the other attempts are dropped. So an
//! address that does not answer costs 250 ms and not the whole time limit, which the caller sets.
//!
//! hyper-util's connector does not fit: it races the two families only, so that a dead address delays the next one of
//! its family by its share of the limit; and of the errors of one family it returns the first, so that one address that
//! refuses would look like a Prometheus that has ended, whatever the others do.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::net::TcpStream;

use crate::prometheus::error::ErrorKind;

/// From the beginning of an attempt to that of the next.
const DELAY: Duration = Duration::from_millis(250);

/// How many addresses are tried, at most.
const ADDRESSES_MAX: usize = 16;

/// Connects to `host`, a name or an address without brackets. Dropping the future drops every attempt.
///
/// # Errors
/// [`ErrorKind::Refused`] when every address that can be reached from here refuses, else [`ErrorKind::Unreachable`].
pub(super) async fn dial(host: &str, port: u16) -> Result<TcpStream, ErrorKind> {
    let found = tokio::net::lookup_host((host, port)).await;
    let addresses = found.map_err(|error| ErrorKind::Unreachable(error.to_string()))?;
    race(addresses.collect(), TcpStream::connect).await
}

/// Connects to one of these addresses.
pub(super) async fn race<T, C: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> C,
) -> Result<T, ErrorKind> {
    let mut waiting = in_turns(addresses).into_iter().take(ADDRESSES_MAX);
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            let attempt = connect(address);
            running.push(async move { (address, attempt.await) });
        }
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            ended = running.next() => match ended {
                Some((_, Ok(connection))) => return Ok(connection),
                Some((address, Err(error))) => failures.push((address, error)),
                None => return Err(failure(&failures)),
            },
            () = tokio::time::sleep(DELAY), if more => {}
        }
    }
}

/// The addresses in their order, but the families taking turns, that of the first one first.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    loop {
        let before = turns.len();
        turns.extend(one.next());
        turns.extend(other.next());
        if turns.len() == before {
            return turns;
        }
    }
}

/// What it means that all attempts have failed.
fn failure(failures: &[(SocketAddr, io::Error)]) -> ErrorKind {
    let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    // A family that this host does not have proves nothing about Prometheus.
    let is_nowhere = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::Unsupported
        )
    };
    let refused = failures.iter().any(|(_, error)| is_refused(error));
    if refused && failures.iter().all(|(_, error)| is_refused(error) || is_nowhere(error)) {
        return ErrorKind::Refused;
    }
    ErrorKind::Unreachable(match failures {
        [] => "its name has no address".to_owned(),
        [(_, error)] => error.to_string(),
        several => {
            let each = several.iter().map(|(address, error)| format!("{address}: {error}"));
            each.collect::<Vec<_>>().join("; ")
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{future::pending, net::Ipv4Addr};

    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, NetworkUnreachable, TimedOut};
    use tokio::{
        net::{TcpListener, TcpSocket},
        time::Instant,
    };

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_families_take_turns_and_the_resolver_says_which_is_first() {
        for (given, want) in [
            (
                &["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"][..],
                &["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"][..],
            ),
            (
                &["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"],
                &["1.1.1.1:1", "[::1]:1", "2.2.2.2:1"],
            ),
            (&["1.1.1.1:1"], &["1.1.1.1:1"]),
            (&[], &[]),
        ] {
            assert_eq!(in_turns(addresses(given)), addresses(want));
        }
    }

    /// Races addresses whose last number says what happens: 1 connects, 2 never answers, 3 refuses, 4 connects after an
    /// hour. Returns which one was taken, and how long that took.
    async fn run(texts: &[&str]) -> (Option<SocketAddr>, Duration) {
        let start = Instant::now();
        let connect = async |address: SocketAddr| {
            match address.port() {
                1 => {}
                2 => pending().await,
                3 => return Err(ConnectionRefused.into()),
                _ => tokio::time::sleep(Duration::from_secs(3600)).await,
            }
            Ok(address)
        };
        let taken = race(addresses(texts), connect).await;
        (taken.ok(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_address_costs_a_quarter_of_a_second_whatever_its_family() {
        for (texts, taken, delays) in [
            (&["[::1]:2", "1.1.1.1:1"][..], "1.1.1.1:1", 1),
            (&["1.1.1.1:2", "2.2.2.2:1"], "2.2.2.2:1", 1),
            (&["1.1.1.1:2", "2.2.2.2:2", "3.3.3.3:1"], "3.3.3.3:1", 2),
            (&["[::1]:2", "[::2]:2", "1.1.1.1:1"], "1.1.1.1:1", 1),
            // One that has failed is followed at once.
            (&["[::1]:3", "1.1.1.1:3", "[::2]:1"], "[::2]:1", 0),
            // One that is slow may still be the only one.
            (&["[::1]:4", "1.1.1.1:3", "[::2]:3"], "[::1]:4", 4 * 3600),
        ] {
            let (found, time) = run(texts).await;
            assert_eq!(
                (found, time),
                (Some(taken.parse().unwrap()), delays * DELAY),
                "{texts:?}"
            );
        }
        assert_eq!(run(&["1.1.1.1:3", "[::1]:3"]).await, (None, Duration::ZERO));
        let many: Vec<String> = (1..=20).map(|at| format!("1.1.1.{at}:3")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).chain(["1.1.1.99:1"]).collect();
        assert_eq!(
            run(&many).await,
            (None, Duration::ZERO),
            "there is an end to what is tried"
        );
    }

    #[test]
    fn it_is_refused_when_nobody_says_anything_else() {
        for (kinds, refused) in [
            (&[ConnectionRefused][..], true),
            (&[ConnectionRefused, ConnectionRefused], true),
            (&[AddrNotAvailable, ConnectionRefused], true),
            (&[ConnectionRefused, NetworkUnreachable], true),
            (&[ConnectionRefused, TimedOut], false),
            (&[TimedOut, ConnectionRefused], false),
            (&[NetworkUnreachable], false),
            (&[], false),
        ] {
            let address: SocketAddr = "[::1]:9090".parse().unwrap();
            let failures: Vec<_> = kinds.iter().map(|&kind| (address, kind.into())).collect();
            match failure(&failures) {
                ErrorKind::Refused => assert!(refused, "{kinds:?}"),
                ErrorKind::Unreachable(why) => {
                    assert!(!refused, "{kinds:?}");
                    assert_eq!(why.contains("[::1]:9090"), kinds.len() > 1, "{why}");
                }
                other => panic!("{other}"),
            }
        }
    }

    /// A listener on this loopback address whose backlog is full, so that it accepts nobody; with what fills it.
    async fn silent(address: Ipv4Addr, port: u16) -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((address, port).into()).unwrap();
        // The kernel accepts one connection more than the backlog says.
        let listener = socket.listen(1).unwrap();
        let mut queue = Vec::new();
        for _ in 0..2 {
            queue.push(TcpStream::connect((address, port)).await.unwrap());
        }
        (listener, queue)
    }

    #[tokio::test]
    async fn of_two_real_addresses_the_one_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let dead = (Ipv4Addr::new(127, 0, 0, 2), alive.port());
        let (_full, _queue) = silent(dead.0, dead.1).await;
        let stream = race(vec![dead.into(), alive], TcpStream::connect).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
    }

    #[tokio::test]
    async fn a_name_is_looked_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(dial("localhost", port).await.unwrap().peer_addr().unwrap().port(), port);
        drop(listener);
        let refused = dial("localhost", port).await;
        assert!(matches!(refused, Err(ErrorKind::Refused)), "{refused:?}");
    }
}
