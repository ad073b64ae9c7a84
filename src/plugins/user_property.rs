//! The built-in plugin `user-property`: adds user properties to the messages of chosen topics.

use super::filters::Filters;
use super::template::Template;
use super::{Plugin, PluginError, PluginFactory, refusal};
use crate::config::plugin::{PluginSettings, PropertySettings};
use crate::config::table::Refusal;
use crate::plugin::{ClientView, FixedProperty, HookSet, MessageEdit, PropertyName, Verdict};

pub(super) struct UserPropertyFactory {
    name: String,
    filters: Filters,
    properties: Vec<Property>,
}

#[derive(Clone)]
struct Property {
    name: String,
    value: Template,
    replace: bool,
    encoded: Encoded,
}

/// The part of a property that can be encoded before there is a message.
#[derive(Clone)]
enum Encoded {
    All(FixedProperty),
    Name(PropertyName),
    /// The property cannot be encoded and fails with each message, or it replaces others.
    Nothing,
}

/// One shard's instance.
struct UserProperty {
    filters: Filters,
    properties: Vec<Property>,
    /// Whether all properties are the same for all messages of one client on one topic.
    is_pledged: bool,
    /// The memory of the value.
    value: String,
}

impl UserPropertyFactory {
    pub(super) fn new(
        settings: &PluginSettings,
        filters: &[String],
        properties: &[PropertySettings],
    ) -> Result<UserPropertyFactory, Vec<Refusal>> {
        let mut wrong = Vec::new();
        let filters = Filters::new(filters).map_err(|sentences| {
            let refuse = |what| refusal(settings, settings.line, "filters", what);
            wrong.extend(sentences.into_iter().map(refuse));
        });
        let mut made = Vec::new();
        for PropertySettings { name, value, replace, line } in properties {
            for (key, text) in [("name", name), ("value", value)] {
                if text.contains('\0') {
                    let what = "U+0000 cannot be in a user property; allowed: other characters";
                    wrong.push(refusal(settings, *line, key, what));
                }
            }
            match Template::parse(value, &settings.name, None) {
                Ok(value) => made.push(Property::new(name, value, *replace)),
                Err(what) => wrong.push(refusal(settings, *line, "value", what)),
            }
        }
        match filters {
            Ok(filters) if wrong.is_empty() => {
                Ok(UserPropertyFactory { name: settings.name.clone(), filters, properties: made })
            }
            _ => Err(wrong),
        }
    }
}

impl Property {
    fn new(name: &str, value: Template, replace: bool) -> Property {
        let encoded = match value.fixed() {
            _ if replace => None,
            Some(value) => FixedProperty::new(name, value).map(Encoded::All).ok(),
            None => PropertyName::new(name).map(Encoded::Name).ok(),
        };
        let encoded = encoded.unwrap_or(Encoded::Nothing);
        Property { name: name.to_owned(), value, replace, encoded }
    }
}

impl PluginFactory for UserPropertyFactory {
    fn name(&self) -> &str {
        &self.name
    }

    fn make(&self, _shard: u16) -> Result<Box<dyn Plugin>, PluginError> {
        let (filters, properties) = (self.filters.clone(), self.properties.clone());
        let is_pledged =
            properties.iter().all(|one| !one.replace && one.value.is_of_client_and_topic());
        Ok(Box::new(UserProperty { filters, properties, is_pledged, value: String::new() }))
    }
}

impl Plugin for UserProperty {
    fn hooks(&self) -> HookSet {
        HookSet::PUBLISH
    }

