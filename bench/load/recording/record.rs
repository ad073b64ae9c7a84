//! `ringmq-bench record`: subscribes to a broker, and writes down what comes.

use std::cell::Cell;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use clap::Args;
use ringmq::codec::{Property, Publish, QoS, RetainHandling, SubscriptionOptions};
use ringmq::printable::{Quoted, counted};
use ringmq::system::calendar;
use ringmq::topic;

use super::file::RecordingFile;
use super::format::{End, Head, Message, PAYLOAD_SIZE_MAX, TEXT_SIZE_MAX, VERSION};
use super::session::{Identity, Session};
use super::topics::TopicHasher;
use crate::drops::DROPPED_TOPIC;
use crate::{interrupt, units};

const PASSWORD_VARIABLE: &str = "RINGMQ_BENCH_PASSWORD";
/// A password file that is longer holds something else.
const PASSWORD_SIZE_MAX: usize = TEXT_SIZE_MAX;

/// Retained messages have all come when none has for so long.
const RETAINED_PATIENCE: Duration = Duration::from_millis(500);

/// What was recorded is on its way to the disk at least this often.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// What a recording is told.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct RecordOptions {
    /// The broker whose traffic is recorded
    #[arg(long, value_name = "HOST:PORT")]
    broker: String,
    /// The file to record into; its owner alone may read it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Record over a file that is there already
    #[arg(long)]
    force: bool,
    /// What to record; may be repeated
    #[arg(long, value_name = "FILTER", default_value = "#")]
    filter: Vec<String>,
    /// The user to connect as; the password is what RINGMQ_BENCH_PASSWORD holds, or a file
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// A file that holds the password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// The protocol: 3 is 3.1.1, 5 is 5.0; user properties and the retain flag of traffic are seen with 5 only
    #[arg(long, value_name = "3|5", default_value = "5", value_parser = protocol)]
    mqtt: u8,
    /// How long to record: seconds, or 500ms, 10s, 2m [default: until Ctrl-C]
    #[arg(long, visible_alias = "duration", value_name = "TIME", value_parser = units::seconds)]
    seconds: Option<f64>,
    /// Record hashes instead of topics: of each level by itself, with a random key that nobody keeps
    #[arg(long)]
    hash_topics: bool,
    /// Keep the key, for its owner alone, in this file; one that is there already is used again
    #[arg(long, value_name = "FILE", requires = "hash_topics")]
    key_file: Option<PathBuf>,
    /// Record payloads and content types, too: without this a payload's size alone is recorded
    #[arg(long)]
    payloads: bool,
    /// The recording ends before its file becomes larger: bytes, or 64MiB, 1GiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = units::size)]
    size_max: usize,
}

const NOTES: &str = "A recording has of each message: when it came, topic, size of the payload, QoS, retain flag, and \
    how large its user properties are. bench/results/RECORDINGS.md describes the file.

What a subscriber sees is not all: the QoS of a message is the smaller of what it was published with and \
    what the broker grants this client; who published it is not told, so a replay goes by topics; and what \
    the broker dropped because this client was too slow is missing: if the broker counts that in $SYS, it is \
    said at the end. A message that several filters match may come, and be recorded, several times. Messages \
    that the broker retained before are marked: a replay sets them up first.";

fn protocol(text: &str) -> Result<u8, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("it must be 3 (3.1.1) or 5".to_string()),
    }
}

/// Records until it is told to end. Ends with 1 if the broker or the disk ended it.
pub(crate) fn run(options: &RecordOptions) -> Result<ExitCode, String> {
    check_filters(&options.filter)?;
    let identity = identity(options)?;
    let mut retained = connect(options, &identity)?;
    let hasher = hasher(options)?;
    let head = Head {
        ringmq_recording: VERSION,
        begin: now(),
        mqtt: options.mqtt,
        filters: options.filter.clone(),
        hashed_topics: options.hash_topics,
        payloads: options.payloads,
    };
    // A filter may be as secret as the topics.
    let head = if options.hash_topics { Head { filters: Vec::new(), ..head } } else { head };
    let size_max = options.size_max as u64;
    let file = RecordingFile::create(&options.output, options.force, size_max, &head)?;
    let wants_drops = options.filter.iter().any(|filter| topic::matches(filter, DROPPED_TOPIC));
    let mut recorder = Recorder {
        file,
        hasher,
        payloads: options.payloads,
        is_full: false,
        begin: Instant::now(),
        now: Instant::now(),
        wants_drops,
        drops: None,
        granted: Vec::new(),
    };
    let ended = recorder.record_retained(options, &mut retained).and_then(|()| {
        retained.disconnect();
        recorder.record(options, &identity)
    });
    // Here it is how a recording ends.
    interrupt::heeded();
    recorder.finish(options, ended)
}

