//! Reading a journal over all its segments, trusting nothing: the one way in which records are read.
//!
//! [`Chain`] goes from frame to frame and from file to file; [`Walk`] also computes the tree and
//! compares it with what every segment starts with. Both may run while the writer does: a segment may
//! grow, and a new one may appear.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use tlog_tiles::tlog::Hash;

use crate::checkpoint::Trust;
use crate::error::StoreError;
use crate::frame::{Frame, FrameReader, Step};
use crate::retain::retired;
use crate::rules;
use crate::segment::{self, Header, Unread};
use crate::tree::{self, Tree};

const BUFFER: usize = 256 * 1024;

/// Where a record starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The first record of the segment that has it.
    pub(crate) segment: u64,
    /// The record's number.
    pub(crate) index: u64,
    /// Bytes from the beginning of the segment.
    pub(crate) offset: u64,
}

impl Place {
    /// What is said about damage here.
    pub(crate) fn damaged(self, dir: &Path, reason: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            path: dir.to_path_buf(),
            segment: segment::name(self.segment),
            index: self.index,
            offset: self.offset,
            reason: reason.into(),
        }
    }
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Link {
    /// Another segment begins. Its header fits its name.
    Segment(Header),
    /// A record.
    Frame(Frame),
    /// The newest segment ends between two records.
    End,
    /// What the newest segment has behind its last whole record is no record, for this reason. It may
    /// be one that is being written, or was never finished.
    Torn(String),
    /// Something that is not as it was written.
    Bad(Place, String),
}

/// Reads records in order, from segment to segment.
#[derive(Debug)]
pub(crate) struct Chain {
    dir: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    segment: u64,
    frames: FrameReader<BufReader<File>>,
}

impl Chain {
    /// Starts at the oldest segment; its beginning is the first link.
    pub(crate) fn start(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            open: None,
        }
    }

    /// Starts at a record whose place is known.
    pub(crate) fn at(dir: &Path, place: Place) -> Result<Self, StoreError> {
        let path = segment::path(dir, place.segment);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let reader = BufReader::with_capacity(BUFFER, file);
        let mut frames = FrameReader::at(reader, place.index, place.offset);
        frames.rewind().map_err(StoreError::io("read", &path))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            open: Some(Open {
                segment: place.segment,
                frames,
            }),
        })
    }

    /// Whether it is in a segment, so that [`Chain::place`] is a place.
    pub(crate) fn has_begun(&self) -> bool {
        self.open.is_some()
    }

    /// Where the next record starts, or would.
    pub(crate) fn place(&self) -> Place {
        match &self.open {
            None => Place {
                segment: 0,
                index: 0,
                offset: 0,
            },
            Some(open) => Place {
                segment: open.segment,
                index: open.frames.index(),
                offset: open.frames.offset(),
            },
        }
    }

    /// The next link. After anything but a segment and a frame the chain stays where it is.
    pub(crate) fn step(&mut self) -> Result<Link, StoreError> {
        let Some(open) = &mut self.open else {
            return match segment::list(&self.dir)?.first() {
                None => Ok(Link::Bad(self.place(), rules::GONE.says("there is no segment"))),
                Some(first) => self.enter(*first),
            };
        };
        let path = segment::path(&self.dir, open.segment);
        let failed = |e: io::Error| StoreError::io("read", &path)(e);
        if let Step::Frame(frame) = open.frames.step().map_err(failed)? {
            return Ok(Link::Frame(frame));
        }
        // Once a newer segment is there, this one grows no more: now its end is its end.
        let segments = segment::list(&self.dir)?;
        let dropped = !segments.contains(&open.segment);
        let next = segments.into_iter().find(|first| *first > open.segment);
        open.frames.rewind().map_err(failed)?;
        let step = open.frames.step().map_err(failed)?;
        if !matches!(step, Step::Frame(_)) {
            open.frames.rewind().map_err(failed)?;
        }
        let index = open.frames.index();
        match (step, next) {
            (Step::Frame(frame), _) => Ok(Link::Frame(frame)),
            (Step::End, None) => Ok(Link::End),
            (Step::Torn, None) => Ok(Link::Torn(
                rules::COMPLETE.says("the file ends within the record"),
            )),
            (Step::Bad(reason), None) => Ok(Link::Torn(rules::FRAME.says(reason))),
            (Step::End, Some(next)) if next == index => self.enter(next),
            (Step::End, Some(_)) if dropped => {
                let reason = "old records were dropped while this was read; read again";
                Ok(Link::Bad(self.place(), reason.into()))
            }
            (Step::End, Some(next)) => {
                let reason = format!("the segment ends here, but the next one starts with record {next}");
                Ok(Link::Bad(self.place(), rules::CONTINUES.says(reason)))
            }
            (Step::Torn, Some(_)) => {
                let reason = "the segment ends within the record, but it is not the newest";
                Ok(Link::Bad(self.place(), rules::TAIL.says(reason)))
            }
            (Step::Bad(reason), Some(_)) => Ok(Link::Bad(self.place(), rules::FRAME.says(reason))),
        }
    }

    fn enter(&mut self, first: u64) -> Result<Link, StoreError> {
        let bad = |reason: &str| {
            let place = Place {
                segment: first,
                index: first,
                offset: 0,
            };
            Ok(Link::Bad(place, rules::SEGMENT.says(reason)))
        };
        let path = segment::path(&self.dir, first);
        let mut reader = match File::open(&path) {
            Ok(file) => BufReader::with_capacity(BUFFER, file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return bad("the segment is gone"),
            Err(e) => return Err(StoreError::io("open", &path)(e)),
        };
        let header = match segment::read(&mut reader) {
            Ok(header) => header,
            Err(Unread::Bad(reason)) => return bad(reason),
            Err(Unread::Io(e)) => return Err(StoreError::io("read", &path)(e)),
        };
        if header.tree.size() != first {
            return bad("its header is of another segment");
        }
        self.open = Some(Open {
            segment: first,
            frames: FrameReader::at(reader, first, header.length),
        });
        Ok(Link::Segment(header))
    }
}

