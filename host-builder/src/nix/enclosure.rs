//! A network of its own for Nix and what it builds, from which one proxy can be reached and nothing else.
//!
//! ```text
//!   nix-store, nix-instantiate, and the builds that have the network: a namespace with loopback alone
//!        │  http_proxy=http://127.0.0.1:PORT
//!        ▼
//!   a listener in there ── whose connections the builder, out here, carries to ──► NIXGATE_PROXY
//! ```
//!
//! A socket belongs to the namespace that it was made in, whoever accepts its connections. So there is
//! no interface between the two networks, no route, and nothing to filter.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};

use crate::process::NetworkSettings;

/// Connections at once. Nix has 25 downloads at a time, each of its builds as many as it likes.
const CONNECTIONS: usize = 512;
/// How long the proxy may take to answer the telephone.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a connection may carry nothing. A download that holds its connections takes these from all
/// others, and the bound above is for all together.
const IDLE: Idle = Idle {
    open: Duration::from_secs(300),
    half_closed: Duration::from_secs(30),
};
/// What is carried at a time, each way.
const PIECE: usize = 16 << 10;
/// After an error of the system's, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// The port of a proxy whose URL has none, as curl has it.
const DEFAULT_PORT: u16 = 1080;

/// The one way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// User and password, with the `@`.
    credentials: String,
    /// Host and port.
    address: String,
}

impl Proxy {
    /// Reads its URL, `http://[user:password@]host[:port]`. To one with TLS nothing could be carried:
    /// its certificate is for its name, and the names in there are others.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let authority = uri
            .authority()
            .filter(|_| uri.scheme_str() == Some("http"))?;
        let end = authority.as_str().rfind('@').map_or(0, |at| at + 1);
        let port = authority.port_u16().unwrap_or(DEFAULT_PORT);
        Some(Self {
            credentials: authority.as_str()[..end].to_owned(),
            address: format!("{}:{port}", authority.host()),
        })
    }
}

/// How long nothing may come from either side.
#[derive(Clone, Copy, Debug)]
struct Idle {
    /// While both may say something.
    open: Duration,
    /// Once one of them has said all.
    half_closed: Duration,
}

/// Makes such a network for what is described by `egress`, and carries to the proxy until the runtime
/// ends: how programs in there reach the network.
///
/// # Errors
/// When this process may make no network namespace.
pub(super) fn open(egress: &NetworkSettings, proxy: &Proxy) -> io::Result<NetworkSettings> {
    let (namespace, listener) = make()?;
    let port = listener.local_addr()?.port();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(carry(listener, proxy.address.clone()));
    Ok(NetworkSettings {
        proxy: Some(format!(
            "http://{}{}:{port}",
            proxy.credentials,
            Ipv4Addr::LOCALHOST
        )),
        namespace: Some(Arc::new(namespace)),
        ..egress.clone()
    })
}

/// Listens on loopback: on that of a namespace, or on this machine's.
///
/// # Errors
/// When the namespace can't be entered, or nothing can listen there.
pub(super) fn listen(namespace: Option<Arc<OwnedFd>>) -> io::Result<TcpListener> {
    let Some(namespace) = namespace else {
        return listen_here();
    };
    elsewhere(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        listen_here()
    })
}

fn listen_here() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The namespace, and the listener in it.
fn make() -> io::Result<(OwnedFd, TcpListener)> {
    elsewhere(|| {
        leave_network()?;
        raise_loopback()?;
        let listener = listen_here()?;
        Ok((File::open("/proc/thread-self/ns/net")?.into(), listener))
    })
}

/// Does something that leaves this process's network: a thread may have another one, and this thread
/// ends with its work.
fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let died = |_| io::Error::other("the thread that enters a network has died");
    thread::spawn(work).join().map_err(died)?
}

#[expect(
    unsafe_code,
    reason = "unshare is unsafe for what it can do to open files, which are left alone here"
)]
fn leave_network() -> rustix::io::Result<()> {
    // SAFETY: the network is changed, and for this thread alone; no file descriptor is.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}

/// Turns on the loopback of this thread's network, which is off in a new one: rtnetlink(7).
fn raise_loopback() -> io::Result<()> {
    const NEWLINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const LOOPBACK: u32 = 1;
    const UP: u32 = 1;
    const HEADER: usize = 16;
    let mut message = Vec::with_capacity(2 * HEADER);
    // The header: length, type, flags, sequence, sender.
    message.extend((2 * HEADER as u32).to_ne_bytes());
    message.extend(NEWLINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    message.extend([0; 8]);
    // The interface: family and type, index, flags, which of them to change.
    message.extend([0; 4]);
    message.extend([LOOPBACK, UP, UP].map(u32::to_ne_bytes).concat());
    // The protocol of routes and interfaces is the first one.
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 128];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    // After the header: the error, negative, and none for well done.
    match answer
        .get(HEADER..HEADER + 4)
        .filter(|_| length >= HEADER + 4)
    {
        Some([0, 0, 0, 0]) => Ok(()),
        Some(error) => {
            let error = i32::from_ne_bytes([error[0], error[1], error[2], error[3]]);
            Err(io::Error::from_raw_os_error(error.wrapping_neg()))
        }
        None => Err(io::Error::other("the kernel's answer is too short")),
    }
}

async fn carry(listener: tokio::net::TcpListener, proxy: String) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let proxy: Arc<str> = proxy.into();
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let inside = match listener.accept().await {
            Ok((inside, _)) => inside,
            Err(error) => {
                tracing::warn!("a connection of Nix to NIXGATE_PROXY is not taken: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            let _place = place;
            match tokio::time::timeout(CONNECT, TcpStream::connect(&*proxy)).await {
                Ok(Ok(outside)) => relay(inside, outside, IDLE).await,
                Ok(Err(error)) => tracing::warn!(%proxy, "NIXGATE_PROXY can't be reached: {error}"),
                Err(_) => tracing::warn!(%proxy, "NIXGATE_PROXY can't be reached in time"),
            }
        });
    }
}