fn check_filters(filters: &[String]) -> Result<(), String> {
    for filter in filters {
        let wrong = |what: String| format!("--filter {}: {what}", Quoted(filter));
        if filter.starts_with("$share/") {
            return Err(wrong(
                "a shared subscription would take messages away from its members".into(),
            ));
        }
        topic::parse_filter(filter, TEXT_SIZE_MAX, usize::MAX)
            .map_err(|_| wrong("it is no topic filter".into()))?;
    }
    Ok(())
}

fn identity(options: &RecordOptions) -> Result<Identity, String> {
    let password = match &options.password_file {
        Some(path) => {
            let failed = |what: String| format!("--password-file {}: {what}", path.display());
            let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            Some(text.trim_end_matches(['\n', '\r']).to_string())
        }
        None => options.user.as_ref().and_then(|_| env::var(PASSWORD_VARIABLE).ok()),
    };
    if password.as_ref().is_some_and(|password| password.len() > PASSWORD_SIZE_MAX) {
        return Err(format!("the password has over {PASSWORD_SIZE_MAX} bytes"));
    }
    let client_id = format!("ringmq-record-{}", std::process::id());
    Ok(Identity { client_id, keep_alive_s: 60, user: options.user.clone(), password })
}

fn hasher(options: &RecordOptions) -> Result<Option<TopicHasher>, String> {
    match &options.key_file {
        Some(path) => TopicHasher::kept(path).map(Some),
        None => options.hash_topics.then(TopicHasher::random).transpose(),
    }
}

fn connect(options: &RecordOptions, identity: &Identity) -> Result<Session, String> {
    let broker = &options.broker;
    let addresses = broker
        .to_socket_addrs()
        .map_err(|error| format!("--broker {broker}: {error}; expected HOST:PORT"))?;
    let mut reason = "the name has no address".to_string();
    for address in addresses {
        match Session::connect(address, options.mqtt, identity) {
            Ok(session) => return Ok(session),
            Err(said) => reason = said,
        }
    }
    Err(format!("--broker {broker}: {reason}"))
}

/// UTC.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    calendar::text(since.map_or(0, |time| time.as_secs()), 'T', "Z")
}

/// What ended a recording.
enum Ended {
    AsWanted(&'static str),
    /// It holds less than was wanted.
    Early(String),
}

struct Recorder {
    file: RecordingFile,
    hasher: Option<TopicHasher>,
    payloads: bool,
    is_full: bool,
    begin: Instant,
    /// When something was last taken, or looked for.
    now: Instant,
    /// The broker's count of dropped messages is recorded like any other topic.
    wants_drops: bool,
    /// That count, as it was first and last.
    drops: Option<(u64, u64)>,
    granted: Vec<u8>,
}

impl Recorder {
    /// What the broker has kept: it comes when a client subscribes, and its flag tells it from traffic.
    fn record_retained(
        &mut self,
        options: &RecordOptions,
        session: &mut Session,
    ) -> Result<(), Ended> {
        let wanted = SubscriptionOptions { qos: QoS::ExactlyOnce, ..Default::default() };
        let begin = Instant::now();
        let last = Cell::new(begin);
        let take = |recorder: &mut Recorder, publish: &Publish<'_>| {
            if publish.retain && !topic::is_system(publish.topic) {
                last.set(Instant::now());
                recorder.append(publish, true)?;
            }
            Ok(())
        };
        self.granted = session
            .subscribe(&options.filter, wanted, &mut |publish| take(self, publish))
            .map_err(Ended::Early)?;
        // Also of a short recording the first retained messages have time to come.
        let retained_s = RETAINED_PATIENCE.as_secs_f64();
        let is_up = |seconds: f64| begin.elapsed().as_secs_f64() > seconds.max(retained_s);
        loop {
            session.turn(&mut |publish| take(self, publish)).map_err(Ended::Early)?;
            let is_late = options.seconds.is_some_and(is_up);
            let has_all = last.get().elapsed() > RETAINED_PATIENCE;
            if has_all || is_late || self.is_full || interrupt::came() {
                return Ok(());
            }
        }
    }

