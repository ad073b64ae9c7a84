//! Plays a case against a world: sends, compares what comes, and watches what holds in every script.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::fields::{Kind, Packet};
use crate::script::{Action, Case, Step, Template, Term};
use crate::wire::{self, Version};

/// Where a script meets a broker: shards in memory, or a process over loopback.
pub(crate) trait World {
    fn open(&mut self, client: &str) -> Result<(), String>;
    fn send(&mut self, client: &str, bytes: &[u8]);
    fn receive(&mut self, client: &str, patience: Patience) -> Received;
    /// The client goes away without a word.
    fn close(&mut self, client: &str);
    fn wait(&mut self, ms: u64);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Something is expected.
    Long,
    /// Nothing is.
    Short,
}

#[derive(Debug)]
pub(crate) enum Received {
    Bytes(Vec<u8>),
    Closed,
    Nothing,
}

struct Client {
    version: Version,
    /// Bytes that came and are not yet taken as packets.
    bytes: Vec<u8>,
    packet_max: usize,
    alias_max: u64,
    /// Topics by the aliases that the server gave them.
    aliases: HashMap<u64, Vec<u8>>,
    receive_max: usize,
    /// Packet identifiers of the server's messages that the client has not finished.
    unfinished: HashSet<u64>,
    connack_seen: bool,
    /// A packet behind which none may come.
    last: Option<&'static str>,
    closed: bool,
}

#[derive(Debug)]
enum Next {
    Packet(Packet),
    Closed,
    Nothing,
}

pub(crate) struct Runner<'w> {
    world: &'w mut dyn World,
    version: Version,
    clients: HashMap<String, Client>,
    variables: HashMap<String, Vec<u8>>,
    trace: bool,
}

/// Plays it to its end, or to the first step that does not hold.
pub(crate) fn run(case: &Case, world: &mut dyn World, trace: bool) -> Result<(), String> {
    let mut runner = Runner {
        world,
        version: case.version,
        clients: HashMap::new(),
        variables: HashMap::new(),
        trace,
    };
    let mut steps = &case.steps[..];
    while let Some((step, rest)) = steps.split_first() {
        let group =
            steps.iter().take_while(|other| unordered_client(other) == unordered_client(step));
        let group_size = if unordered_client(step).is_some() { group.count() } else { 1 };
        let result = if group_size > 1 {
            runner.expect_group(&steps[..group_size])
        } else {
            runner.step(step)
        };
        result.map_err(|error| format!("{}: {}\n      {error}", step.place, step.text))?;
        steps = if group_size > 1 { &steps[group_size..] } else { rest };
    }
    runner.finish()
}

fn unordered_client(step: &Step) -> Option<&str> {
    match &step.action {
        Action::Expect { client, unordered: true, .. } => Some(client),
        _ => None,
    }
}

