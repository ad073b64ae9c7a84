//! Reason string and user properties of our answers, which are left out where they do not fit.

use super::{Property, UserProperties};
use crate::codec::var_int;

/// What a sender leaves out where it would make the packet larger than the receiver takes.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::codec) struct Diagnostics<'a> {
    pub reason_string: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
}

impl<'a> Diagnostics<'a> {
    /// The part that fits into `packet_size_max`, with `properties_size` bytes of other properties and `fields_size`
    /// bytes of all other fields behind the fixed header.
    // [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2]
    // [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
    // [MQTT-3.14.2-3] [MQTT-3.14.2-4] [MQTT-3.15.2-2] [MQTT-3.15.2-3]
    pub(crate) fn fit(
        self,
        properties_size: usize,
        fields_size: usize,
        packet_size_max: usize,
    ) -> Diagnostics<'a> {
        let fits = |kept: &Diagnostics<'_>| {
            let section = properties_size + kept.size();
            let remaining = fields_size + var_int::size(section) + section;
            1 + var_int::size(remaining) + remaining <= packet_size_max
        };
        let none = Diagnostics::default();
        let reason_only = Diagnostics { reason_string: self.reason_string, ..none };
        let user_only = Diagnostics { user_properties: self.user_properties, ..none };
        [self, reason_only, user_only].into_iter().find(fits).unwrap_or(none)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }

    pub(crate) fn size(&self) -> usize {
        self.reason_string.map_or(0, |text| Property::ReasonString(text).size())
            + self.user_properties.size()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        if let Some(text) = self.reason_string {
            Property::ReasonString(text).encode(out);
        }
        self.user_properties.encode(out);
    }
}
