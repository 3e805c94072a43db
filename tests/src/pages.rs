//! Pages with commands: the blocks of one, and the example configurations on ports that are free.

use std::path::Path;

use crate::{daemon, root};

/// The ports that `README.md` and `examples/configs` speak of are these and the ones after.
pub const FIRST_PORT: u16 = 9400;
const PORTS: u16 = 20;

/// The fenced blocks: language and text.
pub fn blocks(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(language) if !inside => found.push((language.to_owned(), String::new())),
            Some(_) => {}
            None if inside => {
                let (_, block) = found.last_mut().unwrap();
                block.push_str(line);
                block.push('\n');
            }
            None => {}
        }
        inside ^= line.starts_with("```");
    }
    assert!(!inside, "the last block is open");
    found
}

/// The first of `PORTS` ports in a row that are free, and kept for this process: see [`daemon::free_port`].
pub fn free_ports() -> u16 {
    let start = 10_000 + u16::try_from(std::process::id() % 1_000).unwrap() * PORTS;
    // Ports that look like those of the text would be replaced once more.
    let usable = |port: u16| !port.to_string().contains("94") && daemon::kept(port).is_some();
    let free = |first: &u16| (*first..first + PORTS).all(usable);
    (start..32_000)
        .step_by(PORTS.into())
        .find(free)
        .expect("free ports")
}

/// The text with other ports.
pub fn on_ports(text: &str, first: u16) -> String {
    (0..PORTS).fold(text.to_owned(), |text, n| {
        text.replace(&(FIRST_PORT + n).to_string(), &(first + n).to_string())
    })
}

/// Copies the examples as they are in the project, but for the ports.
pub fn copy_examples(to: &Path, first_port: u16) {
    for folder in ["examples/configs", "examples/policies"] {
        std::fs::create_dir_all(to.join(folder)).unwrap();
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = on_ports(&std::fs::read_to_string(&path).unwrap(), first_port);
            std::fs::write(to.join(folder).join(path.file_name().unwrap()), text).unwrap();
        }
    }
}