    /// The traffic, from a connection of its own, to which the broker sends nothing that it has kept.
    fn record(&mut self, options: &RecordOptions, identity: &Identity) -> Result<Ended, Ended> {
        let mut session = connect(options, identity).map_err(Ended::Early)?;
        let wanted = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
            ..Default::default()
        };
        (self.begin, self.now) = (Instant::now(), Instant::now());
        let take = |recorder: &mut Recorder, publish: &Publish<'_>| recorder.take(options, publish);
        session
            .subscribe(&options.filter, wanted, &mut |publish| take(self, publish))
            .map_err(Ended::Early)?;
        let count_filter = [DROPPED_TOPIC.to_string()];
        let count_wanted = SubscriptionOptions::default();
        // A broker that refuses has nothing to say about it.
        let _ = session.subscribe(&count_filter, count_wanted, &mut |publish| take(self, publish));
        eprintln!(
            "recording into {}: {}",
            options.output.display(),
            match options.seconds {
                Some(seconds) => format!("{seconds} s, or until Ctrl-C"),
                None => "until Ctrl-C".to_string(),
            }
        );
        let mut flushed = Instant::now();
        loop {
            session.turn(&mut |publish| take(self, publish)).map_err(Ended::Early)?;
            self.now = Instant::now();
            if flushed.elapsed() > FLUSH_INTERVAL {
                self.file.flush().map_err(Ended::Early)?;
                flushed = self.now;
            }
            if self.is_full {
                return Ok(Ended::AsWanted("the file has the size that it may have (--size-max)"));
            }
            if interrupt::came() {
                return Ok(Ended::AsWanted("interrupted"));
            }
            if options.seconds.is_some_and(|seconds| self.begin.elapsed().as_secs_f64() >= seconds)
            {
                return Ok(Ended::AsWanted("the time was up"));
            }
        }
    }

    fn take(&mut self, options: &RecordOptions, publish: &Publish<'_>) -> Result<(), String> {
        self.now = Instant::now();
        if publish.topic == DROPPED_TOPIC {
            let count =
                std::str::from_utf8(publish.payload).ok().and_then(|text| text.trim().parse().ok());
            if let Some(count) = count {
                self.drops.get_or_insert((count, count)).1 = count;
            }
            if !self.wants_drops {
                return Ok(());
            }
        }
        // In 3.1.1 the flag is only on what the broker has kept [MQTT-3.3.1-9]: that has been recorded.
        if options.mqtt == 3 && publish.retain {
            return Ok(());
        }
        self.append(publish, false)
    }

    fn append(&mut self, publish: &Publish<'_>, is_retained: bool) -> Result<(), String> {
        if self.is_full {
            return Ok(());
        }
        let topic = match &self.hasher {
            Some(hasher) => hasher.hash(publish.topic),
            None => Some(publish.topic.to_string()),
        };
        let Some(topic) = topic.filter(|_| publish.payload.len() <= PAYLOAD_SIZE_MAX) else {
            self.file.skipped += 1;
            return Ok(());
        };
        let mut message = Message {
            at_ns: if is_retained { 0 } else { (self.now - self.begin).as_nanos() as u64 },
            topic,
            payload_size: publish.payload.len(),
            qos: publish.qos as u8,
            retain: publish.retain && !is_retained,
            is_retained,
            payload: self.payloads.then(|| publish.payload.to_vec()),
            ..Message::default()
        };
        for property in publish.properties.iter() {
            match property {
                Property::UserProperty(name, value) => {
                    message.user_properties.push((name.len() as u16, value.len() as u16));
                }
                Property::ContentType(text) if self.payloads => {
                    message.content_type = Some(text.to_string());
                }
                _ => {}
            }
        }
        self.is_full = !self.file.append(message)?;
        Ok(())
    }

    fn finish(
        self,
        options: &RecordOptions,
        ended: Result<Ended, Ended>,
    ) -> Result<ExitCode, String> {
        let path = options.output.display();
        let (Ok(ended) | Err(ended)) = ended;
        let (why, is_whole) = match ended {
            Ended::AsWanted(why) => (why.to_string(), true),
            Ended::Early(why) if why == interrupt::REASON => (why, true),
            Ended::Early(why) => (why, false),
        };
        let ns = self.now.saturating_duration_since(self.begin).as_nanos() as u64;
        let RecordingFile { messages, retained, skipped, .. } = self.file;
        let dropped = self.drops.map(|(first, last)| last.saturating_sub(first));
        let end = End { ns, why: why.clone(), granted: self.granted, dropped, ..End::default() };
        let written = self.file.finish(end);
        println!(
            "{path}: {} and {} retained in {:.1} s{}; ended: {why}",
            counted(messages, "messages"),
            retained,
            ns as f64 / 1e9,
            written.as_ref().map_or_else(|_| String::new(), |size| format!(", {size} bytes")),
        );
        match dropped {
            None => println!(
                "whether the broker dropped messages because the recorder was too slow is not \
                 known: it does not count them in $SYS"
            ),
            Some(0) => {}
            Some(dropped) => println!(
                "the broker's count of dropped messages grew by {dropped} meanwhile: as many may be missing"
            ),
        }
        if skipped > 0 {
            println!(
                "{} could not be recorded: a payload above 64 MiB, or a topic with too many levels to hash",
                counted(skipped, "messages")
            );
        }
        if let Err(reason) = written {
            eprintln!("ringmq-bench: {reason}");
            return Ok(ExitCode::from(1));
        }
        if !is_whole {
            eprintln!(
                "ringmq-bench: the recording ended early: {why}; {path} holds what came before"
            );
        }
        Ok(ExitCode::from(u8::from(!is_whole)))
    }
}
