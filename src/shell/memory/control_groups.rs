//! The control groups that this process is in, versions 1 and 2, and what they allow and count.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// This process's groups that have something to do with memory, as far as its name spaces show them.
#[derive(Debug, Default)]
pub(super) struct ControlGroups {
    /// Every file and folder is looked for below this: `/`, or a tree of a test.
    root: PathBuf,
    groups: Vec<Group>,
}

/// A group or one of its ancestors.
#[derive(Debug)]
struct Group {
    version: Version,
    /// As the process sees it.
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A hierarchy of groups that is mounted somewhere.
struct Mount {
    version: Version,
    /// The group that stands at the mount point.
    top: PathBuf,
    point: PathBuf,
}

impl ControlGroups {
    pub(super) fn find(root: &Path) -> ControlGroups {
        let read = |path| fs::read_to_string(root.join(path)).unwrap_or_default();
        let memberships = read("proc/self/cgroup");
        let mut found = ControlGroups { root: root.to_owned(), groups: Vec::new() };
        for mount in read("proc/self/mountinfo").lines().filter_map(Mount::parse) {
            let mut paths = memberships.lines().filter_map(parse_membership);
            if let Some((_, path)) = paths.find(|(version, _)| *version == mount.version) {
                found.add_line(&mount, Path::new(path));
            }
        }
        found
    }

    /// The least of all limits, and the file that holds it.
    pub(super) fn limit(&self) -> Option<(u64, PathBuf)> {
        let limits_of = |group: &Group| {
            let limits = match group.version {
                Version::V1 => [
                    ("memory.limit_in_bytes", self.number(group, "memory.limit_in_bytes")),
                    // Counts the ancestors that this name space does not show, too.
                    ("memory.stat", self.field(group, "memory.stat", "hierarchical_memory_limit")),
                ],
                Version::V2 => [
                    ("memory.max", self.number(group, "memory.max")),
                    // Above this, the kernel slows the process down until it hardly runs.
                    ("memory.high", self.number(group, "memory.high")),
                ],
            };
            limits.map(|(file, limit)| Some((limit?, group.folder.join(file))))
        };
        let limits = self.groups.iter().flat_map(limits_of).flatten();
        limits.min_by_key(|(limit, _)| *limit)
    }

    /// Bytes that the kernel holds for the sockets of this process's own group; `None` where they are not counted so.
    pub(super) fn sockets(&self) -> Option<u64> {
        // The root of all groups has no limit, and counts the whole machine.
        let counts = |group: &&Group| self.below_root(&group.folder).join("memory.max").exists();
        let group = self.groups.iter().find(|group| group.version == Version::V2)?;
        let group = Some(group).filter(counts)?;
        let buffers = self.field(group, "memory.stat", "sock")?;
        // Where the sockets themselves are.
        let objects = self.field(group, "memory.stat", "slab_unreclaimable").unwrap_or(0);
        Some(buffers + objects)
    }

    /// Adds the group at `path` and its ancestors up to the mount point.
    fn add_line(&mut self, mount: &Mount, path: &Path) {
        let mut folder = mount.folder_of(path);
        if !self.below_root(&folder).is_dir() {
            // The path is that of another name space: the mount point shows what there is of the process's groups.
            folder = mount.point.clone();
        }
        let own = folder.clone();
        while folder.starts_with(&mount.point) {
            let group = Group { version: mount.version, folder: folder.clone() };
            // A parent without hierarchy (of version 1) does not count what is in its children.
            if folder != own && self.number(&group, "memory.use_hierarchy") == Some(0) {
                return;
            }
            self.groups.push(group);
            if !folder.pop() {
                return;
            }
        }
    }

    fn below_root(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn read(&self, group: &Group, file: &str) -> Option<String> {
        fs::read_to_string(self.below_root(&group.folder.join(file))).ok()
    }

    /// What a file holds; `None`: it is not there, or says `max`.
    fn number(&self, group: &Group, file: &str) -> Option<u64> {
        self.read(group, file)?.trim().parse().ok()
    }

    /// The number behind a name, in a file of such lines.
    fn field(&self, group: &Group, file: &str, name: &str) -> Option<u64> {
        let text = self.read(group, file)?;
        let mut fields = text.lines().filter_map(|line| line.split_once(' '));
        fields.find(|(field, _)| *field == name)?.1.trim().parse().ok()
    }
}

impl Mount {
    /// A line of `mountinfo`: id, parent, device, top, mount point, options, ..., `-`, type, source, options of the type.
    fn parse(line: &str) -> Option<Mount> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (top, point) = (unescape(mount.next()?), unescape(mount.next()?));
        let mut kind = kind.split(' ');
        let version = match (kind.next()?, kind.nth(1)?) {
            ("cgroup2", _) => Version::V2,
            ("cgroup", options) if options.split(',').any(|one| one == "memory") => Version::V1,
            _ => return None,
        };
        Some(Mount { version, top, point })
    }

    /// Where the group of that path stands, if the mount shows it.
    fn folder_of(&self, path: &Path) -> PathBuf {
        let is_plain = path.components().all(|part| part != Component::ParentDir);
        match path.strip_prefix(&self.top) {
            Ok(rest) if is_plain => self.point.join(rest),
            _ => self.point.clone(),
        }
    }
}

/// A line of `/proc/self/cgroup`, if it is about memory: id, controllers, path.
fn parse_membership(line: &str) -> Option<(Version, &str)> {
    let mut fields = line.splitn(3, ':');
    let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    match controllers {
        "" if id == "0" => Some((Version::V2, path)),
        _ if controllers.split(',').any(|one| one == "memory") => Some((Version::V1, path)),
        _ => None,
    }
}

/// Spaces and the like stand as a backslash and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if byte.is_ascii() => {
                out.push(byte as char);
                rest = &after[3..];
            }
            _ => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.into()
}
