//! One shard's sockets through readiness: epoll tells which of them have something, and calls of their own move it.
//!
//! Each socket is watched once, edge triggered, from its adoption to its end, so that nothing is told to the kernel between
//! messages. What the kernel has told is kept: a socket stays listed until a call on it has said that there is no more.
//!
//! A turn takes one read of `receive_buffer_size` bytes from a connection at most; a stream that gave less has no more.
//! An output is sent by one call in the turn that made it. The world reports an output that left at once in the same
//! turn where a ring would do that, else in the next turn, so that a connection has one output a turn here, too.

mod sending;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{RecvFlags, SocketFlags, accept_with, recv};
use socket2::SockRef;

use super::acceptor::Acceptor;
use super::error::NetworkError;
use super::table::Table;
use super::token::{SocketKey, Token};
use super::{Event, EventFd, Network};
use crate::shard::{ListenerId, Output, ReadMode};
use crate::system::calls::{confirmed, outstanding};
use crate::time::Instant;
use sending::{Sending, Sent};
use socket::Socket;

/// What one call tells of.
const EVENTS_MAX: usize = 512;

/// Connections of a listener between two waits.
const ACCEPTS_MAX: usize = 64;

pub struct Epoll {
    epoll: OwnedFd,
    /// What the kernel has told, before it is sorted.
    told: Vec<epoll::Event>,
    sockets: Table<Socket>,
    listeners: Vec<Listener>,
    bell: Option<Arc<EventFd>>,
    /// The bell was rung since the last wait.
    is_rung: bool,
    /// Sockets that have something, each once; stale keys are skipped.
    ready: VecDeque<SocketKey>,
    /// How many of `ready` are for this turn.
    due: usize,
    /// Outputs that have left, to be reported.
    sent: VecDeque<(SocketKey, Output)>,
    buffer: Box<[u8]>,
    timed_out: u64,
}

struct Listener {
    acceptor: Acceptor,
    /// Somebody may wait to be accepted.
    is_ready: bool,
    /// Connections that may still be accepted in this turn.
    left: usize,
}

impl Epoll {
    /// `receive_size` is the most that a connection brings in a turn, bytes.
    pub fn new(receive_size: usize) -> Result<Epoll, NetworkError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC);
        Ok(Epoll {
            epoll: epoll.map_err(|errno| NetworkError::Epoll(errno.into()))?,
            told: Vec::with_capacity(EVENTS_MAX),
            sockets: Table::default(),
            listeners: Vec::new(),
            bell: None,
            is_rung: false,
            ready: VecDeque::new(),
            due: 0,
            sent: VecDeque::new(),
            buffer: vec![0; receive_size].into_boxed_slice(),
            timed_out: 0,
        })
    }

    /// Sorts what the kernel tells, after waiting for it up to `timeout`.
    fn gather(&mut self, timeout: Duration) {
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        self.told.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.told), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait fails on a descriptor that was set up: {error}"),
        }
        for index in 0..self.told.len() {
            let event = self.told[index];
            match Token::from_user_data(event.data.u64()) {
                Token::Receive(key) => self.note(key, event.flags),
                Token::Accept(index) => self.listeners[index as usize].is_ready = true,
                Token::Bell => self.is_rung = true,
                Token::Send(_) | Token::Cancel => unreachable!("nothing is watched as these"),
            }
        }
    }

    fn note(&mut self, key: SocketKey, flags: epoll::EventFlags) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.note(flags);
        self.list(key);
    }

    /// Lists a socket if something can be done on it.
    fn list(&mut self, key: SocketKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if !socket.is_listed && socket.has_work() {
            socket.is_listed = true;
            self.ready.push_back(key);
        }
    }

    fn has_ready(&self) -> bool {
        !self.ready.is_empty()
            || !self.sent.is_empty()
            || self.listeners.iter().any(Listener::may_accept)
    }

    /// Begins a turn.
    fn begin(&mut self, now: Instant) {
        for listener in &mut self.listeners {
            listener.is_ready |= listener.acceptor.arm(now);
            listener.left = ACCEPTS_MAX;
        }
        self.due = self.ready.len();
    }

    fn next_sent(&mut self) -> Option<Event<'static>> {
        while let Some((key, output)) = self.sent.pop_front() {
            let Some(socket) = self.sockets.get_mut(key) else { continue };
            socket.is_reporting = false;
            if !socket.has_ended {
                return Some(Event::Sent { owner: socket.owner, output });
            }
        }
        None
    }

    /// What one listed socket has.
    fn serve(&mut self, key: SocketKey) -> Option<Served> {
        let socket = self.sockets.get_mut(key)?;
        socket.is_listed = false;
        if socket.has_ended {
            return None;
        }
        if socket.can_send()
            && let Some(served) = socket.go_on_sending()
        {
            // What it has to say comes in the same turn.
            if socket.has_work() {
                socket.is_listed = true;
                self.ready.push_front(key);
                self.due += 1;
            }
            return Some(served);
        }
        if !socket.can_receive() {
            return None;
        }
        let received = recv(&socket.fd, &mut self.buffer[..], RecvFlags::DONTWAIT);
        match received {
            Ok((0, _)) => Some(socket.end(true, None)),
            Ok((size, _)) => {
                // A stream that gave less than it was asked for has no more, unless its end is to be read.
                socket.is_readable = size == self.buffer.len() || socket.is_at_end;
                let owner = socket.owner;
                self.list(key);
                Some(Served::Received { owner, size })
            }
            Err(Errno::AGAIN) => {
                socket.is_readable = false;
                None
            }
            Err(Errno::INTR) => {
                self.list(key);
                None
            }
            Err(error) => Some(socket.end(true, Some(error.into()))),
        }
    }

    /// The next connection of a listener that may have one.
    fn accept(&mut self, now: Instant) -> Option<Event<'static>> {
        loop {
            let place = self.listeners.iter().position(Listener::may_accept)?;
            let listener = &mut self.listeners[place];
            match accept_with(&listener.acceptor.fd, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    listener.acceptor.accepted();
                    listener.left -= 1;
                    return Some(Event::Accepted { socket, listener: ListenerId(place as u16) });
                }
                Err(Errno::AGAIN) => listener.is_ready = false,
                // That connection is gone, or a signal came.
                Err(Errno::CONNABORTED | Errno::INTR) => listener.left -= 1,
                Err(error) => {
                    let error = io::Error::from(error);
                    listener.is_ready = false;
                    if listener.acceptor.failed(now, &error) {
                        return Some(Event::AcceptFailed { error });
                    }
                }
            }
        }
    }
}

