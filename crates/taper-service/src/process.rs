//! What the operating system knows of this process, under the names that every exporter for Prometheus uses.
//! On other systems than Linux what `/proc` would tell is left at 0.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::metrics::{Gauge, Registry, Spent};

/// The families `process_*`.
#[derive(Debug)]
pub struct Process {
    cpu: Spent,
    resident: Gauge,
    open_files: Gauge,
    max_files: Gauge,
}

impl Process {
    /// Puts them on the page. `started` is in seconds since the Unix epoch.
    pub fn new(registry: &mut Registry, started: i64) -> Self {
        let start = registry.gauge(
            "process_start_time_seconds",
            "When it started, in seconds since 1970.",
        );
        start.set(started);
        Self {
            cpu: registry.spent("process_cpu_seconds_total", "Time of processors that it used."),
            resident: registry.gauge("process_resident_memory_bytes", "Memory that it has."),
            open_files: registry.gauge("process_open_fds", "Files and sockets that it has open."),
            max_files: registry.gauge("process_max_fds", "How many it may have open."),
        }
    }

    /// Looks at them now. It reads `/proc`, which no disk delays.
    pub fn look(&self) {
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        if let (Ok(seconds), Ok(nanos)) = (u64::try_from(spent.tv_sec), u32::try_from(spent.tv_nsec)) {
            self.cpu.take_over(Duration::new(seconds, nanos));
        }
        self.resident.set(resident().unwrap_or(0));
        self.open_files.set_count(open_files().unwrap_or(0));
        let most = getrlimit(Resource::Nofile).current;
        let most = most.and_then(|most| i64::try_from(most).ok());
        self.max_files.set(most.unwrap_or(i64::MAX));
    }
}

/// How many bytes this user may still write where `path` is. It asks the file system: not for a runtime
/// thread.
///
/// # Errors
/// The operating system's.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of memory, from the second number of `/proc/self/statm`, which counts pages.
fn resident() -> Option<i64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page = i64::try_from(rustix::param::page_size()).ok()?;
    Some(pages.saturating_mul(page))
}

/// Without the one that looks.
fn open_files() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn it_is_told_what_this_process_uses() {
        let mut registry = Registry::new();
        let process = Process::new(&mut registry, 1_700_000_000);
        process.look();
        let page = registry.render();
        let value = |name: &str| -> f64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name}: {page}"))
                .trim()
                .parse()
                .unwrap()
        };
        assert!((value("process_start_time_seconds ") - 1_700_000_000.0).abs() < 1.0);
        assert!(value("process_cpu_seconds_total ") > 0.0);
        assert!(value("process_resident_memory_bytes ") > 100_000.0);
        let open = value("process_open_fds ");
        assert!(open >= 3.0 && open <= value("process_max_fds "), "{page}");
        let held: Vec<_> = (0..50)
            .map(|_| fs::File::open("/proc/self/statm").unwrap())
            .collect();
        process.look();
        // Other tests of this process open and close files too.
        assert!(process.open_files.get() >= 50, "{}", held.len());
    }

    #[test]
    fn a_folder_has_free_bytes_and_what_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(folder.path()).unwrap() > 0);
        assert!(free_bytes(&folder.path().join("none")).is_err());
    }
}
