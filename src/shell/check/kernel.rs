//! The kernel: its release, and which way of input and output it leaves to this process.
//!
//! io_uring needs Linux 6.1. epoll needs no call that came after Linux 5.0, which `tests/refused` shows; its floor here is the
//! oldest kernel on which this broker was seen running.

use super::Finding;
use crate::system::io::{Choice, Io};
use crate::system::kernel::{Release, parse_release};
use crate::system::rings::{RELEASE_MIN, Refusal};

/// The oldest release that `scripts/kernels` runs the broker on.
const RELEASE_EPOLL_MIN: Release = (5, 10);
/// The first release in which the time between retransmissions can be bounded.
const RELEASE_RTO_MAX: Release = (6, 15);
/// The first release that counts the rings themselves as locked memory of the user.
const RELEASE_LOCKED_RINGS: Release = (6, 14);

/// What epoll costs: the range of `bench/results/compare-epoll.json`.
const EPOLL_COST: &str =
    "which took 0.8 to 1.1 times the CPU for each message when it was measured";

/// Whether the kernel has what `io` needs.
pub(super) fn check_release(release: Option<&str>, io: Io) -> Finding {
    let subject = "kernel";
    let Some(text) = release else {
        return Finding::warn(
            subject,
            "/proc/sys/kernel/osrelease cannot be read",
            "mount /proc where the broker runs",
        );
    };
    let floor = match io {
        Io::Uring => RELEASE_MIN,
        Io::Epoll => RELEASE_EPOLL_MIN,
    };
    match parse_release(text) {
        Some(found) if found < floor => Finding::fail(
            subject,
            format!("Linux {text} is too old for {io}"),
            format!("boot Linux {}.{} or later", floor.0, floor.1),
        ),
        Some(found) if found >= RELEASE_RTO_MAX => Finding::ok(subject, format!("Linux {text}")),
        Some(_) => Finding::ok(
            subject,
            format!(
                "Linux {text}; before {}.{}, tcp_rto_max_ms has no effect: a client that stops reading and begins again may \
                 wait up to two minutes",
                RELEASE_RTO_MAX.0, RELEASE_RTO_MAX.1
            ),
        ),
        None => Finding::warn(
            subject,
            format!("Linux {text}: this release cannot be told from others"),
            format!("boot Linux {}.{} or later", floor.0, floor.1),
        ),
    }
}

/// Whether rings count towards the limit on locked memory; unknown kernels are taken for new.
pub(super) fn counts_rings_as_locked(release: Option<&str>) -> bool {
    release.and_then(parse_release).is_none_or(|found| found >= RELEASE_LOCKED_RINGS)
}

/// What was chosen and what it costs.
pub(super) fn judge_io(choice: &Result<Choice, Refusal>) -> Finding {
    let subject = "io";
    match choice {
        Ok(Choice { io: Io::Uring, .. }) => {
            Finding::ok(subject, "io_uring: a ring of the kind that shards use was set up")
        }
        Ok(Choice { io: Io::Epoll, refusal: None }) => Finding::ok(subject, "epoll, as configured"),
        Ok(Choice { io: Io::Epoll, refusal: Some(Refusal { what, remedy, .. }) }) => Finding::warn(
            subject,
            format!("no io_uring: {what}. The broker uses epoll instead, {EPOLL_COST}"),
            format!("{remedy}; or set io = \"epoll\" if it is to stay so"),
        ),
        Err(Refusal { what, remedy, is_lasting }) => {
            let other = if *is_lasting { "; or set io = \"auto\" or \"epoll\"" } else { "" };
            Finding::fail(subject, format!("no io_uring: {what}"), format!("{remedy}{other}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::Level;
    use super::*;
    use crate::system::process::Process;
    use crate::system::rings::explain_refusal;

    #[test]
    fn each_way_of_input_and_output_has_its_oldest_kernel() {
        let cases = [
            ("6.1.0", Level::Ok, Level::Ok),
            ("6.1-rc2", Level::Ok, Level::Ok),
            ("6.18.44-generic", Level::Ok, Level::Ok),
            ("10.0.1", Level::Ok, Level::Ok),
            ("6.0.19", Level::Fail, Level::Ok),
            ("5.15.0-91-generic", Level::Fail, Level::Ok),
            ("5.10.0-32-cloud-amd64", Level::Fail, Level::Ok),
            ("4.19.0-27-cloud-amd64", Level::Fail, Level::Fail),
            ("4.4.0", Level::Fail, Level::Fail),
            ("unknown", Level::Warn, Level::Warn),
        ];
        for (release, uring, epoll) in cases {
            assert_eq!(check_release(Some(release), Io::Uring).level, uring, "{release}");
            assert_eq!(check_release(Some(release), Io::Epoll).level, epoll, "{release}");
        }
        assert_eq!(check_release(None, Io::Uring).level, Level::Warn);
    }

    #[test]
    fn what_is_refused_for_good_is_replaced_and_what_has_run_out_is_not() {
        let refusal =
            |code| explain_refusal(&io::Error::from_raw_os_error(code), &Process::default());
        for code in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EINVAL] {
            assert!(refusal(code).is_lasting, "{code}");
            let refusal = Some(refusal(code));
            let finding = judge_io(&Ok(Choice { io: Io::Epoll, refusal }));
            assert_eq!(finding.level, Level::Warn);
            assert!(finding.what.contains("epoll instead"), "{finding:?}");
        }
        for code in [libc::ENOMEM, libc::EMFILE, libc::EIO] {
            assert!(!refusal(code).is_lasting, "{code}");
            assert_eq!(judge_io(&Err(refusal(code))).level, Level::Fail);
        }
    }
}