impl Network for Epoll {
    fn listen(&mut self, listener: OwnedFd) {
        // Somebody who waited to be accepted may be gone again.
        ioctl_fionbio(&listener, true).expect("a listener can be asked not to block");
        let token = Token::Accept(self.listeners.len() as u32);
        watch(&self.epoll, &listener, token, epoll::EventFlags::IN)
            .expect("the kernel watches a listener");
        let acceptor = Acceptor::new(listener);
        self.listeners.push(Listener { acceptor, is_ready: false, left: 0 });
    }

    fn stop_accepting(&mut self) {
        for listener in &mut self.listeners {
            if listener.acceptor.stop() {
                let _ = epoll::delete(&self.epoll, &listener.acceptor.fd);
            }
        }
    }

    fn watch(&mut self, bell: Arc<EventFd>) {
        assert!(self.bell.is_none());
        watch(&self.epoll, &bell, Token::Bell, epoll::EventFlags::IN)
            .expect("the kernel watches an eventfd");
        self.bell = Some(bell);
    }

    fn adopt(&mut self, fd: OwnedFd, owner: u64) -> SocketKey {
        let key = self.sockets.insert(Socket::new(fd, owner));
        let socket = self.sockets.get_mut(key).expect("it was inserted");
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP;
        if let Err(error) = watch(&self.epoll, &socket.fd, Token::Receive(key), flags) {
            // The limit on watches, or no memory: it ends as one that broke.
            socket.refuse(error);
            self.list(key);
        }
        key
    }