    fn publish(
        &mut self,
        client: &ClientView<'_>,
        message: &mut MessageEdit<'_>,
    ) -> Result<Verdict, PluginError> {
        if self.is_pledged {
            message.pledge();
        }
        if !self.filters.contains(message.topic()) {
            return Ok(Verdict::Allow);
        }
        for property in &self.properties {
            if let Encoded::All(fixed) = &property.encoded {
                message.add_fixed_property(fixed)?;
                continue;
            }
            let value = match property.value.borrowed(client) {
                Some(text) => text,
                None => {
                    property.value.render(client, message, |_| None, &mut self.value);
                    &self.value
                }
            };
            match &property.encoded {
                Encoded::Name(name) => message.add_named_property(name, value)?,
                _ if property.replace => message.replace_user_property(&property.name, value)?,
                _ => message.add_user_property(&property.name, value)?,
            }
        }
        Ok(Verdict::Allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plugin::{OnError, PluginWork};
    use crate::limits::Limits;
    use crate::plugin::{EditBuffers, MessageView};

    fn property(name: &str, value: &str, replace: bool) -> PropertySettings {
        PropertySettings { name: name.to_owned(), value: value.to_owned(), replace, line: 9 }
    }

    fn factory(
        filters: &[&str],
        properties: Vec<PropertySettings>,
    ) -> Result<UserPropertyFactory, Vec<Refusal>> {
        let filters: Vec<_> = filters.iter().map(|filter| filter.to_string()).collect();
        let work =
            PluginWork::UserProperty { filters: filters.clone(), properties: properties.clone() };
        let settings = PluginSettings {
            name: "tag".to_owned(),
            work,
            on_error: OnError::Deny,
            slow_ms: 10,
            file: "FILE".to_owned(),
            line: 3,
        };
        UserPropertyFactory::new(&settings, &filters, &properties)
    }

    /// Compares the user properties that a message with `a: 1`, `x: old`, `a: 2` has behind the plugin.
    fn check(topic: &str, factory: &UserPropertyFactory, want: &[(&str, &str)]) {
        let raw = b"\x26\0\x01a\0\x011\x26\0\x01x\0\x03old\x26\0\x01a\0\x012";
        let original = MessageView { topic, raw_properties: raw, ..MessageView::default() };
        let (limits, mut buffers) = (Limits::default(), EditBuffers::default());
        let mut message = MessageEdit::new(original, &mut buffers, &limits);
        let mut plugin = factory.make(0).unwrap();
        let client = ClientView { client_id: "c", ..ClientView::default() };
        assert_eq!(plugin.publish(&client, &mut message), Ok(Verdict::Allow));
        assert_eq!(message.user_properties().collect::<Vec<_>>(), want, "{topic}");
    }

    #[test]
    fn properties_are_added_behind_those_of_the_client_in_their_order() {
        let properties = vec![property("b", "${client_id}", false), property("a", "fixed", false)];
        let factory = factory(&["s/#"], properties).unwrap();
        let own = [("a", "1"), ("x", "old"), ("a", "2")];
        check("other", &factory, &own);
        check("s/1", &factory, &[own[0], own[1], own[2], ("b", "c"), ("a", "fixed")]);
    }

    #[test]
    fn a_property_may_take_the_place_of_the_clients_own() {
        let properties = vec![property("a", "${topic}", true), property("new", "n", true)];
        let factory = factory(&["#"], properties).unwrap();
        check("t", &factory, &[("a", "t"), ("x", "old"), ("new", "n")]);
    }

    #[test]
    fn a_property_that_follows_from_client_and_topic_is_pledged() {
        for (value, replace, want) in [
            ("fixed ${client_id} ${user_name} ${topic} ${peer} ${listener} ${shard}", false, true),
            ("fixed", true, false),
            ("${time_ms}", false, false),
            ("${qos}", false, false),
            ("${retain}", false, false),
            ("x ${payload_size}", false, false),
        ] {
            let properties = vec![property("a", "1", false), property("b", value, replace)];
            let mut plugin = factory(&["s/#"], properties).unwrap().make(0).unwrap();
            for topic in ["s/1", "not/chosen"] {
                let original = MessageView { topic, ..MessageView::default() };
                let (limits, mut buffers) = (Limits::default(), EditBuffers::default());
                let mut message = MessageEdit::new(original, &mut buffers, &limits);
                plugin.publish(&ClientView::default(), &mut message).unwrap();
                assert_eq!(message.take_pledge(), want, "{value} {topic}");
            }
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_line() {
        let properties = vec![property("a", "${topik}", false), property("b\0", "x", false)];
        let wrong = factory(&["a/#/b", "+x"], properties).err().unwrap();
        let told: Vec<_> = wrong
            .iter()
            .map(|refusal| (refusal.line, refusal.sentence.split(';').next().unwrap()))
            .collect();
        let key = |key: &str, what: &str| format!("[[plugin]] 'tag': key '{key}': {what}");
        let misplaced = "the topic filter has a misplaced wildcard";
        assert_eq!(
            told,
            [
                (3, key("filters", &format!("'a/#/b': {misplaced}")).as_str()),
                (3, key("filters", &format!("'+x': {misplaced}")).as_str()),
                (9, key("value", "'${topik}' is not known").as_str()),
                (9, key("name", "U+0000 cannot be in a user property").as_str()),
            ]
        );
    }

    #[test]
    fn a_value_that_is_too_long_is_an_error() {
        let factory = factory(&["#"], vec![property("a", "${topic}", false)]).unwrap();
        let topic = "t".repeat(65_536);
        let original = MessageView { topic: &topic, ..MessageView::default() };
        let (limits, mut buffers) = (Limits::default(), EditBuffers::default());
        let mut message = MessageEdit::new(original, &mut buffers, &limits);
        let mut plugin = factory.make(0).unwrap();
        assert!(plugin.publish(&ClientView::default(), &mut message).is_err());
        assert!(!message.is_changed());
    }
}