impl Runner<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match &step.action {
            Action::Send { client, packet, version } => {
                let packet = self.resolve(packet)?;
                if packet.kind == Kind::Connect && !self.is_open(client) {
                    self.open(client, version.unwrap_or(self.version))?;
                    let opened = self.client(client)?;
                    opened.packet_max = packet.number("packet_max").unwrap_or(u64::MAX) as usize;
                    opened.alias_max = packet.number("alias_max").unwrap_or(0);
                    if let Some(max) = packet.number("receive_max") {
                        opened.receive_max = max as usize;
                    }
                }
                self.client(client)?.tell(&packet);
                let bytes = wire::encode(&packet, self.client(client)?.version)?;
                self.say(client, ">", &packet);
                self.world.send(client, &bytes);
                Ok(())
            }
            Action::SendRaw { client, bytes } => {
                if !self.is_open(client) {
                    self.open(client, self.version)?;
                }
                self.world.send(client, bytes);
                Ok(())
            }
            Action::Expect { client, packet, .. } => match self.next(client, Patience::Long)? {
                Next::Packet(got) => self.compare(client, packet, &got),
                other => Err(format!("got {other:?}")),
            },
            Action::Closed(client) => match self.next(client, Patience::Long)? {
                Next::Closed => Ok(()),
                Next::Packet(packet) => Err(format!("got {packet}")),
                Next::Nothing => Err("the connection stays open".to_owned()),
            },
            Action::Silent(client) => match self.next(client, Patience::Short)? {
                Next::Nothing => Ok(()),
                Next::Packet(packet) => Err(format!("got {packet}")),
                Next::Closed => Err("the connection was closed".to_owned()),
            },
            Action::Drop(client) => {
                self.client(client)?.closed = true;
                self.world.close(client);
                Ok(())
            }
            Action::Wait(ms) => {
                self.world.wait(*ms);
                Ok(())
            }
        }
    }

    /// The packets of `steps` in any order.
    fn expect_group(&mut self, steps: &[Step]) -> Result<(), String> {
        let mut waiting: Vec<&Step> = steps.iter().collect();
        while !waiting.is_empty() {
            let client = unordered_client(waiting[0]).unwrap();
            let got = match self.next(client, Patience::Long)? {
                Next::Packet(got) => got,
                other => return Err(format!("got {other:?}, {} to come", waiting.len())),
            };
            let mut why = Vec::new();
            let found = waiting.iter().position(|step| {
                let Action::Expect { packet, .. } = &step.action else { return false };
                let result = self.compare(client, packet, &got);
                why.extend(result.as_ref().err().cloned());
                result.is_ok()
            });
            waiting.remove(found.ok_or_else(|| why.join("\n      "))?);
        }
        Ok(())
    }

    /// Who is still connected at the end must have got nothing more.
    fn finish(&mut self) -> Result<(), String> {
        let mut names: Vec<String> = self.clients.keys().cloned().collect();
        names.sort();
        for name in names {
            if !self.is_open(&name) {
                continue;
            }
            match self.next(&name, Patience::Short)? {
                Next::Nothing => {}
                Next::Packet(packet) => return Err(format!("at the end {name} got {packet}")),
                Next::Closed => {
                    return Err(format!("at the end the connection of {name} was closed"));
                }
            }
        }
        Ok(())
    }

    fn is_open(&self, client: &str) -> bool {
        self.clients.get(client).is_some_and(|client| !client.closed)
    }

    fn client(&mut self, name: &str) -> Result<&mut Client, String> {
        self.clients.get_mut(name).ok_or_else(|| format!("{name} has no connection"))
    }

    fn open(&mut self, name: &str, version: Version) -> Result<(), String> {
        self.world.open(name)?;
        let client = Client {
            version,
            bytes: Vec::new(),
            packet_max: usize::MAX,
            alias_max: 0,
            aliases: HashMap::new(),
            receive_max: usize::from(u16::MAX),
            unfinished: HashSet::new(),
            connack_seen: false,
            last: None,
            closed: false,
        };
        self.clients.insert(name.to_owned(), client);
        Ok(())
    }

    fn next(&mut self, name: &str, patience: Patience) -> Result<Next, String> {
        loop {
            let client = self.client(name)?;
            if let Some(size) = wire::packet_size(&client.bytes)?
                && size <= client.bytes.len()
            {
                let bytes: Vec<u8> = client.bytes.drain(..size).collect();
                let packet =
                    client.take(&bytes).map_err(|error| format!("{error} ({})", hex(&bytes)))?;
                self.say(name, "<", &packet);
                return Ok(Next::Packet(packet));
            }
            if client.closed {
                let rest = client.bytes.len();
                return if rest == 0 {
                    Ok(Next::Closed)
                } else {
                    Err(format!("{rest} bytes of a cut packet"))
                };
            }
            match self.world.receive(name, patience) {
                Received::Bytes(bytes) => self.client(name)?.bytes.extend(bytes),
                Received::Closed => {
                    if self.trace {
                        println!("      {name} < closed");
                    }
                    self.client(name)?.closed = true;
                }
                Received::Nothing => return Ok(Next::Nothing),
            }
        }
    }

    fn resolve(&self, template: &Template) -> Result<Packet, String> {
        let mut packet = Packet::new(template.kind);
        for (name, term) in &template.fields {
            match term {
                Term::Exact(value) => packet.push(name, value.as_slice()),
                Term::Variable(variable) => {
                    let value =
                        self.variables.get(variable).ok_or(format!("?{variable} is not bound"))?;
                    packet.push(name, value.as_slice());
                }
                other => return Err(format!("{name}: {other:?} can only be expected")),
            }
        }
        Ok(packet)
    }

    fn compare(&mut self, client: &str, pattern: &Template, got: &Packet) -> Result<(), String> {
        if pattern.kind != got.kind {
            return Err(format!("got {got}"));
        }
        let mut wanted: BTreeMap<&str, Vec<&Term>> = BTreeMap::new();
        for (name, term) in &pattern.fields {
            wanted.entry(name).or_default().push(term);
        }
        // What older versions cannot say.
        match (self.client(client)?.version, pattern.kind) {
            (Version::V31 | Version::V311, Kind::Unsuback) => wanted.remove("reasons"),
            (Version::V31, Kind::Connack) => wanted.remove("session"),
            _ => None,
        };
        let mut bound = Vec::new();
        for (name, terms) in &wanted {
            let mut values = got.all(name).to_vec();
            if *name == "sub_id" {
                values.sort_by_key(|value| (value.len(), value.clone()));
            }
            if values.is_empty() && matches!(terms[0], Term::Exact(zero) if zero == b"0") {
                continue;
            }
            if values.len() != terms.len() {
                return Err(format!("{name}: got {got}"));
            }
            for (term, value) in terms.iter().zip(&values) {
                if !self.fits(term, value, &mut bound) {
                    return Err(format!("{name}: got {got}"));
                }
            }
        }
        for (name, values) in &got.fields {
            if !wanted.contains_key(name) && !may_be_there(got.kind, name, &values[0]) {
                return Err(format!("unexpected {name}: got {got}"));
            }
        }
        if let Some(name) = pattern.absent.iter().find(|name| got.fields.contains_key(*name)) {
            return Err(format!("{name} is there: got {got}"));
        }
        self.variables.extend(bound);
        Ok(())
    }

    fn fits(&self, term: &Term, value: &[u8], bound: &mut Vec<(String, Vec<u8>)>) -> bool {
        match term {
            Term::Exact(wanted) => wanted == value,
            Term::Any => true,
            Term::Range(least, most) => {
                let number: Option<u64> =
                    std::str::from_utf8(value).ok().and_then(|t| t.parse().ok());
                number.is_some_and(|number| (*least..=*most).contains(&number))
            }
            Term::Variable(name) => match self.variables.get(name) {
                Some(known) => known == value,
                None => {
                    bound.push((name.clone(), value.to_vec()));
                    true
                }
            },
        }
    }

    fn say(&self, client: &str, direction: &str, packet: &Packet) {
        if self.trace {
            println!("      {client} {direction} {packet}");
        }
    }
}

