//! One shard's io_uring: its sockets, listeners and doorbell, behind calls that cannot misuse memory.
//!
//! The ring (`SINGLE_ISSUER | DEFER_TASKRUN`) is made on the shard's pinned thread, within a glommio executor whose
//! only task awaits nothing of glommio's. A turn enters the ring once: it submits what the last turn queued and waits.
//! Up to three outputs of a turn leave by `send(2)` at once (`turn`), and bytes that a socket does not take then go to
//! the ring.
//!
//! The kernel is a holder like any other: a buffer that a submission names belongs to the ring from `send` to the
//! completion, a socket's descriptor is closed after its last completion, and a ring that is dropped first waits for
//! everything the kernel still has, or leaks its buffers. Tokens carry a generation, so a late completion finds no
//! other socket. Sends carry `MSG_WAITALL`; a send that the kernel cuts short is submitted again from where it stopped.
//!
//! Receives share buffers from Linux 6.18 on (`system::kernel`): a receive begins where the one before ended, and a
//! buffer returns to the kernel when nothing more comes into it.
#![allow(unsafe_code)]

mod buffers;
mod complete;
mod send;
mod sockets;
#[cfg(test)]
mod tests;

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;

use crate::config::Settings;
use crate::shard::{Output, ReadMode};
use crate::system::kernel;
use crate::time::Instant;
use buffers::{Loan, ReceiveBuffers};
use send::{InFlight, Sending};
use sockets::{Receive, Socket};

use super::acceptor::Acceptor;
use super::error::NetworkError;
use super::table::Table;
use super::token::{SocketKey, Token};
use super::{Event, EventFd, Network};
use crate::system::calls::{confirmed, outstanding};

/// Boxes of finished sends that are kept for the next ones.
const SPARE_SENDS_MAX: usize = 1024;

/// Completions may outnumber submissions: multishot requests have many.
const COMPLETIONS_PER_SUBMISSION: u32 = 4;

/// How long a ring that is dropped waits for the kernel to let go of its memory; after that the memory is leaked.
const DROP_WAIT: Duration = Duration::from_millis(50);
const DROP_WAITS_MAX: usize = 100;

#[derive(Clone, Copy, Debug)]
pub struct RingSettings {
    /// Submission queue entries, a power of two.
    pub entries: u32,
    /// A power of two.
    pub receive_buffers: u16,
    pub receive_buffer_size: u32,
    /// A receive takes of a buffer what it needs, and the next one goes on behind it.
    pub shares_buffers: bool,
}

impl From<&Settings> for RingSettings {
    fn from(settings: &Settings) -> RingSettings {
        RingSettings {
            entries: settings.ring_entries,
            receive_buffers: settings.receive_buffers,
            receive_buffer_size: settings.receive_buffer_size,
            shares_buffers: kernel::shares_buffers(),
        }
    }
}

pub struct Ring {
    uring: IoUring,
    buffers: ManuallyDrop<ReceiveBuffers>,
    sockets: Table<Socket>,
    acceptors: Vec<Acceptor>,
    bell: Option<Arc<EventFd>>,
    bell_armed: bool,
    /// Receives to submit with the next wait, after the buffers were given back. Stale keys are skipped.
    receives: Vec<SocketKey>,
    #[expect(clippy::vec_box, reason = "a box goes to the kernel as it is")]
    spare_sends: Vec<Box<Sending>>,
    /// Completions taken from the kernel, those before `next` worked off.
    completions: Vec<cqueue::Entry>,
    next: usize,
    /// What the last event lent out.
    lent: Option<Loan>,
    /// Operations whose last completion is still to come, requests to cancel not counted: they hold nothing.
    in_flight: usize,
    receive_rearms: u64,
    timed_out: u64,
    wait_flags: EnterFlags,
}

