//! A broker that a test starts.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Ends with the test.
pub(crate) struct Running {
    pub process: Child,
    pub address: String,
}

impl Running {
    pub(crate) fn ringmq(options: &str) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
        command.args("serve --listen 127.0.0.1:0 --shards 1".split(' '));
        command.args(options.split_whitespace()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("it starts");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            rest.split_whitespace().next().map(str::to_string)
        });
        std::thread::spawn(move || lines.count());
        Running { process, address: address.expect("it listens") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