/// Carries both ways until both sides have said all, or one fails, or nothing comes for too long. How it
/// ends, both ends hear themselves.
async fn relay<A, B>(inside: A, outside: B, idle: Idle)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (from_inside, to_inside) = tokio::io::split(inside);
    let (from_outside, to_outside) = tokio::io::split(outside);
    let moved = Notify::new();
    let half_closed = AtomicBool::new(false);
    let both = async {
        drop(tokio::try_join!(
            pass(from_inside, to_outside, &moved, &half_closed),
            pass(from_outside, to_inside, &moved, &half_closed),
        ));
    };
    tokio::pin!(both);
    loop {
        let limit = match half_closed.load(Ordering::Relaxed) {
            true => idle.half_closed,
            false => idle.open,
        };
        tokio::select! {
            () = &mut both => return,
            () = moved.notified() => {}
            () = tokio::time::sleep(limit) => {
                tracing::debug!("a connection to NIXGATE_PROXY is closed: nothing came for {limit:?}");
                return;
            }
        }
    }
}

/// Carries one way to the end, and tells of each piece and of the end.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Notify,
    ended: &AtomicBool,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            break;
        }
        to.write_all(&piece[..length]).await?;
        moved.notify_one();
    }
    ended.store(true, Ordering::Relaxed);
    moved.notify_one();
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn what_is_said_is_carried_both_ways_to_its_end() {
        let (mut client, inside) = tokio::io::duplex(8);
        let (mut server, outside) = tokio::io::duplex(8);
        let idle = Idle {
            open: LONG,
            half_closed: LONG,
        };
        let relay = tokio::spawn(relay(inside, outside, idle));
        let text = "x".repeat(3 * PIECE);
        let answer = async {
            let mut heard = String::new();
            server.read_to_string(&mut heard).await.unwrap();
            server.write_all(heard.as_bytes()).await.unwrap();
            drop(server);
        };
        let ask = async {
            let (mut from, mut to) = tokio::io::split(&mut client);
            to.write_all(text.as_bytes()).await.unwrap();
            to.shutdown().await.unwrap();
            let mut heard = String::new();
            from.read_to_string(&mut heard).await.unwrap();
            assert!(heard == text);
        };
        tokio::join!(answer, ask);
        relay.await.unwrap();
    }

    #[tokio::test]
    async fn who_says_nothing_holds_no_connection() {
        for (open, half_closed, client_ends) in [(SHORT, LONG, false), (LONG, SHORT, true)] {
            let (mut client, inside) = tokio::io::duplex(8);
            let (mut server, outside) = tokio::io::duplex(8);
            if client_ends {
                client.shutdown().await.unwrap();
            }
            // It ends, though neither side does.
            relay(inside, outside, Idle { open, half_closed }).await;
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        }
    }

    /// By who may make a network: root, as builders are that have this.
    #[test]
    fn who_listens_inside_is_reached_from_inside_alone() {
        let Ok((namespace, _listener)) = make() else {
            assert!(!rustix::process::geteuid().is_root(), "root may make one");
            return;
        };
        let namespace = Arc::new(namespace);
        let listener = listen(Some(Arc::clone(&namespace))).unwrap();
        let address = listener.local_addr().unwrap();
        drop(std::net::TcpStream::connect(address));
        assert!(listener.accept().is_err(), "it was reached from outside");
        elsewhere(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            std::net::TcpStream::connect(address).map(drop)
        })
        .unwrap();
        assert!(listener.accept().is_ok());
    }

    #[test]
    fn a_proxy_is_known_by_its_url() {
        let proxy = |credentials: &str, address: &str| {
            Some(Proxy {
                credentials: credentials.to_owned(),
                address: address.to_owned(),
            })
        };
        for (url, expected) in [
            ("http://proxy.corp:3128", proxy("", "proxy.corp:3128")),
            ("http://proxy.corp/", proxy("", "proxy.corp:1080")),
            ("http://u:p@[::1]:8", proxy("u:p@", "[::1]:8")),
            ("https://proxy.corp:3128", None),
            ("socks5://proxy.corp", None),
            ("proxy.corp:3128", None),
            ("", None),
        ] {
            assert_eq!(Proxy::parse(url), expected, "{url}");
        }
    }
}
