//! Filters of system calls, as containers and sandboxes have them.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// io_uring_setup, io_uring_enter and io_uring_register, on every architecture.
const IO_URING: std::ops::RangeInclusive<i64> = 425..=427;

/// The calls that came after Linux 5.0 have these numbers on every architecture.
const NEWER_CALLS: std::ops::Range<i64> = 424..1024;

/// What a filter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Answers EPERM to io_uring, as Docker and containerd do by default.
    Eperm,
    /// Answers ENOSYS to io_uring, as filters do that claim not to know it.
    Enosys,
    /// Answers ENOSYS to every call that is newer than Linux 5.0.
    NewerCalls,
}

impl Filter {
    /// From here on this thread and what it starts live with it, for good.
    pub(crate) fn apply(self) -> Result<(), String> {
        let (calls, errno) = match self {
            Filter::Eperm => (IO_URING.collect::<Vec<_>>(), libc::EPERM),
            Filter::Enosys => (IO_URING.collect(), libc::ENOSYS),
            Filter::NewerCalls => (NEWER_CALLS.collect(), libc::ENOSYS),
        };
        let rules: BTreeMap<_, _> = calls.into_iter().map(|call| (call, Vec::new())).collect();
        let arch = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
        let action = SeccompAction::Errno(errno as u32);
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch);
        let program: BpfProgram = filter
            .and_then(TryInto::try_into)
            .map_err(|error| format!("no filter can be made: {error}"))?;
        seccompiler::apply_filter(&program).map_err(|error| format!("no filter is taken: {error}"))
    }
}
