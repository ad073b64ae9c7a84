//! The state of a message before one of its hooks, to be put back if that hook fails.

use super::{MessageEdit, Properties};
use crate::codec::QoS;

/// The changes so far. A part that no hook has changed yet takes no copy.
#[derive(Debug)]
pub struct Saved {
    topic: Option<String>,
    payload: Option<Vec<u8>>,
    properties: Properties,
    properties_bytes: Vec<u8>,
    size: usize,
    qos: QoS,
    retain: bool,
    message_expiry_s: Option<u32>,
}

impl MessageEdit<'_> {
    pub fn save(&self) -> Saved {
        let buffers = &self.buffers;
        let is_unchanged = self.properties == Properties::Unchanged;
        Saved {
            topic: self.is_topic_changed.then(|| buffers.topic.clone()),
            payload: self.is_payload_changed.then(|| buffers.payload.clone()),
            properties: self.properties,
            properties_bytes: if is_unchanged { Vec::new() } else { buffers.properties.clone() },
            size: self.size,
            qos: self.qos,
            retain: self.retain,
            message_expiry_s: self.message_expiry_s,
        }
    }

    /// Undoes what was changed since `saved`.
    pub fn restore(&mut self, saved: Saved) {
        self.is_topic_changed = saved.topic.is_some();
        self.buffers.topic = saved.topic.unwrap_or_default();
        self.is_payload_changed = saved.payload.is_some();
        self.buffers.payload = saved.payload.unwrap_or_default();
        self.properties = saved.properties;
        self.buffers.properties = saved.properties_bytes;
        self.size = saved.size;
        self.qos = saved.qos;
        self.retain = saved.retain;
        self.message_expiry_s = saved.message_expiry_s;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EditBuffers, MessageEdit};
    use crate::codec::QoS;
    use crate::limits::Limits;
    use crate::plugin::MessageView;

    fn change(message: &mut MessageEdit<'_>, to: &str) {
        message.set_topic(to).unwrap();
        message.set_payload(to.as_bytes()).unwrap();
        message.replace_user_property("a", to).unwrap();
        message.add_user_property("b", to).unwrap();
        message.set_content_type(Some(to)).unwrap();
        message.set_qos(QoS::ExactlyOnce);
        message.set_retain(!message.retain());
        message.set_message_expiry_s(Some(to.len() as u32));
    }

    fn look(message: &MessageEdit<'_>) -> String {
        let properties: Vec<_> = message.properties().collect();
        format!(
            "{} {:?} {:?} {:?} {} {:?}",
            message.topic(),
            message.payload(),
            properties,
            message.qos(),
            message.retain(),
            message.message_expiry_s()
        )
    }

    #[test]
    fn a_message_is_put_back_as_it_was_changed_before_or_not() {
        let limits = Limits::default();
        let raw = b"\x26\0\x01a\0\x01b";
        let original =
            MessageView { topic: "t", payload: b"p", raw_properties: raw, ..Default::default() };
        let mut buffers = EditBuffers::default();
        let mut message = MessageEdit::new(original, &mut buffers, &limits);
        let (untouched, saved) = (look(&message), message.save());
        change(&mut message, "first");
        assert_ne!(look(&message), untouched);
        message.restore(saved);
        assert_eq!(look(&message), untouched);
        assert!(!message.is_changed());
        message.add_user_property("c", "d").unwrap();
        message.set_topic("second").unwrap();
        let (before, saved) = (look(&message), message.save());
        change(&mut message, "third");
        message.restore(saved);
        assert_eq!(look(&message), before);
        message.add_user_property("e", "f").unwrap();
        assert_eq!(
            message.user_properties().collect::<Vec<_>>(),
            [("a", "b"), ("c", "d"), ("e", "f")]
        );
    }
}
