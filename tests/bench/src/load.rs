//! Requests over connections that stay open, as fast as they are answered.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What one run gave.
pub(crate) struct Run {
    pub(crate) took: Duration,
    /// One for each request, in order of size.
    pub(crate) latencies: Vec<Duration>,
}

impl Run {
    /// Requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// The latency that this part of the requests did not exceed.
    pub(crate) fn at(&self, part: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * part) as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// Sends `requests` to `address` over `connections` and waits for each answer before the next request of
/// its connection.
///
/// # Errors
/// When one is not answered with 200 and the server's result.
pub(crate) async fn run(address: &str, requests: Vec<Vec<u8>>, connections: usize) -> anyhow::Result<Run> {
    let mut shares: Vec<Vec<Vec<u8>>> = (0..connections).map(|_| Vec::new()).collect();
    for (n, request) in requests.into_iter().enumerate() {
        if let Some(share) = shares.get_mut(n % connections) {
            share.push(request);
        }
    }
    let mut open = Vec::new();
    for share in shares {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        open.push((stream, share));
    }
    let begun = Instant::now();
    let runs: Vec<_> = open
        .into_iter()
        .map(|(stream, share)| tokio::spawn(connection(stream, share)))
        .collect();
    let mut latencies = Vec::new();
    for run in runs {
        latencies.extend(run.await??);
    }
    let took = begun.elapsed();
    latencies.sort_unstable();
    Ok(Run { took, latencies })
}

async fn connection(mut stream: TcpStream, requests: Vec<Vec<u8>>) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(requests.len());
    let mut received = Vec::with_capacity(4096);
    for request in requests {
        let begun = Instant::now();
        stream.write_all(&request).await?;
        received.clear();
        while !is_whole(&received)? {
            let read = stream.read_buf(&mut received).await?;
            ensure!(read > 0, "the connection ended");
        }
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

/// Makes requests and sends them to `address`, one after the other over one connection. Making one is part
/// of its time.
///
/// # Errors
/// As [`run`], and those of `make`.
pub(crate) async fn one_by_one(
    address: &str,
    requests: usize,
    make: impl Fn() -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<Run> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let begun = Instant::now();
    let mut latencies = Vec::with_capacity(requests);
    let mut received = Vec::with_capacity(4096);
    for _ in 0..requests {
        let begun = Instant::now();
        stream.write_all(&make()?).await?;
        received.clear();
        while !is_whole(&received)? {
            let read = stream.read_buf(&mut received).await?;
            ensure!(read > 0, "the connection ended");
        }
        latencies.push(begun.elapsed());
    }
    let took = begun.elapsed();
    latencies.sort_unstable();
    Ok(Run { took, latencies })
}

/// Opens a connection for each request, which asks for a stream, and waits for what all of them begin with.
///
/// # Errors
/// When one is not answered so.
pub(crate) async fn open(
    address: &str,
    requests: Vec<Vec<u8>>,
    first: &str,
) -> anyhow::Result<Vec<TcpStream>> {
    let mut open = Vec::with_capacity(requests.len());
    let mut received = Vec::with_capacity(4096);
    for request in requests {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&request).await?;
        received.clear();
        while !String::from_utf8_lossy(&received).contains(first.trim_end()) {
            let read = stream.read_buf(&mut received).await?;
            ensure!(read > 0, "no stream: {}", String::from_utf8_lossy(&received));
        }
        open.push(stream);
    }
    Ok(open)
}

/// Sends what `make` makes, `per_second` requests each second, spread over `connections`, for `time`. One
/// that is late is sent at once. Making one is not part of its time.
///
/// # Errors
/// As [`run`], and those of `make`.
pub(crate) async fn paced<M>(
    address: &str,
    connections: usize,
    per_second: usize,
    time: Duration,
    make: M,
) -> anyhow::Result<Run>
where
    M: Fn(usize) -> anyhow::Result<Vec<u8>> + Clone + Send + Sync + 'static,
{
    let begun = Instant::now();
    let pause = Duration::from_secs_f64(connections as f64 / per_second as f64);
    let mut runs = Vec::new();
    for n in 0..connections {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let make = make.clone();
        runs.push(tokio::spawn(async move {
            let mut received = Vec::with_capacity(4096);
            let mut latencies = Vec::new();
            let mut next = begun + pause.mul_f64(n as f64 / connections as f64);
            let mut made = n;
            while next < begun + time {
                tokio::time::sleep_until(next.into()).await;
                let request = make(made)?;
                let sent = Instant::now();
                stream.write_all(&request).await?;
                received.clear();
                while !is_whole(&received)? {
                    let read = stream.read_buf(&mut received).await?;
                    ensure!(read > 0, "the connection ended");
                }
                latencies.push(sent.elapsed());
                made += connections;
                next += pause;
            }
            anyhow::Ok(latencies)
        }));
    }
    let mut latencies = Vec::new();
    for run in runs {
        latencies.extend(run.await??);
    }
    let took = begun.elapsed();
    latencies.sort_unstable();
    Ok(Run { took, latencies })
}

/// Whether an answer has arrived; an error if it is not the one that is expected.
fn is_whole(received: &[u8]) -> anyhow::Result<bool> {
    let text = std::str::from_utf8(received)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ok(false);
    };
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("not the server's answer: {text}");
    }
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return Ok(body.ends_with("0\r\n\r\n"));
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.context("an answer without a length")?.trim().parse()?;
    Ok(body.len() >= length)
}
