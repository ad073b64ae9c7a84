//! What the kernel shows in /proc and /sys, below a root that a test may choose.

use std::fs;
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub(crate) struct Tree(PathBuf);

/// The kernel's own.
impl Default for Tree {
    fn default() -> Tree {
        Tree(PathBuf::from("/"))
    }
}

impl Tree {
    #[cfg(test)]
    pub(crate) fn below(root: PathBuf) -> Tree {
        Tree(root)
    }

    /// A file's text; `None`: the kernel does not show it, or not to us.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.join(path)).ok()
    }

    /// A file's only line.
    pub(crate) fn line(&self, path: &str) -> Option<String> {
        Some(self.text(path)?.trim().to_string()).filter(|line| !line.is_empty())
    }

    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.line(path)?.parse().ok()
    }

    /// The names in a folder, in order; none if it is not there.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}
