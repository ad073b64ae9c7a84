//! Folders of tests.

use std::fs;
use std::path::PathBuf;

/// A folder of a test, which is removed at the end.
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ringmq-spool-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder { path }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
