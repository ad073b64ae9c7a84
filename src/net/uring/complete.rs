//! Completions of the ring: each is booked on its socket or listener, and becomes an event if a connection is concerned.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::buffers::Loan;
use super::send::InFlight;
use super::sockets::Receive;

use super::{Event, Ring, SPARE_SENDS_MAX, SocketKey, Token};
use crate::shard::{ListenerId, ReadMode};
use crate::time::Instant;

impl Ring {
    pub(super) fn next_completion(&mut self, now: Instant) -> Option<Event<'_>> {
        self.end_loan();
        loop {
            let completion = self.completions.get(self.next)?.clone();
            self.next += 1;
            match Token::from_user_data(completion.user_data()) {
                Token::Receive(key) => {
                    if let Some(received) = self.complete_receive(key, &completion) {
                        return Some(self.received_event(key, received));
                    }
                }
                Token::Send(key) => {
                    if let Some(event) = self.complete_send(key, completion.result()) {
                        return Some(event);
                    }
                }
                Token::Accept(listener) => {
                    if let Some(event) = self.complete_accept(now, listener, &completion) {
                        return Some(event);
                    }
                }
                Token::Bell => {
                    if !cqueue::more(completion.flags()) {
                        self.in_flight -= 1;
                        self.bell_armed = false;
                    }
                }
                Token::Cancel => {}
            }
        }
    }

    /// What a receive brought, unless it concerns nobody.
    fn complete_receive(&mut self, key: SocketKey, completion: &cqueue::Entry) -> Option<Received> {
        let result = completion.result();
        // SAFETY: needed because the buffers believe what they are told. Sound because the completion is one of this ring's, and
        // `next` has moved on: each is told once.
        let loan = unsafe { self.buffers.lend(result, completion.flags()) };
        let ended = !cqueue::more(completion.flags());
        self.timed_out += u64::from(result == -libc::ETIMEDOUT);
        let socket = self.sockets.get_mut(key).expect("a socket outlives its operations");
        if ended {
            assert!(socket.receive != Receive::Idle);
            socket.receive = Receive::Idle;
            self.in_flight -= 1;
        }
        if socket.is_mute() {
            if let Some(loan) = loan {
                self.buffers.give_back(loan);
            }
            self.drop_if_done(key);
            return None;
        }
        let broken = result == 0 || (result < 0 && !is_passing(result));
        socket.ended = broken;
        if ended && !broken && socket.wanted != ReadMode::Stopped {
            // Out of buffers, cancelled and wanted again, a single shot, or the kernel's own reasons.
            if socket.wanted == ReadMode::Many {
                self.receive_rearms += 1;
            }
            self.queue_receive(key);
        }
        match loan {
            Some(loan) if result > 0 => return Some(Received::Bytes(loan)),
            Some(loan) => self.buffers.give_back(loan),
            None => {}
        }
        broken.then_some(Received::End(result))
    }

    fn received_event(&mut self, key: SocketKey, received: Received) -> Event<'_> {
        let owner = self.sockets.get_mut(key).expect("it has just received").owner;
        match received {
            Received::Bytes(loan) => {
                let loan = self.lent.insert(loan);
                Event::Received { owner, bytes: self.buffers.bytes(loan) }
            }
            Received::End(result) => {
                let error = (result < 0).then(|| io::Error::from_raw_os_error(-result));
                Event::Ended { owner, is_read_out: true, error }
            }
        }
    }

    fn complete_send(&mut self, key: SocketKey, result: i32) -> Option<Event<'static>> {
        self.in_flight -= 1;
        self.timed_out += u64::from(result == -libc::ETIMEDOUT);
        let socket = self.sockets.get_mut(key).expect("a socket outlives its operations");
        let is_mute = socket.is_mute();
        let send = socket.send.take().expect("a send is kept until its completion");
        // SAFETY: needed to have the output back. Sound because this is the completion of the socket's send, of which it has one.
        let mut send = unsafe { send.complete() };
        let is_passing = result == -libc::EINTR || result == -libc::EAGAIN;
        if !is_mute && (result > 0 || is_passing) && !send.advance(result.max(0) as usize) {
            let (send, entry) = InFlight::begin(send, socket.fd.as_raw_fd());
            socket.send = Some(send);
            self.submit_operation(entry, Token::Send(key));
            return None;
        }
        let owner = socket.owner;
        // While it is read, the receive reports the end, behind what the peer has said before: a DISCONNECT perhaps.
        let reports_end = result <= 0 && socket.wanted == ReadMode::Stopped;
        socket.ended |= reports_end;
        socket.broken = result <= 0;
        let output = send.finish();
        if self.spare_sends.len() < SPARE_SENDS_MAX {
            self.spare_sends.push(send);
        }
        if is_mute {
            self.drop_if_done(key);
            return None;
        }
        if result > 0 {
            return Some(Event::Sent { owner, output });
        }
        let error = (result < 0).then(|| io::Error::from_raw_os_error(-result));
        reports_end.then_some(Event::Ended { owner, is_read_out: false, error })
    }

    fn complete_accept(
        &mut self,
        now: Instant,
        listener: u32,
        completion: &cqueue::Entry,
    ) -> Option<Event<'static>> {
        let acceptor = &mut self.acceptors[listener as usize];
        if !cqueue::more(completion.flags()) {
            self.in_flight -= 1;
            acceptor.ended();
        }
        let result = completion.result();
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result);
            let reported = acceptor.failed(now, &error);
            return reported.then_some(Event::AcceptFailed { error });
        }
        acceptor.accepted();
        // SAFETY: needed to own a descriptor that the kernel made. Sound because the completion is the only one who
        // names it.
        let socket = unsafe { OwnedFd::from_raw_fd(result) };
        let listener = ListenerId(listener as u16);
        if acceptor.is_stopped() { None } else { Some(Event::Accepted { socket, listener }) }
    }
}

enum Received {
    Bytes(Loan),
    /// 0 or a negative error number.
    End(i32),
}

/// The connection is well, the receive only has to be submitted again.
fn is_passing(result: i32) -> bool {
    matches!(-result, libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN)
}
