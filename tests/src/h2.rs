//! HTTP/2 as bytes (RFC 9113), so that requests can be sent that no library would send: each field
//! literal, never compressed, in whatever order and number.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::{Answer, authority};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LARGEST_FRAME: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Sends one request on a connection of its own, and reads its answer. Of the answer's head only the
/// status is read; where there is none, `head` says how the stream or connection ended.
#[track_caller]
pub fn send(url: &str, fields: &[(String, Vec<u8>)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(authority(url)).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(head(fields, body.is_empty()));
    let parts = body.chunks(LARGEST_FRAME);
    let last = parts.len().saturating_sub(1);
    for (at, part) in parts.enumerate() {
        let flags = if at == last { END_STREAM } else { 0 };
        bytes.extend(frame(DATA, flags, 1, part));
    }
    // A server may answer and close before it has read everything.
    let _ = stream.write_all(&bytes);
    read(&mut stream)
}

fn head(fields: &[(String, Vec<u8>)], ends: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        // Literal without indexing, new name; no Huffman code.
        block.push(0);
        for text in [name.as_bytes(), value] {
            length(text.len(), &mut block);
            block.extend(text);
        }
    }
    let parts: Vec<&[u8]> = block.chunks(LARGEST_FRAME).collect();
    let mut bytes = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let (kind, stream_flag) = if at == 0 {
            (HEADERS, u8::from(ends) * END_STREAM)
        } else {
            (CONTINUATION, 0)
        };
        let last = if at + 1 == parts.len() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, stream_flag | last, 1, part));
    }
    bytes
}

/// An integer with a prefix of 7 bits (RFC 7541 section 5.1).
fn length(length: usize, into: &mut Vec<u8>) {
    let Some(mut rest) = length.checked_sub(127) else {
        return into.push(u8::try_from(length).unwrap());
    };
    into.push(127);
    while rest >= 128 {
        into.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    into.push(u8::try_from(rest).unwrap());
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = size[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn read(stream: &mut TcpStream) -> Answer {
    let mut answer = Answer {
        status: 0,
        head: String::new(),
        body: String::new(),
    };
    while let Some((kind, flags, number, payload)) = next(stream) {
        let ended = number == 1 && flags & END_STREAM != 0;
        match kind {
            SETTINGS if flags & ACK == 0 => {
                let _ = stream.write_all(&frame(SETTINGS, ACK, 0, &[]));
            }
            PING if flags & ACK == 0 => {
                let _ = stream.write_all(&frame(PING, ACK, 0, &payload));
            }
            HEADERS if number == 1 => {
                assert_eq!(flags & PADDED, 0, "a padded head");
                // The last head is the answer's: those before it are of 1xx.
                answer.status = status(&payload).unwrap_or(answer.status);
                if ended {
                    break;
                }
            }
            DATA if number == 1 => {
                assert_eq!(flags & PADDED, 0, "padded data");
                answer.body.push_str(&String::from_utf8_lossy(&payload));
                if ended {
                    break;
                }
            }
            RST_STREAM if number == 1 => {
                answer.head = format!("RST_STREAM {}", payload[3]);
                break;
            }
            GOAWAY => answer.head = format!("GOAWAY {}", payload[7]),
            _ => {}
        }
    }
    answer
}

fn next(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let [a, b, c, kind, flags, n @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((kind, flags, u32::from_be_bytes(n) & 0x7fff_ffff, payload))
}

/// The `:status` of a head, which is always its first field (RFC 7541 appendices A and B).
fn status(block: &[u8]) -> Option<u16> {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // A server may change the size of its table first.
    let block = match block {
        [first, rest @ ..] if first & 0xe0 == 0x20 => rest,
        block => block,
    };
    match block {
        [first @ 0x88..=0x8e, ..] => Some(INDEXED[usize::from(first - 0x88)]),
        // Literal, its name indexed as 8 to 14: with indexing, without, never.
        [0x48..=0x4e | 0x08..=0x0e | 0x18..=0x1e, size, rest @ ..] => {
            let text = &rest[..usize::from(size & 0x7f)];
            if size & 0x80 == 0 {
                std::str::from_utf8(text).ok()?.parse().ok()
            } else {
                digits(text)
            }
        }
        _ => None,
    }
}

/// Three digits in the Huffman code, where 0 to 2 have five bits and 3 to 9 six.
fn digits(code: &[u8]) -> Option<u16> {
    let bits: Vec<u8> = code
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number * 2 + u16::from(*bit));
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let short = number(bits.get(at..at + 5)?);
        let digit = if short <= 2 {
            at += 5;
            short
        } else {
            let long = number(bits.get(at..at + 6)?);
            at += 6;
            long.checked_sub(0b01_1001 - 3).filter(|digit| *digit <= 9)?
        };
        status = status * 10 + digit;
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let check = |block: &[u8], expected: Option<u16>| assert_eq!(status(block), expected, "{block:?}");
        check(&[0x88], Some(200));
        check(&[0x20, 0x8d, 0], Some(404));
        check(b"\x48\x03421", Some(421));
        // `302` as RFC 7541 C.6.1 has it.
        check(&[0x48, 0x82, 0x64, 0x02], Some(302));
        // `307` of C.6.2.
        check(&[0x48, 0x83, 0x64, 0x0e, 0xff], Some(307));
        check(&[], None);
        let mut bytes = Vec::new();
        // 1337 - as with the prefix of 7 bits.
        length(126, &mut bytes);
        length(127, &mut bytes);
        length(1337, &mut bytes);
        assert_eq!(bytes, [126, 127, 0, 127, 186, 9]);
    }
}
