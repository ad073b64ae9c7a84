//! A shared library that is a plugin: opened, its table checked and copied, and never closed.

use std::error::Error;
use std::fmt;
use std::fs;
use std::mem::{self, MaybeUninit, offset_of};
use std::path::{self, Path, PathBuf};
use std::ptr;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::layout::{ABI_MAJOR, ABI_MINOR, MAGIC, PluginTable};

/// The symbol that a library exports.
const SYMBOL: &str = "ringmq_plugin";

/// The size of the words in front of the first hook, which every version of a table has.
const HEAD_SIZE: usize = offset_of!(PluginTable, connect);

/// No table will ever have this size: a library that claims more has no table.
const TABLE_SIZE_MAX: usize = 4096;

/// Why a library is not a plugin that this broker can run.
#[derive(Debug)]
pub enum LoadError {
    /// There is no such file, or it cannot be read.
    File(PathBuf, std::io::Error),
    NotAFile(PathBuf),
    Open(PathBuf, String),
    NoSymbol(PathBuf),
    NotATable(PathBuf),
    Version {
        path: PathBuf,
        major: u16,
        minor: u16,
    },
    Size {
        path: PathBuf,
        size: usize,
    },
    /// The table is longer than the broker's, and the further part is not empty.
    HookUnknown {
        path: PathBuf,
        minor: u16,
    },
}

/// Opens the library at `path` and returns a copy of its table, which holds for as long as the process runs.
pub(super) fn load(path: &Path) -> Result<PluginTable, LoadError> {
    // A name without a slash would be searched for in the system's folders.
    let path = path::absolute(path).map_err(|error| LoadError::File(path.to_owned(), error))?;
    let metadata = fs::metadata(&path).map_err(|error| LoadError::File(path.clone(), error))?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile(path));
    }
    // SAFETY: needed to load a plugin at all. Its initialisers run, and what they do is the operator's trust in the
    // plugin; the broker relies on nothing of theirs. All of its symbols are bound now, so none is missing later.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|error| LoadError::Open(path.clone(), loader_said(&error, &path)))?;
    // SAFETY: needed to find the table. The type is that of a pointer to bytes of which nothing is assumed; it is looked
    // at below, byte by byte, before it is believed.
    let symbol = unsafe { library.get::<*const u8>(SYMBOL) };
    let table = symbol.map(|symbol| symbol.into_raw().cast_const().cast::<u8>());
    // The library is never closed: its functions are called, and its thread-local destructors run, until the process
    // ends.
    mem::forget(library);
    match table {
        // SAFETY: a symbol of this name is a table in every version of the header, which begins with the same words and
        // never goes away.
        Ok(table) if !table.is_null() => unsafe { copy_table(table, &path) },
        _ => Err(LoadError::NoSymbol(path)),
    }
}

/// The dynamic linker's message, without the path in front.
fn loader_said(error: &libloading::Error, path: &Path) -> String {
    let said = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    match said.strip_prefix(&format!("{}: ", path.display())) {
        Some(rest) => rest.to_owned(),
        None => said,
    }
}

/// Copies a table of any version that this broker can run.
///
/// # Safety
/// `table` points to the words in front of a table, and to as many bytes as they say.
unsafe fn copy_table(table: *const u8, path: &Path) -> Result<PluginTable, LoadError> {
    let path = || path.to_owned();
    // SAFETY: the caller vouches for the head, and `read_unaligned` asks for no alignment. The size is read only when
    // the magic number says that this is a table.
    let head = |offset: usize| unsafe { table.add(offset).cast::<u32>().read_unaligned() };
    if head(offset_of!(PluginTable, magic)) != MAGIC {
        return Err(LoadError::NotATable(path()));
    }
    let version = head(offset_of!(PluginTable, abi_major)).to_ne_bytes();
    let [major, minor] =
        [[version[0], version[1]], [version[2], version[3]]].map(u16::from_ne_bytes);
    if major != ABI_MAJOR {
        return Err(LoadError::Version { path: path(), major, minor });
    }
    let size = head(offset_of!(PluginTable, size)) as usize;
    if !(HEAD_SIZE..=TABLE_SIZE_MAX).contains(&size)
        || !size.is_multiple_of(align_of::<PluginTable>())
    {
        return Err(LoadError::Size { path: path(), size });
    }
    let known = size.min(size_of::<PluginTable>());
    // SAFETY: the caller vouches for `size` bytes.
    let unknown = unsafe { std::slice::from_raw_parts(table.add(known), size - known) };
    if unknown.iter().any(|byte| *byte != 0) {
        return Err(LoadError::HookUnknown { path: path(), minor });
    }
    let mut copy = MaybeUninit::<PluginTable>::zeroed();
    // SAFETY: the caller vouches for the bytes, `copy` has room for `known` of them. Whole members are copied and the
    // others are zero, which is a valid value of each: numbers, and functions that are absent.
    unsafe {
        ptr::copy_nonoverlapping(table, copy.as_mut_ptr().cast::<u8>(), known);
        Ok(copy.assume_init())
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::File(path, error) => write!(
                out,
                "{} cannot be read ({}); name the plugin's shared library, best with its whole path",
                path.display(),
                error.kind()
            ),
            LoadError::NotAFile(path) => write!(
                out,
                "{} is not a file; name the plugin's shared library itself",
                path.display()
            ),
            LoadError::Open(path, error) => write!(
                out,
                "{} cannot be loaded here ({error}); build it with `cc -shared -fPIC` for \
                 this machine, with all that it needs installed",
                path.display()
            ),
            LoadError::NoSymbol(path) => write!(
                out,
                "{} has no symbol '{SYMBOL}'; define the plugin's table as `ringmq plugin-header` says",
                path.display()
            ),
            LoadError::NotATable(path) => write!(
                out,
                "the symbol '{SYMBOL}' of {} is not a table; begin it with RINGMQ_PLUGIN_HEAD as `ringmq plugin-header` \
                 says",
                path.display()
            ),
            LoadError::Version { path, major, minor } => write!(
                out,
                "{} is built for version {major}.{minor} of the plugin ABI, this broker has {ABI_MAJOR}.{ABI_MINOR}; \
                 build it with the header that `ringmq plugin-header` prints",
                path.display()
            ),
            LoadError::Size { path, size } => write!(
                out,
                "the table of {} has a size of {size} bytes, which no version of the plugin ABI has; begin it with \
                 RINGMQ_PLUGIN_HEAD as `ringmq plugin-header` says",
                path.display()
            ),
            LoadError::HookUnknown { path, minor } => write!(
                out,
                "{} is built for version {ABI_MAJOR}.{minor} of the plugin ABI and uses a hook that this broker \
                 ({ABI_MAJOR}.{ABI_MINOR}) does not have; update the broker, or build the plugin with the header that \
                 `ringmq plugin-header` prints",
                path.display()
            ),
        }
    }
}

impl Error for LoadError {}
