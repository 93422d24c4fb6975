//! Malformed and ambiguous requests, byte by byte, which client libraries refuse to send.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

/// The timeout of everything here, for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Sends these bytes to a server on loopback, and gives its answer: head and body, by the length
/// that the head says, or else until the server hangs up.
///
/// # Errors
/// When the answer does not end.
pub fn http1(port: u16, request: &str) -> Result<String> {
    let mut stream = connect(port)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !is_whole(&answer) {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend(piece.iter().take(count)),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error).context("the answer does not end"),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends these bytes to a server on loopback, and gives all that it answers until it hangs up.
///
/// # Errors
/// When it does not.
pub fn until_closed(port: u16, requests: &str) -> Result<String> {
    let mut stream = connect(port)?;
    // It may hang up before it has read all of it.
    let _ = stream.write_all(requests.as_bytes());
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            Err(error).context("the connection does not end")
        }
        _ => Ok(String::from_utf8_lossy(&answers).into_owned()),
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths.next().and_then(|(_, length)| length.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

/// The types of frames that matter here (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of a stream, a setting (RFC 9113, 6.5.2), and the largest that it can be.
const INITIAL_WINDOW_SIZE: u8 = 4;
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// Sends one request by HTTP/2 with these headers, pseudo-headers included, in this order. Gives
/// the body of the answer; none when the server refuses the request by closing it.
///
/// # Errors
/// When there is no answer.
pub fn http2(port: u16, headers: &[(&str, &str)]) -> Result<Option<String>> {
    const STREAM: u32 = 1;
    let block = block(headers)?;
    let mut stream = connect(port)?;
    let mut request = PREFACE.to_vec();
    request.extend(frame(SETTINGS, 0, 0, &[])?);
    request.extend(frame(HEADERS, END_STREAM | END_HEADERS, STREAM, &block)?);
    stream.write_all(&request)?;
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return Ok(None);
        }
        let [l0, l1, l2, kind, flags, id @ ..] = head;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        let mut payload = vec![0; usize::try_from(length)?];
        stream.read_exact(&mut payload)?;
        let is_ours = u32::from_be_bytes(id) == STREAM;
        match kind {
            DATA if is_ours => body.extend(payload),
            GOAWAY => return Ok(None),
            RST_STREAM if is_ours => return Ok(None),
            _ => {}
        }
        if is_ours && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            return Ok(Some(String::from_utf8_lossy(&body).into_owned()));
        }
    }
}

/// A connection over HTTP/2 that a client leaves halfway, or abuses.
#[derive(Clone, Copy, Debug)]
pub enum Stuck {
    /// Before the version is known.
    InThePreface,
    /// Without a request.
    Idle,
    /// In the headers of a request.
    InTheHead,
    /// It resets so many requests as soon as it has sent them.
    Resetting(u32),
}

/// Leaves a connection to a server on loopback in this way, and gives the reason for which the server
/// ends it (RFC 9113, section 7); none when it gives no reason.
///
/// # Errors
/// When it does not end.
pub fn stuck_http2(port: u16, how: Stuck) -> Result<Option<u32>> {
    const CANCEL: u32 = 8;
    let headers = [
        (":method", "GET"),
        (":path", "/healthz"),
        (":scheme", "http"),
        (":authority", "builder"),
    ];
    let block = block(&headers)?;
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[])?);
    match how {
        Stuck::InThePreface => bytes.truncate(PREFACE.len() - 1),
        Stuck::Idle => {}
        Stuck::InTheHead => bytes.extend(frame(HEADERS, END_STREAM, 1, &block)?),
        Stuck::Resetting(times) => {
            for stream in (1..).step_by(2).take(times as usize) {
                bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)?);
                bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())?);
            }
        }
    }
    let mut stream = connect(port)?;
    // It may hang up before it has read all of it.
    let _ = stream.write_all(&bytes);
    let mut reason = None;
    loop {
        let mut head = [0; 9];
        match stream.read_exact(&mut head) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(reason);
            }
            read => read.context("the connection does not end")?,
        }
        let [l0, l1, l2, kind, ..] = head;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        let mut payload = vec![0; usize::try_from(length)?];
        stream.read_exact(&mut payload)?;
        if let (GOAWAY, [_, _, _, _, code @ ..]) = (kind, payload.as_slice()) {
            reason = code.first_chunk().map(|code| u32::from_be_bytes(*code));
        }
    }
}

/// Where the answers stay that a client of HTTP/2 doesn't read.
#[derive(Clone, Copy, Debug)]
pub enum Unread {
    /// It lets the server send what it likes, and leaves it to the network.
    OnTheWay,
    /// It never says that it has read anything, so that the server must not send more than the 64 KiB
    /// that every connection has at first.
    AtTheServer,
}

/// Asks by HTTP/2 for the same path on so many streams, and reads none of the answers. Dropping the
/// connection hangs up.
///
/// # Errors
/// When nothing listens there.
pub fn unread_http2(port: u16, path: &str, streams: u32, unread: Unread) -> Result<TcpStream> {
    let headers = [
        (":method", "GET"),
        (":path", path),
        (":scheme", "http"),
        (":authority", "registry"),
    ];
    let block = block(&headers)?;
    let mut request = PREFACE.to_vec();
    match unread {
        Unread::AtTheServer => request.extend(frame(SETTINGS, 0, 0, &[])?),
        Unread::OnTheWay => {
            let mut window = vec![0, INITIAL_WINDOW_SIZE];
            window.extend(LARGEST_WINDOW.to_be_bytes());
            request.extend(frame(SETTINGS, 0, 0, &window)?);
            // The connection's has 65,535 from the start.
            let more = LARGEST_WINDOW - 65_535;
            request.extend(frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes())?);
        }
    }
    for stream in (1..).step_by(2).take(streams as usize) {
        request.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)?);
    }
    let mut stream = connect(port)?;
    stream.write_all(&request)?;
    Ok(stream)
}

/// Headers as HPACK has them.
fn block(headers: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut block = Vec::new();
    for (name, value) in headers {
        // A literal that is not indexed, with a new name, without Huffman (RFC 7541, 6.2.2).
        block.push(0);
        for text in [name, value] {
            block.push(
                u8::try_from(text.len())
                    .ok()
                    .filter(|&it| it < 0x7f)
                    .context("short")?,
            );
            block.extend(text.as_bytes());
        }
    }
    Ok(block)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Vec<u8>> {
    let [_, length @ ..] = u32::try_from(payload.len())?.to_be_bytes();
    let mut frame = length.to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    Ok(frame)
}
