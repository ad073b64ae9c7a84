//! Whether files of a log are deleted for space: for a while not again after some that brought none.
//!
//! Where deleted files brought no space (a quota, another process that takes it), the next file may go after a minute,
//! then two, up to an hour.

use std::time::{Duration, Instant};

/// After deletions that brought nothing; twice as long each time.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// What a file system may take beside the bytes that are written: blocks that are not full, and a new file's place (XFS
/// makes inodes 64 at a time).
const ALLOWANCE: u64 = 64 << 10;

/// What was deleted because the disk was full, and what was written since.
///
/// On some disks deletion frees nothing, or not for us: another process takes all there is, a quota counts it further on, a
/// snapshot or a link keeps it. There, each try would cost a file.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    freed: u64,
    written: u64,
    /// Nothing is deleted before.
    until: Option<Instant>,
    /// The last one.
    pause: Duration,
}

/// Whether a file may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    May,
    /// The last ones brought nothing: not for so long. Said once.
    Vain(Duration),
    MayNot,
}

impl Deletions {
    /// The disk is full; `wanted` bytes wait to be written.
    pub(super) fn judge(&mut self, now: Instant, wanted: u64) -> Verdict {
        if self.until.is_some_and(|until| now < until) {
            return Verdict::MayNot;
        }
        // Half of it, as blocks and files are rarely full.
        if self.written * 2 >= self.freed {
            let has_paid = self.freed > 0;
            self.begin_anew();
            if has_paid {
                self.pause = Duration::ZERO;
            }
        } else if self.freed >= self.written + wanted + ALLOWANCE {
            self.begin_anew();
            self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
            self.until = Some(now + self.pause);
            return Verdict::Vain(self.pause);
        }
        Verdict::May
    }

    /// A file of this size goes.
    pub(super) fn note_deleted(&mut self, size: u64) {
        self.freed += size;
    }

    pub(super) fn note_written(&mut self, size: u64) {
        self.written += size;
    }

    fn begin_anew(&mut self) {
        (self.freed, self.written, self.until) = (0, 0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u64 = 1 << 20;
    const BATCH: u64 = 20 << 10;

    #[test]
    fn files_that_bring_nothing_are_left_alone_for_longer_and_longer() {
        let mut deletions = Deletions::default();
        let mut now = Instant::now();
        for expected_s in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            assert_eq!(deletions.judge(now, BATCH), Verdict::May);
            deletions.note_deleted(FILE);
            let pause = Duration::from_secs(expected_s);
            assert_eq!(deletions.judge(now, BATCH), Verdict::Vain(pause));
            // Another process leaves a little now and then: it is no reason to give it another file.
            deletions.note_written(BATCH);
            assert_eq!(deletions.judge(now + pause / 2, BATCH), Verdict::MayNot);
            now += pause;
        }
    }

    #[test]
    fn a_file_that_was_written_again_pays_for_the_next() {
        let mut deletions = Deletions::default();
        let now = Instant::now();
        for _ in 0..100 {
            assert_eq!(deletions.judge(now, BATCH), Verdict::May);
            deletions.note_deleted(FILE);
            (0..FILE / BATCH * 2 / 3).for_each(|_| deletions.note_written(BATCH));
        }
    }

    #[test]
    fn what_is_larger_than_a_file_may_have_several() {
        let mut deletions = Deletions::default();
        let now = Instant::now();
        let mut count = 0;
        while deletions.judge(now, 3 * FILE) == Verdict::May {
            deletions.note_deleted(FILE);
            count += 1;
        }
        assert_eq!(count, 4);
    }

    #[test]
    fn after_a_pause_a_file_that_pays_makes_the_next_pause_short_again() {
        let mut deletions = Deletions::default();
        let mut now = Instant::now();
        for _ in 0..3 {
            assert_eq!(deletions.judge(now, BATCH), Verdict::May);
            deletions.note_deleted(FILE);
            assert!(matches!(deletions.judge(now, BATCH), Verdict::Vain(_)));
            now += PAUSE_MAX;
        }
        assert_eq!(deletions.judge(now, BATCH), Verdict::May);
        deletions.note_deleted(FILE);
        deletions.note_written(FILE);
        assert_eq!(deletions.judge(now, BATCH), Verdict::May);
        deletions.note_deleted(FILE);
        assert_eq!(deletions.judge(now, BATCH), Verdict::Vain(PAUSE));
    }
}
