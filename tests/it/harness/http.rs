//! A small HTTP/1.1 client that can also misbehave: it sends what it is told, byte for byte, and reads the answer
//! while it still sends.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What is sent. `content-length` is added; every other header is the caller's.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The head, announcing a body of `length` bytes.
    pub(crate) fn head(&self, length: usize) -> Vec<u8> {
        use std::io::Write as _;
        let mut head = Vec::new();
        write!(head, "POST {} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {length}\r\n", self.path).unwrap();
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn new(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// Whether the server closes the connection after it.
    pub(crate) fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A connection, kept alive between requests as long as the server does.
#[derive(Debug)]
pub(crate) struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Connection {
    pub(crate) async fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: BufReader::new(reader), writer })
    }

    /// Sends a request and reads its answer, which may come before all was sent.
    pub(crate) async fn send(&mut self, request: &Request) -> io::Result<Response> {
        let bytes = [request.head(request.body.len()), request.body.clone()].concat();
        let (reader, writer) = (&mut self.reader, &mut self.writer);
        let mut sending = std::pin::pin!(async move { writer.write_all(&bytes).await });
        let mut answer = std::pin::pin!(read_response(reader));
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            // A server that has heard enough closes, and its answer is there to be read all the same.
            _ = &mut sending => {}
        }
        answer.await
    }

    /// Sends these bytes and nothing else.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// Ends our side; the server may still answer.
    pub(crate) async fn close_sending(&mut self) -> io::Result<()> {
        self.writer.shutdown().await
    }

    pub(crate) async fn read(&mut self) -> io::Result<Response> {
        read_response(&mut self.reader).await
    }
}

async fn read_response(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Response> {
    let status_line = line(reader).await?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not an answer: {status_line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = line(reader).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if let Some(length) = response.header("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        response.body.resize(length, 0);
        reader.read_exact(&mut response.body).await?;
    } else if response.header("transfer-encoding").is_some() {
        response.body = chunks(reader).await?;
    }
    Ok(response)
}

/// A line without its end. The end of the connection is an error: it never is an answer.
async fn line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

async fn chunks(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = usize::from_str_radix(&line(reader).await?, 16).map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..]).await?;
        line(reader).await?;
        if size == 0 {
            return Ok(body);
        }
    }
}
