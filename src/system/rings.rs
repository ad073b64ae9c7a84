//! Whether the kernel lets this process have the rings that shards use.

use std::fmt;
use std::io;
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};

use super::kernel::{Release, parse_release};
use super::process::{Container, Process};

/// The first release with everything that a shard's ring needs, as (major, minor).
pub const RELEASE_MIN: Release = (6, 1);

const RING_ENTRIES: u32 = 8;
const RING_TRIES: u32 = 10;
const RING_PAUSE: Duration = Duration::from_millis(100);

/// Why this process cannot have io_uring, and what to do.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub what: String,
    pub remedy: String,
    /// Whether another try would end the same way: io_uring is forbidden here, or this kernel does not have it. A
    /// resource that has run out may be back by then.
    pub is_lasting: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Sets up a small ring of the kind that shards use, has it do nothing once, and drops it again.
pub fn try_io_uring(process: &Process) -> Result<(), Refusal> {
    let too_old = |what| Refusal {
        what,
        remedy: format!("boot Linux {}.{} or later", RELEASE_MIN.0, RELEASE_MIN.1),
        is_lasting: true,
    };
    let release = process.kernel_release.as_deref();
    if release.and_then(parse_release).is_some_and(|found| found < RELEASE_MIN) {
        let release = release.unwrap_or_default();
        return Err(too_old(format!("Linux {release} does not have what rings need here")));
    }
    // The ring has a thread that ends with it. The kernel interrupts the thread of a ring that is gone once more, and a
    // call of the embedder's that waits would fail with EINTR.
    let tried = thread::Builder::new().name("try-io-uring".into()).spawn(try_ring);
    let tried = tried.and_then(|thread| thread.join().expect("it does not panic"));
    match tried {
        Ok(None) => Ok(()),
        Ok(Some(name)) => Err(too_old(format!("this kernel's io_uring cannot do {name}"))),
        Err(error) => Err(explain_refusal(&error, process)),
    }
}

/// Returns the first operation that shards need and that the kernel lacks.
fn try_ring() -> io::Result<Option<&'static str>> {
    let mut ring = set_up_ring()?;
    do_nothing(&mut ring)?;
    missing_operation(&ring)
}

/// Has the ring do nothing, all the way through the kernel.
fn do_nothing(ring: &mut IoUring) -> io::Result<()> {
    let mut probe = Probe::new();
    // Some filters refuse this call alone.
    ring.submitter().register_probe(&mut probe)?;
    ring.submit_and_wait(0).map(drop)
}

/// The ring is small, because its locked memory is given back only some time after it is gone: a broker that was just
/// restarted waits for that.
fn set_up_ring() -> io::Result<IoUring> {
    let mut tries = 1;
    loop {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(RING_ENTRIES);
        match ring {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && tries < RING_TRIES => {
                tries += 1;
                thread::sleep(RING_PAUSE);
            }
            settled => return settled,
        }
    }
}

fn missing_operation(ring: &IoUring) -> io::Result<Option<&'static str>> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        ("accept", opcode::Accept::CODE),
        ("recv", opcode::Recv::CODE),
        ("send", opcode::Send::CODE),
        ("sendmsg", opcode::SendMsg::CODE),
        ("async cancel", opcode::AsyncCancel::CODE),
        ("poll", opcode::PollAdd::CODE),
    ];
    Ok(needed.into_iter().find(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| name))
}

/// Why the kernel refused a ring, and what to do.
pub fn explain_refusal(error: &io::Error, process: &Process) -> Refusal {
    let code = error.raw_os_error();
    let lasting = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EINVAL];
    let is_lasting = code.is_some_and(|code| lasting.contains(&code));
    let (what, remedy) = match code {
        Some(libc::EPERM | libc::EACCES) => match process.io_uring_disabled {
            Some(disabled @ 1..) => forbidden_by_sysctl(disabled),
            _ => forbidden_by_filter(process),
        },
        // Some filters claim that the system call does not exist.
        Some(libc::ENOSYS) if process.is_filtered => forbidden_by_filter(process),
        Some(libc::ENOSYS) => (
            "this kernel has no io_uring".to_owned(),
            "boot a kernel built with CONFIG_IO_URING, and not inside gVisor or the like".to_owned(),
        ),
        Some(libc::EINVAL) => (
            "this kernel's io_uring lacks what shards use (single issuer, deferred task work)"
                .to_owned(),
            format!("boot Linux {}.{} or later", RELEASE_MIN.0, RELEASE_MIN.1),
        ),
        Some(libc::ENOMEM) => (
            "no memory is left that this user may lock".to_owned(),
            "raise the limit (systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1), or end \
             other programs of this user that lock memory"
                .to_owned(),
        ),
        Some(libc::EMFILE | libc::ENFILE) => (
            "there are not enough open files".to_owned(),
            "raise the limit on open files (systemd: LimitNOFILE=; Docker: --ulimit nofile=1048576)"
                .to_owned(),
        ),
        _ => (format!("a ring could not be set up: {error}"), "see the kernel's log".to_owned()),
    };
    Refusal { what, remedy, is_lasting }
}

