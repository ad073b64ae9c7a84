//! Which packet may carry which property.

use super::PropertyId;

/// The properties that one packet type may carry, or that may stand more than once in it.
#[derive(Clone, Copy, Debug)]
pub struct PropertySet(u64);

impl PropertySet {
    pub const CONNECT: PropertySet = PropertySet::of(&[
        PropertyId::SessionExpiry,
        PropertyId::AuthMethod,
        PropertyId::AuthData,
        PropertyId::RequestProblemInformation,
        PropertyId::RequestResponseInformation,
        PropertyId::ReceiveMax,
        PropertyId::TopicAliasMax,
        PropertyId::UserProperty,
        PropertyId::PacketSizeMax,
    ]);
    pub const WILL: PropertySet = PropertySet::of(&[
        PropertyId::PayloadFormat,
        PropertyId::MessageExpiry,
        PropertyId::ContentType,
        PropertyId::ResponseTopic,
        PropertyId::CorrelationData,
        PropertyId::WillDelay,
        PropertyId::UserProperty,
    ]);
    pub const CONNACK: PropertySet = PropertySet::of(&[
        PropertyId::SessionExpiry,
        PropertyId::AssignedClientId,
        PropertyId::ServerKeepAlive,
        PropertyId::AuthMethod,
        PropertyId::AuthData,
        PropertyId::ResponseInformation,
        PropertyId::ServerReference,
        PropertyId::ReasonString,
        PropertyId::ReceiveMax,
        PropertyId::TopicAliasMax,
        PropertyId::QosMax,
        PropertyId::RetainAvailable,
        PropertyId::UserProperty,
        PropertyId::PacketSizeMax,
        PropertyId::WildcardAvailable,
        PropertyId::SubscriptionIdsAvailable,
        PropertyId::SharedAvailable,
    ]);
    pub const PUBLISH: PropertySet = PropertySet::of(&[
        PropertyId::PayloadFormat,
        PropertyId::MessageExpiry,
        PropertyId::ContentType,
        PropertyId::ResponseTopic,
        PropertyId::CorrelationData,
        PropertyId::SubscriptionId,
        PropertyId::TopicAlias,
        PropertyId::UserProperty,
    ]);
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    pub const ACK: PropertySet =
        PropertySet::of(&[PropertyId::ReasonString, PropertyId::UserProperty]);
    pub const SUBSCRIBE: PropertySet =
        PropertySet::of(&[PropertyId::SubscriptionId, PropertyId::UserProperty]);
    pub const UNSUBSCRIBE: PropertySet = PropertySet::of(&[PropertyId::UserProperty]);
    pub const DISCONNECT: PropertySet = PropertySet::of(&[
        PropertyId::SessionExpiry,
        PropertyId::ServerReference,
        PropertyId::ReasonString,
        PropertyId::UserProperty,
    ]);
    pub const AUTH: PropertySet = PropertySet::of(&[
        PropertyId::AuthMethod,
        PropertyId::AuthData,
        PropertyId::ReasonString,
        PropertyId::UserProperty,
    ]);
    /// Properties that do not travel with a message: they are about one connection or one subscription, or we count
    /// them down.
    pub const NOT_FORWARDED: PropertySet = PropertySet::of(&[
        PropertyId::TopicAlias,
        PropertyId::MessageExpiry,
        PropertyId::SubscriptionId,
        PropertyId::WillDelay,
    ]);
    pub(super) const REPEATABLE: PropertySet = PropertySet::of(&[PropertyId::UserProperty]);
    pub(super) const REPEATABLE_IN_PUBLISH: PropertySet =
        PropertySet::of(&[PropertyId::UserProperty, PropertyId::SubscriptionId]);

    const fn of(ids: &[PropertyId]) -> PropertySet {
        let mut set = 0;
        let mut rest = ids;
        while let [id, after @ ..] = rest {
            set |= 1 << *id as u8;
            rest = after;
        }
        PropertySet(set)
    }

    #[inline]
    pub const fn contains(self, id: PropertyId) -> bool {
        self.0 & (1 << id as u8) != 0
    }
}
