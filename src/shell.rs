//! The world: io_uring, executors, clock, threads, files, command line.
