//! The two halves of the demo's conversations, each in a process of its own inside its namespace: ordinary
//! sockets, so the kernel's own stacks make every packet.
//!
//! The client writes down what went over each TCP connection, which is what the recording is compared with.
//! Neither side may know anything of the recorder.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::lab::{CLIENT_V4, SERVER_V4, SERVER_V6};

/// What a server says once it listens.
pub(crate) const SERVING: &str = "serving";
const HTTP_PORT: u16 = 80;
const CLOSED_PORT: u16 = 81;
const DNS_PORT: u16 = 53;
const ECHO_PORT: u16 = 7;
const DOWNLOAD_BYTES: usize = 8 << 20;
/// Parts of the download, with pauses between: a mirror of this kind holds 256 frames, and drops what comes while a busy
/// CPU does not get to them. A link has a rate, too.
const PART_BYTES: usize = 64 << 10;
const PAUSE: Duration = Duration::from_millis(2);
const DNS_QUERIES: u16 = 20;
const ECHO_ROUNDS: usize = 64;
const ECHO_BYTES: usize = 1024;
const TIMEOUT: Duration = Duration::from_secs(20);

/// One conversation as the client saw it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Conversation {
    /// `http`, `echo`, ...: also the name of the files with its bytes.
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) client: String,
    pub(crate) server: String,
    pub(crate) sent_bytes: usize,
    pub(crate) received_bytes: usize,
}

impl Conversation {
    fn new(name: &str, what: &str, client: impl ToString, server: SocketAddr, bytes: (usize, usize)) -> Self {
        Self {
            name: name.to_owned(),
            what: what.to_owned(),
            client: client.to_string(),
            server: server.to_string(),
            sent_bytes: bytes.0,
            received_bytes: bytes.1,
        }
    }
}

/// The server: answers until it is stopped.
pub(crate) fn serve() -> Result<()> {
    let v4: IpAddr = SERVER_V4.parse()?;
    let v6: IpAddr = SERVER_V6.parse()?;
    let http = TcpListener::bind((v4, HTTP_PORT)).context("http port")?;
    let echo = TcpListener::bind((v6, ECHO_PORT)).context("echo port")?;
    let dns = UdpSocket::bind((v4, DNS_PORT)).context("dns port")?;
    eprintln!("{SERVING}");
    thread::scope(|scope| {
        let http = scope.spawn(|| accept(&http, answer_http));
        let echo = scope.spawn(|| accept(&echo, answer_echo));
        let dns = scope.spawn(|| answer_dns(&dns));
        for server in [http, echo, dns] {
            server.join().map_err(|_| anyhow::anyhow!("a server panicked"))??;
        }
        Ok(())
    })
}

fn accept(listener: &TcpListener, answer: fn(TcpStream) -> Result<()>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().context("accept")?;
        answer(stream)?;
    }
}

