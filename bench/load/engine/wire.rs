//! One connection of the generator: reads into a buffer that all share, keeps the tail of a split packet, writes what the
//! socket takes and keeps the rest.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;
use ringmq::codec::ReasonCode;

#[derive(Debug)]
pub(crate) struct Wire {
    pub stream: TcpStream,
    /// The part of a packet that has arrived.
    tail: Vec<u8>,
    /// The bytes that the socket would not take yet.
    pub out: Vec<u8>,
    /// How many calls the socket took bytes in.
    pub write_count: u64,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Wire {
        Wire { stream, tail: Vec::new(), out: Vec::new(), write_count: 0 }
    }

    /// Takes over a connection of which bytes have been read that were not used.
    pub(crate) fn resumed(stream: TcpStream, tail: Vec<u8>) -> Wire {
        Wire { tail, ..Wire::new(stream) }
    }

    /// Reads all bytes that are there. A packet is no larger than the buffer. `take` gets bytes that begin with a
    /// packet, appends its answers and returns how many it used.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize, String>,
    ) -> Result<(), String> {
        loop {
            let kept = self.tail.len();
            if kept >= buffer.len() {
                return Err(format!(
                    "the broker sent a packet of over {} bytes: larger than any that was published",
                    buffer.len()
                ));
            }
            buffer[..kept].copy_from_slice(&self.tail);
            match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err("the broker closed a connection".to_string()),
                Ok(size) => {
                    let end = kept + size;
                    let used = take(&buffer[..end], &mut self.out)?;
                    self.tail.clear();
                    self.tail.extend_from_slice(&buffer[used..end]);
                    self.flush()?;
                    // A short read has emptied the socket: the next arrival is a new edge.
                    if end < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("receive: {error}")),
            }
        }
    }

    /// Whether earlier bytes wait for the socket.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.out.is_empty()
    }

    pub(crate) fn flush(&mut self) -> Result<(), String> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        let written = self.write_some(&out)?;
        self.out = out;
        self.out.drain(..written);
        Ok(())
    }

    /// Writes bytes behind those that wait. Bytes that the socket does not take wait, too.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.is_blocked() {
            self.out.extend_from_slice(bytes);
            return self.flush();
        }
        let written = self.write_some(bytes)?;
        self.out.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(size) => {
                    written += size;
                    self.write_count += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("send: {error}")),
            }
        }
        Ok(written)
    }
}

const DISCONNECT: u8 = 14;

/// The reason for which an unexpected packet of this kind ends the run.
pub(crate) fn unexpected(whom: &str, kind: u8, body: &[u8]) -> String {
    match (kind, body.first()) {
        // Only MQTT 5.0 has a reason here.
        (DISCONNECT, reason) => {
            let code = reason.copied().unwrap_or(0);
            let name = ReasonCode::from_u8(code).map(|reason| format!(" ({reason:?})"));
            format!(
                "the broker closed a connection with reason 0x{code:02x}{}",
                name.unwrap_or_default()
            )
        }
        _ => format!("the broker sent a {whom} a packet of type {kind}: {body:02x?}"),
    }
}

/// Where the first packet of `bytes` has its body; `None` while it is incomplete.
#[inline(always)]
pub(crate) fn body_range(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let (mut size, mut at) = (0, 1);
    loop {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        size |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at > 4 {
            return Err("the broker sent a packet whose size is malformed".to_string());
        }
    }
    Ok((bytes.len() - at >= size).then_some((at, at + size)))
}

/// The parts of a PUBLISH that every version has.
pub(crate) struct Opened<'a> {
    pub qos: u8,
    pub topic: &'a [u8],
    /// The property section, of 5.0, and the payload.
    pub rest: &'a [u8],
}

/// Takes a PUBLISH apart, and appends its answer. `None`: the bytes are no PUBLISH.
#[inline(always)]
pub(crate) fn open_publish<'a>(first: u8, body: &'a [u8], out: &mut Vec<u8>) -> Option<Opened<'a>> {
    let topic_size = usize::from(u16::from_be_bytes(*body.first_chunk()?));
    let topic = body.get(2..2 + topic_size)?;
    let mut rest = &body[2 + topic_size..];
    let qos = first >> 1 & 3;
    if qos > 0 {
        let id = rest.first_chunk::<2>()?;
        let answer = if qos == 1 { 0x40 } else { 0x50 };
        out.extend_from_slice(&[answer, 2, id[0], id[1]]);
        rest = &rest[2..];
    }
    Some(Opened { qos, topic, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a read into 16 bytes: of a packet, `tail` was there before, and `coming` arrives.
    fn check(tail: &[u8], coming: &[u8], expected: Result<usize, &str>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stream = std::net::TcpStream::connect(address).expect("it listens");
        let (mut broker, _) = listener.accept().expect("it came");
        broker.write_all(coming).expect("open");
        let mut byte = [0];
        stream.peek(&mut byte).expect("it comes");
        stream.set_nonblocking(true).expect("open");
        let mut wire = Wire::resumed(TcpStream::from_std(stream), tail.to_vec());
        let mut taken = 0;
        let read = wire.read(&mut [0; 16], |bytes, _| {
            let used = body_range(bytes)?.map_or(0, |(_, end)| end);
            taken += used;
            Ok(used)
        });
        match expected {
            Ok(size) => assert_eq!((read, taken), (Ok(()), size)),
            Err(words) => {
                assert!(read.as_ref().is_err_and(|said| said.contains(words)), "{read:?}")
            }
        }
    }

    #[test]
    fn a_packet_that_is_larger_than_the_buffer_is_named_as_that() {
        let packet = |size: u8| [&[0x30, size][..], &vec![7; size.into()]].concat();
        check(&[], &packet(14), Ok(16));
        check(&packet(14)[..9], &packet(14)[9..], Ok(16));
        check(&[], &packet(15), Err("a packet of over 16 bytes"));
        check(&packet(60)[..40], &packet(60)[40..], Err("a packet of over 16 bytes"));
    }

    #[test]
    fn a_packets_body_is_found_once_it_is_whole() {
        let mut packet = vec![0x30, 0x80, 0x01];
        packet.resize(3 + 128, 7);
        for size in 0..packet.len() {
            assert_eq!(body_range(&packet[..size]), Ok(None));
        }
        assert_eq!(body_range(&packet), Ok(Some((3, 131))));
        assert_eq!(body_range(&[0xd0, 0, 1]), Ok(Some((2, 2))));
        assert!(body_range(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }
}