/// What comes next, with the tree up to there.
#[derive(Debug)]
pub(crate) enum Found {
    /// Another segment begins, with the tree that the records before it have.
    Segment,
    /// A record; it is in the tree now.
    Frame(Frame),
    /// As [`Link::End`].
    End,
    /// As [`Link::Torn`].
    Torn(String),
    /// As [`Link::Bad`]; also a segment that does not continue the one before, or whose checkpoint is
    /// not the journal's; and at the end, when the beginning is missing and no record says so.
    Bad(Place, String),
}

/// Reads a journal from its beginning and computes its tree.
pub(crate) struct Walk {
    chain: Chain,
    trust: Trust,
    /// Records below are signed for; what others say about the journal counts for nothing.
    signed: u64,
    tree: Option<Tree>,
    /// The tree that the first segment starts with.
    begin: Tree,
    retired: u64,
}

impl Walk {
    /// Starts at the oldest segment, the beginning of which is found first. A checkpoint of the
    /// journal signs for `signed` records.
    pub(crate) fn start(dir: &Path, trust: Trust, signed: u64) -> Self {
        Self {
            chain: Chain::start(dir),
            trust,
            signed,
            tree: None,
            begin: Tree::default(),
            retired: 0,
        }
    }

    /// Where the next record starts, or would.
    pub(crate) fn place(&self) -> Place {
        self.chain.place()
    }

    /// Up to where a signed record that was met says that the journal was dropped.
    pub(crate) fn retired(&self) -> u64 {
        self.retired
    }

    /// The tree of the records so far; `None` before the first segment.
    pub(crate) fn tree(&self) -> Option<&Tree> {
        self.tree.as_ref()
    }

    /// The next thing. After anything but a segment and a frame the walk is over.
    pub(crate) fn step(&mut self) -> Result<Found, StoreError> {
        self.step_each(|_, _, _| {})
    }

    /// As [`Walk::step`]; shows each perfect subtree that a record completes.
    pub(crate) fn step_each(&mut self, show: impl FnMut(u8, u64, Hash)) -> Result<Found, StoreError> {
        Ok(match self.chain.step()? {
            Link::Segment(header) => match self.continues(header) {
                Ok(tree) => {
                    if self.tree.is_none() {
                        self.begin = tree.clone();
                    }
                    self.tree = Some(tree);
                    Found::Segment
                }
                Err(reason) => {
                    let place = Place {
                        offset: 0,
                        ..self.chain.place()
                    };
                    Found::Bad(place, reason)
                }
            },
            Link::Frame(frame) => {
                if let Some(tree) = &mut self.tree {
                    tree.push_each(&tree::entry(&frame.salt, &frame.payload), show);
                }
                if self.chain.place().index <= self.signed
                    && let Some(retired) = retired(&frame.payload)
                    && (retired.end != self.begin.size() || retired.root == self.begin.root().0)
                {
                    self.retired = self.retired.max(retired.end);
                }
                Found::Frame(frame)
            }
            Link::End => self.at_end(Found::End),
            Link::Torn(reason) => self.at_end(Found::Torn(reason)),
            Link::Bad(place, reason) => Found::Bad(place, reason),
        })
    }

    /// Why the beginning is not as it should be, once all that is signed for was met: records are
    /// missing before it, and no signed record says that they were dropped.
    pub(crate) fn beginning_is_bad(&self) -> Option<(Place, String)> {
        let begin = self.begin.size();
        (self.retired < begin).then(|| {
            let place = Place {
                segment: begin,
                index: begin,
                offset: 0,
            };
            let reason =
                "the records before it are missing, and no signed record says that they were dropped";
            (place, rules::BEGINNING.says(reason))
        })
    }

    fn at_end(&self, end: Found) -> Found {
        match self.beginning_is_bad() {
            Some((place, reason)) => Found::Bad(place, reason),
            None => end,
        }
    }

    fn continues(&self, header: Header) -> Result<Tree, String> {
        header
            .check(&self.trust)
            .map_err(|reason| rules::SEGMENT_CHECKPOINT.says(reason))?;
        match &self.tree {
            Some(tree) if *tree != header.tree => {
                Err(rules::CONTINUES.says("the records before it are not the ones that it continues"))
            }
            _ => Ok(header.tree),
        }
    }
}