    fn read(&mut self, key: SocketKey, mode: ReadMode) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        // What a broken connection still has to say is little, and its end comes behind it.
        if mode != ReadMode::Stopped || !socket.is_broken() {
            socket.wanted = mode;
            self.list(key);
        }
    }

    fn send(&mut self, key: SocketKey, output: Output, may_leave_now: bool) -> Option<Output> {
        let socket = self.sockets.get_mut(key)?;
        assert!(!socket.is_sending(), "a socket has one output on its way");
        if socket.has_ended {
            return None;
        }
        let mut sending = Sending::new(output);
        match sending.go_on(&socket.fd) {
            Sent::All if may_leave_now => return Some(sending.finish()),
            Sent::All => {
                socket.is_reporting = true;
                self.sent.push_back((key, sending.finish()));
            }
            Sent::Some => {
                socket.is_writable = false;
                socket.sending = Some(Box::new(sending));
            }
            Sent::Broken(error) => {
                // The output is not wanted back.
                socket.break_off(error);
                self.list(key);
            }
        }
        None
    }

    fn confirmed(&mut self, key: SocketKey) -> u64 {
        self.sockets.get_mut(key).map_or(0, |socket| confirmed(&socket.fd))
    }

    fn end_sending(&mut self, key: SocketKey) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else { return false };
        // What has left and was not reported yet is in the socket, in front of the end.
        if socket.sending.is_some() || socket.has_ended {
            return false;
        }
        SockRef::from(&socket.fd).shutdown(Shutdown::Write).is_ok()
    }

    fn is_unconfirmed(&mut self, key: SocketKey) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else { return false };
        !socket.has_ended && outstanding(&socket.fd) > 0
    }

    fn close(&mut self, key: SocketKey) -> bool {
        self.sockets.remove(key).is_some()
    }

    fn release(&mut self, key: SocketKey) -> Option<OwnedFd> {
        let socket = self.sockets.get_mut(key)?;
        if socket.is_sending() || socket.has_ended {
            return None;
        }
        let socket = self.sockets.remove(key)?;
        // A descriptor that goes on living is watched until that is ended.
        let _ = epoll::delete(&self.epoll, &socket.fd);
        Some(socket.fd)
    }

    fn read_rest(&mut self, key: SocketKey, buffer: &mut [u8]) -> usize {
        let Some(socket) = self.sockets.get_mut(key) else { return 0 };
        let (size, _) = recv(&socket.fd, buffer, RecvFlags::DONTWAIT).unwrap_or((0, 0));
        size
    }

    fn descriptor(&mut self, key: SocketKey) -> Option<BorrowedFd<'_>> {
        let socket = self.sockets.get_mut(key)?;
        (!socket.has_ended).then(|| socket.fd.as_fd())
    }

    fn socket_count(&self) -> usize {
        self.sockets.count()
    }

    fn timed_out(&self) -> u64 {
        self.timed_out
    }

    fn deadline(&self) -> Option<Instant> {
        self.listeners.iter().filter_map(|listener| listener.acceptor.deadline()).min()
    }

    fn has_work(&mut self) -> bool {
        if !self.has_ready() {
            self.gather(Duration::ZERO);
        }
        self.has_ready() || self.is_rung
    }

    fn poll(&mut self, now: Instant) {
        self.wait(now, Duration::ZERO);
    }

    fn wait(&mut self, now: Instant, timeout: Duration) {
        self.begin(now);
        let is_due = self.has_ready() || self.is_rung;
        self.gather(if is_due { Duration::ZERO } else { timeout });
        // The wait has ended, which is all that the bell is for.
        self.is_rung = false;
        self.due = self.ready.len();
    }

    fn next_event(&mut self, now: Instant) -> Option<Event<'_>> {
        if let Some(event) = self.next_sent() {
            return Some(event);
        }
        while self.due > 0 {
            self.due -= 1;
            let Some(key) = self.ready.pop_front() else { break };
            match self.serve(key) {
                Some(Served::Received { owner, size }) => {
                    return Some(Event::Received { owner, bytes: &mut self.buffer[..size] });
                }
                Some(Served::Sent { owner, output }) => return Some(Event::Sent { owner, output }),
                Some(Served::Ended { owner, is_read_out, error }) => {
                    let errno = error.as_ref().and_then(Errno::from_io_error);
                    self.timed_out += u64::from(errno == Some(Errno::TIMEDOUT));
                    return Some(Event::Ended { owner, is_read_out, error });
                }
                None => {}
            }
        }
        self.accept(now)
    }
}

/// As an event, but of bytes only how many they are.
enum Served {
    Received { owner: u64, size: usize },
    Sent { owner: u64, output: Output },
    Ended { owner: u64, is_read_out: bool, error: Option<io::Error> },
}

impl Listener {
    fn may_accept(&self) -> bool {
        self.is_ready && self.left > 0 && self.acceptor.is_armed()
    }
}

fn watch(
    epoll: &OwnedFd,
    fd: &impl AsFd,
    token: Token,
    flags: epoll::EventFlags,
) -> io::Result<()> {
    let data = epoll::EventData::new_u64(token.to_user_data());
    Ok(epoll::add(epoll, fd, data, flags | epoll::EventFlags::ET)?)
}
