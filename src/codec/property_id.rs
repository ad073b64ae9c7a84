//! The identifiers of properties.

use core::fmt;

/// MQTT 5, table 2-4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PropertyId {
    PayloadFormat = 0x01,
    MessageExpiry = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionId = 0x0B,
    SessionExpiry = 0x11,
    AssignedClientId = 0x12,
    ServerKeepAlive = 0x13,
    AuthMethod = 0x15,
    AuthData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelay = 0x18,
    RequestResponseInformation = 0x19,
    ResponseInformation = 0x1A,
    ServerReference = 0x1C,
    ReasonString = 0x1F,
    ReceiveMax = 0x21,
    TopicAliasMax = 0x22,
    TopicAlias = 0x23,
    QosMax = 0x24,
    RetainAvailable = 0x25,
    UserProperty = 0x26,
    PacketSizeMax = 0x27,
    WildcardAvailable = 0x28,
    SubscriptionIdsAvailable = 0x29,
    SharedAvailable = 0x2A,
}

impl PropertyId {
    /// All identifiers in the order of their values.
    pub const ALL: [PropertyId; 27] = [
        PropertyId::PayloadFormat,
        PropertyId::MessageExpiry,
        PropertyId::ContentType,
        PropertyId::ResponseTopic,
        PropertyId::CorrelationData,
        PropertyId::SubscriptionId,
        PropertyId::SessionExpiry,
        PropertyId::AssignedClientId,
        PropertyId::ServerKeepAlive,
        PropertyId::AuthMethod,
        PropertyId::AuthData,
        PropertyId::RequestProblemInformation,
        PropertyId::WillDelay,
        PropertyId::RequestResponseInformation,
        PropertyId::ResponseInformation,
        PropertyId::ServerReference,
        PropertyId::ReasonString,
        PropertyId::ReceiveMax,
        PropertyId::TopicAliasMax,
        PropertyId::TopicAlias,
        PropertyId::QosMax,
        PropertyId::RetainAvailable,
        PropertyId::UserProperty,
        PropertyId::PacketSizeMax,
        PropertyId::WildcardAvailable,
        PropertyId::SubscriptionIdsAvailable,
        PropertyId::SharedAvailable,
    ];

    #[inline]
    pub(super) fn from_u8(id: u8) -> Option<PropertyId> {
        BY_VALUE.get(usize::from(id)).copied().flatten()
    }

    /// The specification's name.
    pub fn name(self) -> &'static str {
        match self {
            PropertyId::PayloadFormat => "Payload Format Indicator",
            PropertyId::MessageExpiry => "Message Expiry Interval",
            PropertyId::ContentType => "Content Type",
            PropertyId::ResponseTopic => "Response Topic",
            PropertyId::CorrelationData => "Correlation Data",
            PropertyId::SubscriptionId => "Subscription Identifier",
            PropertyId::SessionExpiry => "Session Expiry Interval",
            PropertyId::AssignedClientId => "Assigned Client Identifier",
            PropertyId::ServerKeepAlive => "Server Keep Alive",
            PropertyId::AuthMethod => "Authentication Method",
            PropertyId::AuthData => "Authentication Data",
            PropertyId::RequestProblemInformation => "Request Problem Information",
            PropertyId::WillDelay => "Will Delay Interval",
            PropertyId::RequestResponseInformation => "Request Response Information",
            PropertyId::ResponseInformation => "Response Information",
            PropertyId::ServerReference => "Server Reference",
            PropertyId::ReasonString => "Reason String",
            PropertyId::ReceiveMax => "Receive Maximum",
            PropertyId::TopicAliasMax => "Topic Alias Maximum",
            PropertyId::TopicAlias => "Topic Alias",
            PropertyId::QosMax => "Maximum QoS",
            PropertyId::RetainAvailable => "Retain Available",
            PropertyId::UserProperty => "User Property",
            PropertyId::PacketSizeMax => "Maximum Packet Size",
            PropertyId::WildcardAvailable => "Wildcard Subscription Available",
            PropertyId::SubscriptionIdsAvailable => "Subscription Identifier Available",
            PropertyId::SharedAvailable => "Shared Subscription Available",
        }
    }
}

/// One more than the largest identifier.
const VALUES_END: usize = PropertyId::SharedAvailable as usize + 1;

const BY_VALUE: [Option<PropertyId>; VALUES_END] = by_value();

const fn by_value() -> [Option<PropertyId>; VALUES_END] {
    let mut table = [None; VALUES_END];
    let mut rest: &[PropertyId] = &PropertyId::ALL;
    while let [id, after @ ..] = rest {
        // Evaluated at compile time: an index out of bounds does not compile.
        #[allow(clippy::indexing_slicing)]
        {
            table[*id as usize] = Some(*id);
        }
        rest = after;
    }
    table
}

impl fmt::Display for PropertyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
