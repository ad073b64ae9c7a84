//! A broker's double that has a capacity: what comes above it waits, and then it does as it is told. MQTT 3.1.1, QoS 0,
//! one topic that all subscribers get.

use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::packets::read_packet;

/// What the double does above its capacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Above {
    /// Messages wait.
    Delays,
    /// While more than `WAITING_MAX` wait, it loses every tenth.
    Loses,
    /// While more than `WAITING_MAX` wait, it closes the publisher's connection.
    Closes,
}

/// As time: what waits now is delivered this much later.
const WAITING_MAX: Duration = Duration::from_millis(60);

/// Messages a second that it delivers.
pub(crate) const CAPACITY: u32 = 2000;

struct State {
    above: Above,
    /// When the last message that came is delivered, and how many have come.
    busy_until: Mutex<(Instant, u64)>,
    queue: Sender<(Instant, Vec<u8>)>,
    readers: Mutex<Vec<TcpStream>>,
}

/// Returns its address. It runs as long as the test.
pub(crate) fn start(above: Above) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let busy_until = Mutex::new((Instant::now(), 0));
    let (queue, waiting) = channel();
    let state = Arc::new(State { above, busy_until, queue, readers: Mutex::default() });
    let delivering = state.clone();
    std::thread::spawn(move || {
        waiting.into_iter().for_each(|(at, packet): (_, Vec<u8>)| delivering.deliver(at, &packet));
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = state.clone();
            std::thread::spawn(move || state.serve(stream));
        }
    });
    address
}

impl State {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut input = BufReader::new(stream.try_clone().ok()?);
        loop {
            let (header_size, packet) = read_packet(&mut input)?;
            match packet[0] >> 4 {
                // It does not know 5.0: the level stands behind "MQTT".
                1 if packet[header_size + 6] == 5 => {
                    stream.write_all(&[0x20, 2, 0, 1]).ok()?;
                    return None;
                }
                1 => stream.write_all(&[0x20, 2, 0, 0]).ok()?,
                8 => {
                    let id = &packet[header_size..];
                    let filters = if id[4..].starts_with(b"$SYS") { 2 } else { 1 };
                    stream.write_all(&[0x90, 2 + filters, id[0], id[1]]).ok()?;
                    stream.write_all(&vec![0; usize::from(filters)]).ok()?;
                    if filters == 1 {
                        self.readers.lock().expect("no panic").push(stream.try_clone().ok()?);
                    }
                }
                3 if self.take(packet) => {}
                3 => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return None;
                }
                _ => return None,
            }
        }
    }

    /// False: the connection is to be closed.
    fn take(&self, packet: Vec<u8>) -> bool {
        let mut busy = self.busy_until.lock().expect("no panic");
        let now = Instant::now();
        let at = busy.0.max(now) + Duration::from_secs(1) / CAPACITY;
        *busy = (at, busy.1 + 1);
        match self.above {
            Above::Loses if at - now > WAITING_MAX && busy.1.is_multiple_of(10) => true,
            Above::Closes if at - now > WAITING_MAX => false,
            _ => self.queue.send((at, packet)).is_ok(),
        }
    }

    fn deliver(&self, at: Instant, packet: &[u8]) {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let mut readers = self.readers.lock().expect("no panic");
        readers.retain_mut(|reader| reader.write_all(packet).is_ok());
    }
}
