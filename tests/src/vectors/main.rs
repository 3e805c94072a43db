//! Writes the test vectors (`spec/vectors/README.md`).
//!
//! `write-vectors [DIR]` fills DIR, by default `spec/vectors`, and takes out what is no vector any
//! more. Every random value comes from a fixed seed and the vector's name, so the same table gives the
//! same bytes. The verdicts are written by hand in the table; no verifier is asked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod block;
mod book;
mod kit;
mod parts;
mod scene;
mod subjects;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/vectors");
    let dir = std::env::args_os().nth(1).map_or_else(default, PathBuf::from);
    let mut written = BTreeSet::new();
    for (name, text) in subjects::all().files() {
        let path = dir.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text)?;
        written.insert(path);
    }
    for folder in std::fs::read_dir(&dir)? {
        let folder = folder?.path();
        if folder.is_dir() {
            for file in std::fs::read_dir(&folder)? {
                let file = file?.path();
                if file.extension().is_some_and(|e| e == "json") && !written.contains(&file) {
                    std::fs::remove_file(&file)?;
                }
            }
        }
    }
    Ok(())
}
