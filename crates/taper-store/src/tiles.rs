//! The journal as a folder of C2SP `tlog-tiles`, for standard tools and witnesses.
//!
//! `checkpoint`, `tile/<level>/<number>` with 256 hashes each, and `tile/entries/<number>` with the
//! entries: 32 bytes each, SHA-256(salt ‖ payload), behind their length as 16 bits. Payloads stay at
//! home.

use std::fs;
use std::path::{Path, PathBuf};

use tlog_tiles::tile::Tile;
use tlog_tiles::tlog::{Hash, record_hash};

use crate::checkpoint::{CHECKPOINT_FILE, Trust};
use crate::disk;
use crate::error::StoreError;
use crate::journal::{contradiction, ends_early};
use crate::tree;
use crate::verify::read_heads;
use crate::walk::{Found, Walk};

/// Entries of a tile that is full.
const WIDTH: usize = 256;

/// Writes the journal in `dir`, up to its newest checkpoint, as tiles into the new folder `out`.
/// Returns how many entries there are.
///
/// # Errors
/// When `out` is not empty, when the journal is damaged, and when its oldest records were dropped:
/// tiles need every entry.
pub fn export_tiles(dir: &Path, out: &Path) -> Result<u64, StoreError> {
    disk::create_empty_folder(out)?;
    let trust = Trust::load(dir)?;
    let heads = read_heads(dir, &trust)?;
    let Some((head, note)) = heads.newest else {
        return Err(StoreError::untrusted(dir, "there is no good checkpoint"));
    };
    let mut tiles = Tiles::new(out);
    let mut walk = Walk::start(dir, trust, head.size);
    loop {
        let place = walk.place();
        if walk.tree().is_some_and(|tree| tree.size() == head.size) {
            break;
        }
        match walk.step()? {
            Found::Segment if walk.place().index > tiles.entries => {
                let reason = "its oldest records were dropped, and tiles need every entry";
                return Err(StoreError::untrusted(dir, reason));
            }
            Found::Segment => {}
            Found::Frame(frame) => tiles.push(&tree::entry(&frame.salt, &frame.payload))?,
            Found::Bad(place, reason) => return Err(place.damaged(dir, reason)),
            Found::End | Found::Torn(_) => {
                return Err(place.damaged(dir, ends_early(head.size)));
            }
        }
    }
    if let Some(tree) = walk.tree().filter(|tree| tree.root() != head.root) {
        return Err(walk.place().damaged(dir, contradiction(tree)));
    }
    tiles.finish()?;
    // Last: who sees the checkpoint finds the tiles.
    disk::replace(&out.join(CHECKPOINT_FILE), note.as_bytes())?;
    Ok(head.size)
}

/// Tiles that are being filled.
struct Tiles<'a> {
    out: &'a Path,
    entries: u64,
    bundle: Vec<u8>,
    /// Per level, how many tiles are written and the hashes of the next.
    levels: Vec<(u64, Vec<u8>)>,
}

impl<'a> Tiles<'a> {
    fn new(out: &'a Path) -> Self {
        Self {
            out,
            entries: 0,
            bundle: Vec::new(),
            levels: Vec::new(),
        }
    }

    fn push(&mut self, entry: &[u8; 32]) -> Result<(), StoreError> {
        self.bundle.extend_from_slice(&32_u16.to_be_bytes());
        self.bundle.extend_from_slice(entry);
        self.entries += 1;
        if self.entries.is_multiple_of(WIDTH as u64) {
            let number = self.entries / WIDTH as u64 - 1;
            self.write("entries", number, WIDTH, &self.bundle)?;
            self.bundle.clear();
        }
        let mut hash = record_hash(entry);
        for level in 0.. {
            match self.add(level, hash)? {
                Some(parent) => hash = parent,
                None => break,
            }
        }
        Ok(())
    }

    /// Adds a hash to a level; the root of the tile that it filled, if it did.
    fn add(&mut self, level: usize, hash: Hash) -> Result<Option<Hash>, StoreError> {
        if self.levels.len() == level {
            self.levels.push((0, Vec::new()));
        }
        let Some((number, tile)) = self.levels.get_mut(level) else {
            return Ok(None);
        };
        tile.extend_from_slice(&hash.0);
        if tile.len() < WIDTH * hash.0.len() {
            return Ok(None);
        }
        let (number, tile) = (std::mem::replace(number, *number + 1), std::mem::take(tile));
        self.write(&level.to_string(), number, WIDTH, &tile)?;
        Ok(Some(Tile::subtree_hash(&tile)))
    }

