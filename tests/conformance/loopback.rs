//! The world over TCP: a broker process of its own for each case.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use ringmq::config::keys::Key;
use ringmq::config::kind::Kind;

use crate::broker::Broker;
use crate::runner::{Patience, Received, World};

/// How long an expected packet may take, and how long it must be quiet where nothing is expected.
const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(60);

pub(crate) struct Loopback {
    broker: Broker,
    sockets: HashMap<String, TcpStream>,
}

impl Loopback {
    pub(crate) fn start(shards: u16, limits: &[(String, u64)]) -> Result<Loopback, String> {
        let mut arguments = vec!["--shards".to_owned(), shards.to_string()];
        for (name, value) in limits {
            let is_flag = Key::find(name).is_some_and(|key| matches!(key.kind, Kind::Flag));
            let value = if is_flag { (*value != 0).to_string() } else { value.to_string() };
            arguments.extend([format!("--{}", name.replace('_', "-")), value]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok(Loopback { broker: Broker::start(&arguments)?, sockets: HashMap::new() })
    }

    pub(crate) fn log(&self) -> String {
        self.broker.log()
    }
}

impl World for Loopback {
    fn open(&mut self, client: &str) -> Result<(), String> {
        let socket = TcpStream::connect(self.broker.address).map_err(|e| e.to_string())?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        self.sockets.insert(client.to_owned(), socket);
        Ok(())
    }

    fn send(&mut self, client: &str, bytes: &[u8]) {
        // A broker that has closed is seen when the script reads.
        let _ = self.sockets.get_mut(client).unwrap().write_all(bytes);
    }

    fn receive(&mut self, client: &str, patience: Patience) -> Received {
        let socket = self.sockets.get_mut(client).unwrap();
        let timeout = if patience == Patience::Long { LONG } else { SHORT };
        socket.set_read_timeout(Some(timeout)).unwrap();
        let mut buffer = vec![0; 64 << 10];
        let outcome = loop {
            match socket.read(&mut buffer) {
                // A kernel may interrupt a call without any signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(0) => Received::Closed,
            Ok(size) => Received::Bytes(buffer[..size].to_vec()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Received::Nothing
            }
            Err(_) => Received::Closed,
        }
    }

    fn close(&mut self, client: &str) {
        let Some(mut socket) = self.sockets.remove(client) else { return };
        let _ = socket.shutdown(Shutdown::Write);
        // The broker has noticed when it closes its end; a busy machine may take its time.
        let _ = socket.set_read_timeout(Some(LONG));
        let mut buffer = [0; 4096];
        while socket.read(&mut buffer).is_ok_and(|size| size > 0) {}
    }

    fn wait(&mut self, ms: u64) {
        thread::sleep(Duration::from_millis(ms));
    }
}