impl Ring {
    /// To be made on the thread that uses it.
    pub fn new(settings: RingSettings) -> Result<Ring, NetworkError> {
        let uring = IoUring::builder()
            .dontfork()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(settings.entries * COMPLETIONS_PER_SUBMISSION)
            .build(settings.entries)
            .map_err(NetworkError::Setup)?;
        // SAFETY: needed to lend memory to the kernel. Sound because `Ring::drop` waits until no receive is in flight
        // before it drops the buffers, and keeps them for ever when that does not come to pass.
        let buffers = unsafe { ReceiveBuffers::register(&uring, settings) };
        let mut wait_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if uring.params().is_feature_no_iowait() {
            // Who waits for the network does not wait for a disk; without it an idle core looks busy with one.
            wait_flags |= EnterFlags::NO_IOWAIT;
        }
        Ok(Ring {
            uring,
            buffers: ManuallyDrop::new(buffers.map_err(NetworkError::Buffers)?),
            sockets: Table::default(),
            acceptors: Vec::new(),
            bell: None,
            bell_armed: false,
            receives: Vec::new(),
            spare_sends: Vec::new(),
            completions: Vec::new(),
            next: 0,
            lent: None,
            in_flight: 0,
            receive_rearms: 0,
            timed_out: 0,
            wait_flags,
        })
    }
}

impl Network for Ring {
    fn listen(&mut self, listener: OwnedFd) {
        self.acceptors.push(Acceptor::new(listener));
    }

    fn stop_accepting(&mut self) {
        for index in 0..self.acceptors.len() {
            if self.acceptors[index].stop() {
                self.cancel(Token::Accept(index as u32));
            }
        }
    }

    fn watch(&mut self, bell: Arc<EventFd>) {
        assert!(self.bell.is_none());
        self.bell = Some(bell);
    }

    fn adopt(&mut self, socket: OwnedFd, owner: u64) -> SocketKey {
        self.sockets.insert(Socket::new(socket, owner))
    }

    fn read(&mut self, key: SocketKey, mode: ReadMode) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        // What a broken connection still has to say is little, and its end comes behind it.
        if socket.is_mute() || (socket.broken && mode == ReadMode::Stopped) {
            return;
        }
        socket.wanted = mode;
        match socket.receive {
            Receive::Idle => self.queue_receive(key),
            Receive::Many if mode != ReadMode::Many => self.cancel_receive(key),
            Receive::Once if mode == ReadMode::Stopped => self.cancel_receive(key),
            // What is wanted goes out when what is in flight has ended.
            Receive::Once | Receive::Many | Receive::Cancelled => {}
        }
    }

    fn confirmed(&mut self, key: SocketKey) -> u64 {
        self.sockets.get_mut(key).map_or(0, |socket| confirmed(&socket.fd))
    }

    fn end_sending(&mut self, key: SocketKey) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else { return false };
        if socket.send.is_some() || socket.is_mute() {
            return false;
        }
        SockRef::from(&socket.fd).shutdown(std::net::Shutdown::Write).is_ok()
    }

    fn is_unconfirmed(&mut self, key: SocketKey) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else { return false };
        !socket.is_mute() && outstanding(&socket.fd) > 0
    }

    fn close(&mut self, key: SocketKey) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else { return false };
        if std::mem::replace(&mut socket.closing, true) {
            return false;
        }
        socket.wanted = ReadMode::Stopped;
        let sending = socket.send.is_some();
        let receiving = matches!(socket.receive, Receive::Once | Receive::Many);
        if sending {
            self.cancel(Token::Send(key));
        }
        if receiving {
            self.cancel_receive(key);
        }
        self.drop_if_done(key);
        true
    }

    fn release(&mut self, key: SocketKey) -> Option<OwnedFd> {
        let socket = self.sockets.get_mut(key)?;
        if !socket.is_quiet() || socket.is_mute() {
            return None;
        }
        self.sockets.remove(key).map(|socket| socket.fd)
    }

    fn can_read_rest(&self) -> bool {
        self.next == self.completions.len()
    }

    /// The kernel receives nothing by itself meanwhile: work for this thread waits until the thread enters the ring.
    fn read_rest(&mut self, key: SocketKey, buffer: &mut [u8]) -> usize {
        let Some(socket) = self.sockets.get_mut(key) else { return 0 };
        recv(&socket.fd, buffer, RecvFlags::DONTWAIT).map_or(0, |(size, _)| size)
    }

    fn descriptor(&mut self, key: SocketKey) -> Option<BorrowedFd<'_>> {
        let socket = self.sockets.get_mut(key)?;
        (!socket.is_mute()).then(|| socket.fd.as_fd())
    }

    fn socket_count(&self) -> usize {
        self.sockets.count()
    }

    fn receive_rearms(&self) -> u64 {
        self.receive_rearms
    }

    fn timed_out(&self) -> u64 {
        self.timed_out
    }

    fn deadline(&self) -> Option<Instant> {
        self.acceptors.iter().filter_map(Acceptor::deadline).min()
    }

    fn has_work(&mut self) -> bool {
        if self.next < self.completions.len() || !self.receives.is_empty() {
            return true;
        }
        self.has_submissions() || !self.uring.completion().is_empty()
    }

    fn poll(&mut self, now: Instant) {
        self.enter(now, None);
    }

    fn wait(&mut self, now: Instant, timeout: Duration) {
        self.enter(now, Some(timeout));
    }

    fn send(&mut self, key: SocketKey, output: Output, may_leave_now: bool) -> Option<Output> {
        let socket = self.sockets.get_mut(key)?;
        assert!(socket.send.is_none(), "a socket has one send in flight");
        if socket.is_mute() {
            return None;
        }
        if may_leave_now {
            return self.send_now(key, output);
        }
        self.begin_send(key, output, 0);
        None
    }

    fn next_event(&mut self, now: Instant) -> Option<Event<'_>> {
        self.next_completion(now)
    }
}

