//! `path_within(root)`: a path at or below a root, both canonical.

/// The longest root and the longest path, in bytes.
const MAX_ROOT: usize = 1_024;
const MAX_PATH: usize = 4_096;

/// A canonical root.
#[derive(Clone, Debug)]
pub(crate) struct Root(String);

impl Root {
    pub(crate) fn parse(root: &str) -> Option<Self> {
        (root.len() <= MAX_ROOT && is_canonical(root)).then(|| Self(root.to_owned()))
    }

    /// Whether `path` is canonical and the root or below it. An absolute path is never below a
    /// relative root, for it begins with `/` and a root does not.
    pub(crate) fn contains(&self, path: &str) -> bool {
        path.len() <= MAX_PATH
            && is_canonical(path)
            && match path.strip_prefix(self.0.as_str()) {
                Some(rest) => rest.is_empty() || self.0 == "/" || rest.starts_with('/'),
                None => false,
            }
    }
}

/// Whether a path has one reading: no empty segment, none that ends with `.` or a space (so neither
/// `.` nor `..`, nor what a file system trims), no `\`, `%`, control character or leading `~`.
fn is_canonical(path: &str) -> bool {
    let segments = path.strip_prefix('/').unwrap_or(path);
    !path.starts_with('~')
        && !path.contains(|c: char| c.is_ascii_control() || c == '\\' || c == '%')
        && (path == "/"
            || segments
                .split('/')
                .all(|s| !s.is_empty() && !s.ends_with(['.', ' '])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_means_the_root_and_what_is_below() {
        let check = |root: &str, path: &str, expected: Option<bool>| {
            assert_eq!(
                Root::parse(root).map(|r| r.contains(path)),
                expected,
                "{root:?} {path:?}"
            );
        };
        for path in [
            "/srv/data",
            "/srv/data/x",
            "/srv/data/a b/..c/é",
            "/srv/data/.git",
        ] {
            check("/srv/data", path, Some(true));
        }
        for path in [
            "",
            "/",
            "/srv",
            "/srv/data2",
            "/srv/data-evil/x",
            "/srv/data/",
            "/srv//data",
            "//srv/data",
            "srv/data",
            "/srv/data/../x",
            "/srv/data/./x",
            "/srv/data/..",
            "/srv/data/.",
            "/srv/data/a\\..\\x",
            "/srv/data/%2e%2e/x",
            "/srv/data/\0",
            "/srv/data/x\n",
            "/srv/data/x\u{7f}",
            "/SRV/data",
            "/srv/data/x.",
            "/srv/data/.. /x",
            "~/x",
            "/srv/data/x ",
        ] {
            check("/srv/data", path, Some(false));
        }
        check("/", "/etc/passwd", Some(true));
        check("/", "/", Some(true));
        check("/", "etc", Some(false));
        check("src", "src/main.rs", Some(true));
        check("src", "src", Some(true));
        check("src", "/src/main.rs", Some(false));
        check("src", "srcs", Some(false));
        check("/srv", &format!("/srv/{}", "a".repeat(MAX_PATH)), Some(false));
        for root in [
            "", ".", "..", "/srv/", "~", "~/x", "a//b", "a\\b", "a%b", "/a/../b",
        ] {
            check(root, "/x", None);
        }
        check(&"a".repeat(MAX_ROOT + 1), "/x", None);
    }
}
