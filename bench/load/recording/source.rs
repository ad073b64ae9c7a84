//! Reads a recording ahead of its replay, on a thread of its own, and no further ahead than a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use ringmq::topic;

use super::format::Message;
use super::reader::Reader;
use super::summary::Summary;

/// A message to be played.
#[derive(Debug)]
pub(super) struct Cue {
    pub stream: u32,
    /// From the replay's begin, at the recording's own speed. Nanoseconds.
    pub at_ns: u64,
    pub message: Message,
}

/// What is handed over at once, and how often that may wait.
const BATCH_COUNT: usize = 512;
const BATCH_BYTES: usize = 4 << 20;
const BATCHES_AHEAD: usize = 4;

/// What a source has next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    At(u64),
    /// It has not been read yet.
    Later,
    End,
}

/// `None`: the recording has ended.
type Batch = Result<Option<Vec<Cue>>, String>;

#[derive(Debug)]
pub(super) struct Source {
    batches: Receiver<Batch>,
    batch: std::vec::IntoIter<Cue>,
    has_ended: bool,
    /// The reader's, once it runs.
    pub thread_id: Arc<AtomicU32>,
}

impl Source {
    /// Begins to read; the recording is played `loops` times, one behind the other.
    pub(super) fn start(summary: Arc<Summary>, loops: u64) -> Result<Source, String> {
        let (sender, batches) = sync_channel(BATCHES_AHEAD);
        let thread_id = Arc::new(AtomicU32::new(0));
        let own = thread_id.clone();
        let run = move || {
            own.store(rustix::thread::gettid().as_raw_pid() as u32, Relaxed);
            for turn in 0..loops {
                if let Err(reason) = read(&summary, turn, &sender) {
                    // Nobody listens any more once a replay was ended.
                    let _ = sender.send(Err(reason));
                    return;
                }
            }
            // What a thread has used is known while it runs: it waits here until nobody listens.
            while sender.send(Ok(None)).is_ok() {}
        };
        let spawned = thread::Builder::new().name("recording".to_string()).spawn(run);
        spawned.map_err(|error| format!("thread: {error}"))?;
        Ok(Source { batches, batch: Vec::new().into_iter(), has_ended: false, thread_id })
    }

    /// When the next message is to be played, without waiting for it.
    pub(super) fn next(&mut self) -> Result<Next, String> {
        loop {
            if let Some(cue) = self.batch.as_slice().first() {
                return Ok(Next::At(cue.at_ns));
            }
            if self.has_ended {
                return Ok(Next::End);
            }
            match self.batches.try_recv() {
                Ok(batch) => match batch? {
                    Some(batch) => self.batch = batch.into_iter(),
                    None => self.has_ended = true,
                },
                Err(TryRecvError::Empty) => return Ok(Next::Later),
                Err(TryRecvError::Disconnected) => {
                    return Err("the thread that reads the recording panicked".to_string());
                }
            }
        }
    }

    pub(super) fn take(&mut self) -> Option<Cue> {
        self.batch.next()
    }
}

type Batches = SyncSender<Batch>;

fn read(summary: &Summary, turn: u64, sender: &Batches) -> Result<(), String> {
    let changed = || format!("{}: it has changed since it was read first", summary.path.display());
    let mut reader = Reader::open(&summary.path)?;
    let (mut batch, mut bytes, mut count) = (Vec::new(), 0, 0);
    let begin_ns = turn.saturating_mul(summary.span_ns);
    while let Some(message) = reader.next()? {
        if message.is_retained || topic::is_system(&message.topic) {
            continue;
        }
        let streams = summary.streams_of_topic.get(message.topic.as_str()).ok_or_else(changed)?;
        let stream = streams[usize::from(message.qos)];
        if stream as usize >= summary.streams.len() {
            return Err(changed());
        }
        count += 1;
        bytes += message.payload.as_ref().map_or(0, Vec::len) + message.topic.len();
        bytes += 4 * message.user_properties.len();
        let at_ns = begin_ns.saturating_add(message.at_ns);
        batch.push(Cue { stream, at_ns, message });
        if batch.len() == BATCH_COUNT || bytes >= BATCH_BYTES {
            bytes = 0;
            if sender.send(Ok(Some(std::mem::take(&mut batch)))).is_err() {
                return Ok(());
            }
        }
    }
    if count != summary.messages {
        return Err(changed());
    }
    let _ = sender.send(Ok(Some(batch)));
    Ok(())
}