/// Fields that a script need not mention: what a server may tell, and the packet identifiers it chose.
fn may_be_there(kind: Kind, name: &str, value: &[u8]) -> bool {
    match kind {
        Kind::Connack => !matches!(name, "reason" | "session"),
        // Which topics get an alias is the server's choice.
        Kind::Publish => matches!(name, "id" | "alias"),
        // No matching subscribers: a server may say so.
        Kind::Puback | Kind::Pubrec if name == "reason" => value == b"16",
        _ => matches!(name, "reason_string" | "user"),
    }
}

impl Client {
    /// A packet that came, with what holds for every packet of every connection.
    fn take(&mut self, bytes: &[u8]) -> Result<Packet, String> {
        // [MQTT-3.1.2-24]
        if bytes.len() > self.packet_max {
            return Err(format!("a packet of {} bytes, above the client's maximum", bytes.len()));
        }
        let mut packet = wire::decode(bytes, self.version)?;
        // [MQTT-3.2.0-1] [MQTT-3.2.0-2]
        if (packet.kind == Kind::Connack) == self.connack_seen && packet.kind != Kind::Auth {
            return Err(format!("{packet} as the first packet, or a second CONNACK"));
        }
        if let Some(last) = self.last {
            return Err(format!("{packet} behind {last}"));
        }
        if let Some(alias) = packet.number("alias") {
            self.resolve_alias(alias, &mut packet)?;
        }
        self.connack_seen |= packet.kind == Kind::Connack;
        match packet.kind {
            // [MQTT-3.14.4-1]
            Kind::Disconnect => self.last = Some("DISCONNECT"),
            // [MQTT-3.14.0-1] [MQTT-3.2.2-7]
            Kind::Connack if packet.number("reason").is_some() => self.last = Some("a refusal"),
            Kind::Publish => self.begin(&packet)?,
            _ => {}
        }
        Ok(packet)
    }

    /// A message of QoS 1 or 2 begins.
    fn begin(&mut self, packet: &Packet) -> Result<(), String> {
        let Some(id) = packet.number("id") else { return Ok(()) };
        let is_new = self.unfinished.insert(id);
        // [MQTT-2.2.1-4]; again it comes only in another connection. [MQTT-4.4.0-1]
        if !is_new {
            return Err(format!("{packet}: the packet identifier is in use"));
        }
        // [MQTT-3.3.4-9]
        if self.unfinished.len() > self.receive_max {
            return Err(format!("{packet}: more messages than the receive maximum"));
        }
        Ok(())
    }

    /// What the client sends may finish a message.
    fn tell(&mut self, packet: &Packet) {
        let refuses = packet.number("reason").is_some_and(|reason| reason >= 0x80);
        let finishes = match packet.kind {
            Kind::Puback | Kind::Pubcomp => true,
            Kind::Pubrec => refuses,
            _ => false,
        };
        if let Some(id) = packet.number("id").filter(|_| finishes) {
            self.unfinished.remove(&id);
        }
    }

    /// Puts the topic in the place of its alias.
    fn resolve_alias(&mut self, alias: u64, packet: &mut Packet) -> Result<(), String> {
        // [MQTT-3.1.2-26] [MQTT-3.1.2-27]
        if alias > self.alias_max {
            return Err(format!("{packet}: an alias above the client's maximum"));
        }
        match packet.bytes("topic") {
            Some(topic) => {
                self.aliases.insert(alias, topic.to_vec());
            }
            None => {
                let topic = self.aliases.get(&alias).ok_or("an alias without a topic")?;
                packet.push("topic", topic.as_slice());
            }
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(80)
        .map(|byte| format!("{byte:02x} "))
        .collect::<String>()
        .trim_end()
        .to_owned()
}
