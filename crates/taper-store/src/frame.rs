//! One record in a segment of the journal.
//!
//! ```text
//! length  u32, big endian      bytes of payload, at most 256 KiB
//! check   8 bytes              SHA-256(index ‖ length ‖ salt ‖ payload), truncated
//! salt    16 bytes             random; hides the payload from who knows only the entry
//! payload                      one record as JSON
//! ```
//!
//! The check covers the index, so a frame that moved is as bad as one that changed. It finds
//! accidents; the signed tree finds intent.

use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest as _, Sha256};

use crate::error::StoreError;
use crate::record::Record;

/// Bytes of a frame before its payload.
pub(crate) const HEADER: usize = 4 + 8 + 16;
/// The largest payload, in bytes: a decision with 256 long resources fits several times.
pub(crate) const MAX_PAYLOAD: usize = 256 * 1024;

/// One record as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) salt: [u8; 16],
    pub(crate) payload: Vec<u8>,
}

/// What follows in the file.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole frame with the right check.
    Frame(Frame),
    /// The file ends between two frames.
    End,
    /// The file ends within a frame.
    Torn,
    /// A frame that is not what was written.
    Bad(&'static str),
}

/// Appends the frame of record number `index` to `out`.
pub(crate) fn encode(
    index: u64,
    salt: &[u8; 16],
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), StoreError> {
    let too_large = || StoreError::RecordTooLarge {
        size: payload.len(),
        limit: MAX_PAYLOAD,
    };
    if payload.len() > MAX_PAYLOAD {
        return Err(too_large());
    }
    let length = u32::try_from(payload.len())
        .map_err(|_| too_large())?
        .to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&check(index, &length, salt, payload));
    out.extend_from_slice(salt);
    out.extend_from_slice(payload);
    Ok(())
}

/// Reads a payload as a record.
pub(crate) fn decode_record(payload: &[u8]) -> Result<Record, StoreError> {
    serde_json::from_slice(payload).map_err(|e| StoreError::MalformedRecord(e.to_string()))
}

/// Writes a record as a payload.
pub(crate) fn encode_record(record: &Record) -> Result<Vec<u8>, StoreError> {
    let payload = serde_json::to_vec(record).map_err(|e| StoreError::MalformedRecord(e.to_string()))?;
    if payload.len() > MAX_PAYLOAD {
        return Err(StoreError::RecordTooLarge {
            size: payload.len(),
            limit: MAX_PAYLOAD,
        });
    }
    Ok(payload)
}

/// Reads frames in order, trusting nothing.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    inner: R,
    index: u64,
    offset: u64,
}

impl<R: Read + Seek> FrameReader<R> {
    /// Starts at a frame whose position is known.
    pub(crate) fn at(inner: R, index: u64, offset: u64) -> Self {
        Self { inner, index, offset }
    }

    /// The number of the next record.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// Where the next record starts, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes back to where the next record starts, after a step that found no whole frame.
    pub(crate) fn rewind(&mut self) -> io::Result<()> {
        self.inner.seek(SeekFrom::Start(self.offset)).map(drop)
    }

    /// The next frame. After anything but a frame, [`FrameReader::rewind`] comes before another step.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        let mut header = [0; HEADER];
        match read_up_to(&mut self.inner, &mut header)? {
            0 => return Ok(Step::End),
            HEADER => {}
            _ => return Ok(Step::Torn),
        }
        let (mut length, mut wanted, mut salt) = ([0; 4], [0; 8], [0; 16]);
        for (to, from) in length.iter_mut().chain(&mut wanted).chain(&mut salt).zip(header) {
            *to = from;
        }
        let size = u32::from_be_bytes(length) as usize;
        // The bound comes before the allocation: a damaged length must not ask for gigabytes.
        if size > MAX_PAYLOAD {
            return Ok(Step::Bad("its length is beyond the limit"));
        }
        let mut payload = vec![0; size];
        if read_up_to(&mut self.inner, &mut payload)? < size {
            return Ok(Step::Torn);
        }
        if check(self.index, &length, &salt, &payload) != wanted {
            return Ok(Step::Bad("its checksum does not match"));
        }
        self.index += 1;
        self.offset += (HEADER + size) as u64;
        Ok(Step::Frame(Frame { salt, payload }))
    }
}

/// The frame of record number `index` at the beginning of `bytes`, if there is a good one.
pub(crate) fn parse(bytes: &[u8], index: u64) -> Option<Frame> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (wanted, rest) = rest.split_first_chunk::<8>()?;
    let (salt, rest) = rest.split_first_chunk::<16>()?;
    let size = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if size > MAX_PAYLOAD {
        return None;
    }
    let payload = rest.get(..size)?;
    (check(index, length, salt, payload) == *wanted).then(|| Frame {
        salt: *salt,
        payload: payload.to_vec(),
    })
}

fn check(index: u64, length: &[u8; 4], salt: &[u8; 16], payload: &[u8]) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(index.to_be_bytes());
    hash.update(length);
    hash.update(salt);
    hash.update(payload);
    let mut out = [0; 8];
    for (to, from) in out.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    out
}

/// Fills the buffer unless the input ends before; how much of it was filled.
pub(crate) fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let wanted = buffer.len();
    let mut rest = buffer;
    while !rest.is_empty() {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(n) => rest = rest.get_mut(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(wanted - rest.len())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, payload) in payloads.iter().enumerate() {
            encode(index as u64, &[index as u8; 16], payload, &mut out).unwrap();
        }
        out
    }

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Step) {
        let mut reader = FrameReader::at(Cursor::new(bytes), 0, 0);
        let mut payloads = Vec::new();
        loop {
            match reader.step().unwrap() {
                Step::Frame(frame) => payloads.push(frame.payload),
                other => return (payloads, other),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8)) {
            let (back, end) = read(&file(&payloads));
            prop_assert_eq!(back, payloads);
            prop_assert!(matches!(end, Step::End));
        }

        #[test]
        fn no_flipped_bit_passes(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut bytes = file(&payloads);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (_, end) = read(&bytes);
            prop_assert!(!matches!(end, Step::End));
        }
    }

    #[test]
    fn a_frame_that_moved_is_bad() {
        let mut bytes = Vec::new();
        encode(1, &[0; 16], b"{}", &mut bytes).unwrap();
        assert!(matches!(read(&bytes).1, Step::Bad(_)));
    }

    #[test]
    fn a_huge_length_is_refused_before_it_is_allocated() {
        let mut bytes = Vec::new();
        bytes.extend([0xff; HEADER]);
        assert!(matches!(
            read(&bytes).1,
            Step::Bad("its length is beyond the limit")
        ));
        let payload = vec![0; MAX_PAYLOAD + 1];
        assert!(matches!(
            encode(0, &[0; 16], &payload, &mut Vec::new()),
            Err(StoreError::RecordTooLarge { .. })
        ));
    }
}
