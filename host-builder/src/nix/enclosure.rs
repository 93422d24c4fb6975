//! A network namespace for Nix and its builds, from which only one proxy can be reached.
//!
//! ```text
//!   nix-store, nix-instantiate, downloads of builds: a namespace with nothing but loopback
//!        │  http_proxy=http://127.0.0.1:PORT
//!        ▼
//!   a listener in the namespace ── the builder, outside of it, relays its connections ──► NIXGATE_PROXY
//! ```
//!
//! A socket belongs to the namespace in which it was made, whoever accepts its connections. So the two
//! networks share no interface and no route, and need no packet filter.

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

/// Connections at once. Nix has 25 downloads at a time; a build may have any number.
const CONNECTIONS: usize = 512;
/// How long connecting to the proxy may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may be idle: otherwise one build could hold all of them.
const IDLE: IdleTimeouts = IdleTimeouts {
    open: Duration::from_secs(300),
    half_closed: Duration::from_secs(30),
};
/// Bytes of a buffer, of which each direction has one.
const PIECE: usize = 16 << 10;
/// After an error of `accept`, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// curl's port of a proxy whose URL has none.
const DEFAULT_PORT: u16 = 1080;

/// The proxy that can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// User and password, with the `@`.
    credentials: String,
    /// Host and port.
    address: String,
}

impl Proxy {
    /// Parses `http://[user:password@]host[:port]`. A proxy with TLS is none: inside it has the address
    /// 127.0.0.1, which its certificate does not name.
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

/// How long both sides of a connection may be silent.
#[derive(Clone, Copy, Debug)]
struct IdleTimeouts {
    open: Duration,
    /// Once one side has sent everything.
    half_closed: Duration,
}

/// Makes such a network, and relays to the proxy until the runtime ends. Returns the settings of
/// programs inside.
///
/// # Errors
/// When this process may make no network namespace.
pub(super) fn open(network: &NetworkSettings, proxy: &Proxy) -> io::Result<NetworkSettings> {
    let (namespace, listener) = make()?;
    let port = listener.local_addr()?.port();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(serve(listener, proxy.address.clone()));
    Ok(NetworkSettings {
        proxy: Some(format!(
            "http://{}{}:{port}",
            proxy.credentials,
            Ipv4Addr::LOCALHOST
        )),
        namespace: Some(Arc::new(namespace)),
        ..network.clone()
    })
}

/// Listens on the loopback of a namespace, or of this machine.
///
/// # Errors
/// When the namespace can't be entered, or nothing can listen there.
pub(super) fn listen(namespace: Option<Arc<OwnedFd>>) -> io::Result<TcpListener> {
    let Some(namespace) = namespace else {
        return listen_here();
    };
    in_own_thread(move || {
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
    in_own_thread(|| {
        leave_network()?;
        raise_loopback()?;
        let listener = listen_here()?;
        Ok((File::open("/proc/thread-self/ns/net")?.into(), listener))
    })
}

/// Does work that changes the network of its thread, which ends with the work.
fn in_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let died = |_| io::Error::other("the thread that enters a network namespace panicked");
    thread::spawn(work).join().map_err(died)?
}

#[expect(
    unsafe_code,
    reason = "unshare is unsafe since it can affect open files, which this call does not"
)]
fn leave_network() -> rustix::io::Result<()> {
    // SAFETY: changes the network of this thread, and no file descriptor.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}

/// Turns on loopback in this thread's network, where it is off at first: rtnetlink(7).
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
    // The interface: family and type, index, flags, mask of flags to change.
    message.extend([0; 4]);
    message.extend([LOOPBACK, UP, UP].map(u32::to_ne_bytes).concat());
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 128];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    // After the header: a negative error number, or 0.
    match answer
        .get(HEADER..HEADER + 4)
        .filter(|_| length >= HEADER + 4)
    {
        Some([0, 0, 0, 0]) => Ok(()),
        Some(error) => {
            let error = i32::from_ne_bytes([error[0], error[1], error[2], error[3]]);
            Err(io::Error::from_raw_os_error(error.wrapping_neg()))
        }
        None => Err(io::Error::other("the kernel's netlink answer is too short")),
    }
}

async fn serve(listener: tokio::net::TcpListener, proxy: String) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let proxy: Arc<str> = proxy.into();
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        let inside = match listener.accept().await {
            Ok((inside, _)) => inside,
            Err(error) => {
                tracing::warn!("cannot accept a connection of Nix to NIXGATE_PROXY: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&*proxy)).await {
                Ok(Ok(outside)) => relay(inside, outside, IDLE).await,
                Ok(Err(error)) => {
                    tracing::warn!(%proxy, "cannot connect to NIXGATE_PROXY: {error}");
                }
                Err(_) => {
                    tracing::warn!(%proxy, "cannot connect to NIXGATE_PROXY within {CONNECT_TIMEOUT:?}");
                }
            }
        });
    }
}

/// Copies both ways until both sides have sent everything, one fails, or both are idle for too long.
/// Both sides notice how it ends, so this returns nothing.
async fn relay<A, B>(inside: A, outside: B, idle: IdleTimeouts)
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
            copy(from_inside, to_outside, &moved, &half_closed),
            copy(from_outside, to_inside, &moved, &half_closed),
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
                tracing::debug!("closing a connection to NIXGATE_PROXY that was idle for {limit:?}");
                return;
            }
        }
    }
}

/// Copies one way to the end, and notifies of each piece and of the end.
async fn copy(
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
    async fn both_directions_are_relayed_to_their_ends() {
        let (mut client, inside) = tokio::io::duplex(8);
        let (mut server, outside) = tokio::io::duplex(8);
        let idle = IdleTimeouts {
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
    async fn an_idle_connection_is_closed() {
        for (open, half_closed, client_ends) in [(SHORT, LONG, false), (LONG, SHORT, true)] {
            let (mut client, inside) = tokio::io::duplex(8);
            let (mut server, outside) = tokio::io::duplex(8);
            if client_ends {
                client.shutdown().await.unwrap();
            }
            // It ends, though neither side does.
            relay(inside, outside, IdleTimeouts { open, half_closed }).await;
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        }
    }

    /// Needs root, as builders that use this do.
    #[test]
    fn a_listener_inside_is_reached_only_from_inside() {
        let Ok((namespace, _listener)) = make() else {
            assert!(!rustix::process::geteuid().is_root(), "root may make one");
            return;
        };
        let namespace = Arc::new(namespace);
        let listener = listen(Some(Arc::clone(&namespace))).unwrap();
        let address = listener.local_addr().unwrap();
        drop(std::net::TcpStream::connect(address));
        assert!(listener.accept().is_err(), "it was reached from outside");
        in_own_thread(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            std::net::TcpStream::connect(address).map(drop)
        })
        .unwrap();
        assert!(listener.accept().is_ok());
    }

    #[test]
    fn a_proxy_is_parsed_from_its_url() {
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