fn forbidden_by_sysctl(disabled: u32) -> (String, String) {
    let remedy = match disabled {
        1 => {
            "run `sysctl kernel.io_uring_disabled=0`, or set kernel.io_uring_group to a group of the \
             broker's user"
        }
        _ => "run `sysctl kernel.io_uring_disabled=0`, on the host if this is a container",
    };
    (format!("kernel.io_uring_disabled is {disabled}, which forbids it"), remedy.to_owned())
}

fn forbidden_by_filter(process: &Process) -> (String, String) {
    let what = if process.is_filtered {
        "a seccomp filter forbids it"
    } else {
        "the kernel forbids it (a security module?)"
    };
    let docker = "run the container with --security-opt seccomp=PROFILE, a profile that also allows \
                  io_uring_setup, io_uring_enter and io_uring_register (or with seccomp=unconfined)";
    let kubernetes = "set the container's securityContext.seccompProfile to type Localhost with a \
                      profile that also allows io_uring_setup, io_uring_enter and io_uring_register \
                      (or to type Unconfined)";
    let remedy = match process.container {
        Some(Container::Docker | Container::Podman) => docker.to_owned(),
        Some(Container::Kubernetes) => kubernetes.to_owned(),
        None if process.is_filtered => format!(
            "Docker, Podman: {docker}; Kubernetes: {kubernetes}; systemd: add @io-uring, or these \
             three, to SystemCallFilter="
        ),
        None => "look for the refusal in the log of SELinux, AppArmor or the like".to_owned(),
    };
    (what.to_owned(), remedy)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_asks_is_not_interrupted_afterwards() {
        let (mut one, _other) = UnixStream::pair().unwrap();
        one.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
        for _ in 0..20 {
            let _ = try_io_uring(&Process::read());
            let error = one.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
        }
    }

    #[test]
    fn an_old_kernel_is_not_asked_for_rings() {
        let kernel_release = Some("5.10.0-30-cloud-amd64".to_owned());
        let process = Process { kernel_release, ..Process::default() };
        let refusal = try_io_uring(&process).unwrap_err();
        assert!(refusal.is_lasting && refusal.to_string().contains("6.1"), "{refusal}");
    }

    #[test]
    fn a_refusal_names_who_refuses_and_what_to_do() {
        let filtered = |container| Process { is_filtered: true, container, ..Process::default() };
        let disabled = |value| Process { io_uring_disabled: Some(value), ..Process::default() };
        let cases = [
            (libc::EPERM, disabled(2), "kernel.io_uring_disabled is 2", "sysctl"),
            (libc::EPERM, disabled(1), "kernel.io_uring_disabled is 1", "io_uring_group"),
            (libc::EPERM, disabled(0), "security module", "SELinux"),
            (libc::EPERM, filtered(None), "seccomp", "SystemCallFilter"),
            (libc::EPERM, filtered(Some(Container::Docker)), "seccomp", "--security-opt"),
            (libc::EPERM, filtered(Some(Container::Podman)), "seccomp", "--security-opt"),
            (libc::EPERM, filtered(Some(Container::Kubernetes)), "seccomp", "seccompProfile"),
            (libc::ENOSYS, filtered(Some(Container::Docker)), "seccomp", "--security-opt"),
            (libc::ENOSYS, Process::default(), "no io_uring", "CONFIG_IO_URING"),
            (libc::EINVAL, Process::default(), "lacks", "6.1"),
            (libc::ENOMEM, Process::default(), "may lock", "LimitMEMLOCK"),
            (libc::EMFILE, Process::default(), "open files", "LimitNOFILE"),
            (libc::EIO, Process::default(), "could not be set up", "log"),
        ];
        for (code, process, what, remedy) in cases {
            let explained = explain_refusal(&io::Error::from_raw_os_error(code), &process);
            assert!(explained.what.contains(what), "{explained:?}");
            assert!(explained.remedy.contains(remedy), "{explained:?}");
        }
    }
}
