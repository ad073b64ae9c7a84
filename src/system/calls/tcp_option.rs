//! Options of TCP sockets that no library has yet.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// `TCP_RTO_MAX_MS` of linux/tcp.h, from Linux 6.15 on.
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// The longest time between two retransmissions in any kernel, milliseconds.
pub const RTO_MAX_MS: u32 = 120_000;

/// Bounds the time between two retransmissions, which else doubles up to two minutes. Sockets that a listener accepts
/// inherit it. `Ok(false)`: this kernel does not have it.
pub fn set_tcp_rto_max(socket: &impl AsFd, rto_max_ms: u32) -> io::Result<bool> {
    let value = rto_max_ms as libc::c_int;
    // SAFETY: needed because neither std nor socket2 know the option. Sound because the pointer and size are those of
    // `value`, which outlives the call, and the descriptor is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOPROTOOPT) { Ok(false) } else { Err(error) }
}

/// Bytes that were sent and that the peer has not confirmed; 0 where the kernel does not tell.
pub fn outstanding(socket: &impl AsFd) -> usize {
    let mut size: libc::c_int = 0;
    // SAFETY: needed because neither std nor socket2 know the question. Sound because TIOCOUTQ writes one int to the place
    // that is given, which outlives the call, and the descriptor is borrowed.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut size) };
    if result == 0 { size.max(0) as usize } else { 0 }
}

/// Probes of the peer's closed window that were not answered so far; 0 where the kernel does not tell.
pub fn unanswered_probes(socket: &impl AsFd) -> u8 {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: needed because neither std nor socket2 know the question. Sound because both pointers are to locals, of which
    // the kernel writes at most the size that is named, and every value is one of the structure's integers.
    let (result, info) = unsafe {
        let result = libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut size,
        );
        (result, info.assume_init())
    };
    if result == 0 { info.tcpi_probes } else { 0 }
}

/// The offset of `tcpi_bytes_acked`, a 64-bit number, in the kernel's `struct tcp_info`, from Linux 4.1 on.
const BYTES_ACKED: usize = 120;

/// Bytes that the peer has confirmed since the connection began; 0 where the kernel does not tell.
pub fn confirmed(socket: &impl AsFd) -> u64 {
    let mut info = [0u64; BYTES_ACKED / size_of::<u64>() + 1];
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: needed because neither std nor socket2 know the question, and libc's structure ends before its answer. Sound
    // because the kernel writes at most the size that is given, to a local that outlives the call; any bytes are numbers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut size,
        )
    };
    let is_whole = result == 0 && size as usize == size_of_val(&info);
    if is_whole { info[BYTES_ACKED / size_of::<u64>()] } else { 0 }
}

/// The bound that `set_tcp_rto_max` has set; `None`: this kernel does not have it.
#[cfg(test)]
pub fn tcp_rto_max(socket: &impl AsFd) -> Option<u32> {
    let mut value: libc::c_int = 0;
    let mut size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: needed as above. Sound because both pointers are to locals of the sizes that are named.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            (&raw mut value).cast(),
            &raw mut size,
        )
    };
    (result == 0).then_some(value as u32)
}
