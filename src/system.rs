//! The system beneath this process: the kernel's facts and permissions, the clock, and calls that no library has.

pub mod calendar;
pub mod calls;
#[cfg(test)]
pub mod child;
pub mod clock;
#[cfg(test)]
pub mod folder;
pub mod io;
pub mod kernel;
pub mod process;
pub mod rings;