    /// Writes the tiles that are not full.
    fn finish(&self) -> Result<(), StoreError> {
        let width = self.bundle.len() / (2 + 32);
        self.write("entries", self.entries / WIDTH as u64, width, &self.bundle)?;
        for (level, (number, tile)) in self.levels.iter().enumerate() {
            self.write(&level.to_string(), *number, tile.len() / 32, tile)?;
        }
        Ok(())
    }

    fn write(&self, level: &str, number: u64, width: usize, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let path = self.out.join(tile_path(level, number, width));
        if let Some(folder) = path.parent() {
            disk::create_folder(folder)?;
        }
        fs::write(&path, bytes).map_err(StoreError::io("write", &path))
    }
}

/// The path of a tile: its number in groups of three digits, all but the last behind an `x`.
fn tile_path(level: &str, number: u64, width: usize) -> PathBuf {
    let mut name = format!("{:03}", number % 1000);
    let mut rest = number / 1000;
    while rest > 0 {
        name = format!("x{:03}/{name}", rest % 1000);
        rest /= 1000;
    }
    let partial = if width == WIDTH {
        String::new()
    } else {
        format!(".p/{width}")
    };
    PathBuf::from(format!("tile/{level}/{name}{partial}"))
}

#[cfg(test)]
mod tests {
    use rand_core::OsRng;
    use tlog_tiles::tile::{TileHashReader, TileReader};
    use tlog_tiles::tlog::{Error, check_record, check_tree, prove_record, prove_tree, tree_hash};

    use super::*;
    use crate::journal::tests::{open_with, small};

    /// Reads tiles as a client of the log does.
    struct Folder<'a>(&'a Path);

    impl TileReader for Folder<'_> {
        fn height(&self) -> u8 {
            8
        }

        fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
            let read = |tile: &Tile| {
                // The reference names the height, C2SP has only one.
                let path = tile.path().replacen("tile/8/", "tile/", 1);
                let bytes = fs::read(self.0.join(&path));
                bytes.map_err(|e| Error::InvalidInput(format!("{path}: {e}")))
            };
            tiles.iter().map(read).collect()
        }

        fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
    }

    fn journal(dir: &Path, count: usize) {
        let (mut journal, _) = open_with(
            dir,
            crate::journal::Options {
                segment_bytes: 2000,
                ..small()
            },
        )
        .unwrap();
        let payloads: Vec<Vec<u8>> = (0..count).map(|n| n.to_string().into_bytes()).collect();
        for payloads in payloads.chunks(50) {
            journal.commit(payloads, &mut OsRng).unwrap();
        }
        journal.close().unwrap();
    }

    #[test]
    fn paths_are_as_c2sp_has_them() {
        let path = |level, number, width| tile_path(level, number, width).display().to_string();
        assert_eq!(path("0", 0, 256), "tile/0/000");
        assert_eq!(path("1", 1_234_067, 256), "tile/1/x001/x234/067");
        assert_eq!(path("entries", 273, 7), "tile/entries/273.p/7");
    }

    #[test]
    fn standard_readers_prove_records_and_growth_from_the_tiles() {
        for count in [1, 255, 256, 257, 700] {
            let dir = tempfile::tempdir().unwrap();
            journal(dir.path(), count);
            let out = dir.path().join("tiles");
            let size = count as u64;
            assert_eq!(export_tiles(dir.path(), &out).unwrap(), size);

            let trust = Trust::load(dir.path()).unwrap();
            let head = trust
                .verify(&fs::read(out.join(CHECKPOINT_FILE)).unwrap())
                .unwrap();
            assert_eq!(head.size, size);
            let folder = Folder(&out);
            let reader = TileHashReader::new(size, head.root, &folder);
            assert_eq!(tree_hash(size, &reader).unwrap(), head.root);
            for index in [0, size / 2, size - 1] {
                let proof = prove_record(size, index, &reader).unwrap();
                let (bundle, at) = (index / 256, usize::try_from(index % 256).unwrap() * 34);
                let width = usize::try_from((size - bundle * 256).min(256)).unwrap();
                let bytes = fs::read(out.join(tile_path("entries", bundle, width))).unwrap();
                assert_eq!(bytes.len(), width * 34);
                assert_eq!(bytes[at..at + 2], [0, 32]);
                let leaf = record_hash(&bytes[at + 2..at + 34]);
                check_record(&proof, size, head.root, index, leaf).unwrap();
            }
            let half = size.div_ceil(2);
            let proof = prove_tree(size, half, &reader).unwrap();
            check_tree(&proof, size, head.root, half, tree_hash(half, &reader).unwrap()).unwrap();
        }
    }

    #[test]
    fn nothing_is_written_into_a_folder_with_files() {
        let dir = tempfile::tempdir().unwrap();
        journal(dir.path(), 3);
        let said = export_tiles(dir.path(), dir.path()).unwrap_err().to_string();
        assert!(said.contains("not empty"), "{said}");
    }
}
