//! The topic layer against models that are too simple to be wrong, and its memory and work against bounds.

mod aliases;
mod index;
mod members;
mod memory;
mod names;
mod retained;
mod texts;