fn answer_http(mut stream: TcpStream) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("http request")?;
        request.extend(byte);
    }
    let body = body(DOWNLOAD_BYTES);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).context("http head")?;
    for part in body.chunks(PART_BYTES) {
        stream.write_all(part).context("http body")?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn answer_echo(mut stream: TcpStream) -> Result<()> {
    let mut message = vec![0; ECHO_BYTES];
    for _ in 0..ECHO_ROUNDS {
        stream.read_exact(&mut message).context("echo request")?;
        stream.write_all(&message).context("echo answer")?;
    }
    Ok(())
}

/// Answers every question with one address record.
fn answer_dns(socket: &UdpSocket) -> Result<()> {
    loop {
        let mut question = [0; 512];
        let (len, from) = socket.recv_from(&mut question).context("dns question")?;
        let question = question.get(..len).unwrap_or_default();
        let (Some(id), Some(asked)) = (question.get(..2), question.get(12..)) else { continue };
        let mut answer = id.to_vec();
        // Response, recursion desired and available; one question, one answer.
        answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        answer.extend(asked);
        // Name: pointer to the question; A, IN, 60 s, 4 bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        socket.send_to(&answer, from).context("dns answer")?;
    }
}

/// Text of words in no order: compresses about as well as web pages do.
fn body(len: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["packet", "frame", "segment", "sidecar", "ledger", "journal", "ring", "chunk"];
    let mut text = String::with_capacity(len + 32);
    let mut state: u32 = 0x9e37_79b9;
    while text.len() < len {
        // xorshift: the same text in every run.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let word = WORDS.iter().cycle().nth((state >> 29) as usize).copied().unwrap_or_default();
        text.push_str(&format!("{word} {state:08x}\n"));
    }
    text.truncate(len);
    text.into_bytes()
}

/// The client: holds all conversations, the download last, and writes their bytes to `folder`.
pub(crate) fn talk(folder: &Path) -> Result<Vec<Conversation>> {
    Ok(vec![ask_dns()?, echo(folder)?, refused()?, download(folder)?])
}

fn ask_dns() -> Result<Conversation> {
    let server = SocketAddr::new(SERVER_V4.parse()?, DNS_PORT);
    let socket = UdpSocket::bind((CLIENT_V4, 0)).context("dns client")?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let (mut sent, mut received) = (0, 0);
    for id in 0..DNS_QUERIES {
        let mut question = id.to_be_bytes().to_vec();
        question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in [format!("host{id}"), "example".to_owned()] {
            question.push(u8::try_from(label.len())?);
            question.extend(label.as_bytes());
        }
        question.extend([0, 0, 1, 0, 1]);
        sent += socket.send_to(&question, server).context("dns question")?;
        received += socket.recv_from(&mut [0; 512]).context("dns answer")?.0;
    }
    let what = format!("{DNS_QUERIES} DNS questions");
    Ok(Conversation::new("dns", &what, socket.local_addr()?, server, (sent, received)))
}

fn echo(folder: &Path) -> Result<Conversation> {
    let server = SocketAddr::new(SERVER_V6.parse()?, ECHO_PORT);
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT).context("echo connection")?;
    let client = stream.local_addr()?;
    let sent = body(ECHO_ROUNDS * ECHO_BYTES);
    let mut received = Vec::new();
    for message in sent.chunks(ECHO_BYTES) {
        stream.write_all(message).context("echo request")?;
        let mut answer = vec![0; message.len()];
        stream.read_exact(&mut answer).context("echo answer")?;
        received.extend(answer);
    }
    keep(folder, "echo", &sent, &received)?;
    let what = format!("{ECHO_ROUNDS} echoes over IPv6");
    Ok(Conversation::new("echo", &what, client, server, (sent.len(), received.len())))
}

fn refused() -> Result<Conversation> {
    let server = SocketAddr::new(SERVER_V4.parse()?, CLOSED_PORT);
    match TcpStream::connect_timeout(&server, TIMEOUT) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            Ok(Conversation::new("refused", "a refused connection", CLIENT_V4, server, (0, 0)))
        }
        Err(error) => Err(error).context("connection to a closed port"),
        Ok(_) => bail!("a closed port accepted a connection"),
    }
}

fn download(folder: &Path) -> Result<Conversation> {
    let server = SocketAddr::new(SERVER_V4.parse()?, HTTP_PORT);
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT).context("http connection")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let client = stream.local_addr()?;
    let sent = format!("GET /tape.txt HTTP/1.1\r\nHost: {SERVER_V4}\r\nConnection: close\r\n\r\n");
    stream.write_all(sent.as_bytes()).context("http request")?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received).context("http answer")?;
    keep(folder, "http", sent.as_bytes(), &received)?;
    Ok(Conversation::new("http", "an HTTP download", client, server, (sent.len(), received.len())))
}

/// Writes down what a TCP connection carried each way.
fn keep(folder: &Path, name: &str, sent: &[u8], received: &[u8]) -> Result<()> {
    fs::write(folder.join(format!("{name}.sent")), sent).context("transcript")?;
    fs::write(folder.join(format!("{name}.received")), received).context("transcript")
}