impl Ring {
    /// All of `output` but its first `sent` bytes.
    fn begin_send(&mut self, key: SocketKey, output: Output, sent: usize) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let mut send = self.spare_sends.pop().unwrap_or_else(|| Box::new(Sending::new()));
        send.fill(output, sent);
        let (send, entry) = InFlight::begin(send, socket.fd.as_raw_fd());
        socket.send = Some(send);
        self.submit_operation(entry, Token::Send(key));
    }

    /// What the socket takes at once leaves in a call of its own: no completion follows that would end the next wait.
    fn send_now(&mut self, key: SocketKey, output: Output) -> Option<Output> {
        let socket = self.sockets.get_mut(key)?;
        let mut sent = 0;
        if output.parts.is_empty() {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // A connection that is broken says so to the send that follows.
            sent = SockRef::from(&socket.fd).send_with_flags(&output.bytes, flags).unwrap_or(0);
        }
        if sent == output.bytes.len() && output.parts.is_empty() {
            return Some(output);
        }
        self.begin_send(key, output, sent);
        None
    }

    fn enter(&mut self, now: Instant, timeout: Option<Duration>) {
        self.end_loan();
        self.buffers.publish();
        self.arm(now);
        let unread = self.next < self.completions.len();
        let result = match timeout {
            Some(timeout) if !unread => {
                let timeout = Timespec::from(timeout);
                let arguments = SubmitArgs::new().timespec(&timeout);
                let count = self.uring.submission().len() as u32;
                let (submitter, flags) = (self.uring.submitter(), self.wait_flags.bits());
                // SAFETY: needed because the safe call has no flags. Sound because EXT_ARG says that the argument is the
                // one it is, and what it points to lives until the call is over.
                unsafe { submitter.enter(count, 1, flags, Some(&arguments)) }
            }
            // Work that the kernel has deferred to us is flagged, and then this runs it.
            _ if self.has_submissions() => self.uring.submitter().submit_and_wait(0),
            _ => Ok(0),
        };
        check_entered(result);
        self.take_completions();
    }

    /// Entering the kernel has a purpose: submissions, work it has deferred to us, completions it had no room for.
    fn has_submissions(&mut self) -> bool {
        let submissions = self.uring.submission();
        !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow()
    }

    /// What the last event lent out goes back.
    fn end_loan(&mut self) {
        if let Some(loan) = self.lent.take() {
            self.buffers.give_back(loan);
        }
    }

    /// Submits everything that has ended by itself and should go on.
    fn arm(&mut self, now: Instant) {
        let mut receives = std::mem::take(&mut self.receives);
        for key in receives.drain(..) {
            self.arm_receive(key);
        }
        self.receives = receives;
        for index in 0..self.acceptors.len() {
            if self.acceptors[index].arm(now) {
                let listener = Fd(self.acceptors[index].fd.as_raw_fd());
                let entry = opcode::AcceptMulti::new(listener).flags(libc::SOCK_CLOEXEC).build();
                self.submit_operation(entry, Token::Accept(index as u32));
            }
        }
        if let Some(bell) = &self.bell
            && !self.bell_armed
        {
            let bell = Fd(bell.as_raw_fd());
            self.bell_armed = true;
            let entry = opcode::PollAdd::new(bell, libc::POLLIN as u32).multi(true).build();
            self.submit_operation(entry, Token::Bell);
        }
    }

    fn queue_receive(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if !socket.receive_queued {
            socket.receive_queued = true;
            self.receives.push(key);
        }
    }

    fn arm_receive(&mut self, key: SocketKey) {
        // The socket may have been given away or closed since.
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.receive_queued = false;
        if socket.receive != Receive::Idle {
            return;
        }
        let fd = Fd(socket.fd.as_raw_fd());
        let entry = match socket.wanted {
            ReadMode::Stopped => return,
            ReadMode::Once => {
                socket.receive = Receive::Once;
                opcode::Recv::new(fd, std::ptr::null_mut(), 0)
                    .buf_group(buffers::GROUP)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            }
            ReadMode::Many => {
                socket.receive = Receive::Many;
                opcode::RecvMulti::new(fd, buffers::GROUP).build()
            }
        };
        self.submit_operation(entry, Token::Receive(key));
    }

    fn cancel_receive(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.receive = Receive::Cancelled;
        self.cancel(Token::Receive(key));
    }

    fn cancel(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.to_user_data()).build();
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry.user_data(Token::Cancel.to_user_data()));
    }

    fn submit_operation(&mut self, entry: squeue::Entry, token: Token) {
        self.in_flight += 1;
        self.push(entry.user_data(token.to_user_data()));
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: needed because an entry may name memory. Sound because the memory of a receive is in `buffers` and
            // that of a send in the `InFlight` of its socket; both stay in place, and neither is borrowed, until the last
            // completion of that operation, also when the ring is dropped. The other operations name no memory.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            check_entered(self.uring.submit());
            self.take_completions();
        }
    }

    fn take_completions(&mut self) {
        if self.next == self.completions.len() {
            self.completions.clear();
            self.next = 0;
        }
        self.completions.extend(self.uring.completion());
    }

    fn drop_if_done(&mut self, key: SocketKey) {
        let socket = self.sockets.get_mut(key);
        let done = socket.is_some_and(|socket| socket.closing && socket.is_quiet());
        if done {
            drop(self.sockets.remove(key));
        }
    }

    /// Cancels everything and waits for the last completions. `true` when the kernel holds nothing any more.
    fn settle(&mut self) -> bool {
        self.stop_accepting();
        for key in self.sockets.keys() {
            self.close(key);
        }
        if std::mem::take(&mut self.bell_armed) {
            self.cancel(Token::Bell);
        }
        self.bell = None;
        for _ in 0..DROP_WAITS_MAX {
            while self.next_event(Instant::ZERO).is_some() {}
            if self.in_flight == 0 {
                return true;
            }
            self.wait(Instant::ZERO, DROP_WAIT);
        }
        false
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.settle() {
            // The kernel may still write to them. What it reads from an `InFlight` leaks with that.
            return;
        }
        // SAFETY: needed because leaking them is the alternative. Sound because nothing is in flight, and they are not used
        // again.
        unsafe { ManuallyDrop::drop(&mut self.buffers) };
    }
}

fn check_entered(result: io::Result<usize>) {
    let Err(error) = result else { return };
    match error.raw_os_error() {
        // The timeout has passed, a signal came, or completions must be taken first.
        Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
        _ => panic!("io_uring_enter fails on a ring that was set up: {error}"),
    }
}
