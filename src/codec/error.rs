//! Errors in bytes that came from the network, each with the reason code that tells the peer.

use core::fmt;

use super::property_id::PropertyId;
use super::reason::ReasonCode;

pub type Result<T> = core::result::Result<T, DecodeError>;

/// Why bytes are not an MQTT packet, or not one that MQTT allows. `Display` is fit for a Reason String.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A variable byte integer goes on after its fourth byte.
    VarIntTooLong,
    /// A variable byte integer has more bytes than its value needs.
    VarIntNotMinimal,
    /// The fixed header announces a larger packet than we take.
    PacketTooLarge,
    /// Packet type 0, or a type that the connection's version does not have.
    PacketType,
    /// The four flag bits beside the packet type are not those that the type requires.
    HeaderFlags,
    /// A field runs past the end of the packet or of its property section.
    Truncated,
    /// Bytes are left after the last field.
    TrailingBytes,
    /// A string is not well-formed UTF-8.
    NotUtf8,
    /// A string holds U+0000.
    NullCharacter,
    /// The packet's type is not the one that was asked for.
    OtherPacket,

    /// CONNECT names a protocol other than "MQTT" or, at level 3, "MQIsdp".
    ProtocolName,
    /// CONNECT asks for a protocol level that does not exist.
    ProtocolLevel(u8),
    /// CONNECT flags: the reserved bit is set.
    ConnectReservedFlag,
    /// CONNECT flags: will QoS 3.
    WillQos,
    /// CONNECT flags: will QoS or will retain without a will.
    WillFlagsWithoutWill,
    /// CONNECT flags: a password without a user name, which 3.1 and 3.1.1 forbid.
    PasswordWithoutUserName,
    /// Authentication data without an authentication method.
    AuthDataWithoutMethod,
    /// AUTH without an authentication method.
    AuthMethodMissing,
    /// CONNACK flags other than session present.
    ConnackFlags,
    /// CONNACK says that a session is present and refuses the connection.
    SessionPresentWithError,
    /// CONNACK of 3.1 or 3.1.1 with a return code above 5.
    ConnackReturnCode(u8),

    /// QoS 3 in a PUBLISH.
    QosInvalid,
    /// DUP in a PUBLISH at QoS 0.
    DupAtQos0,
    /// Packet identifier 0.
    PacketIdZero,
    /// An empty topic name without an alias.
    TopicEmpty,
    /// A topic name with a wildcard.
    TopicWildcard,
    /// Topic alias 0.
    TopicAliasZero,
    /// A response topic that is empty or has a wildcard.
    ResponseTopic,

    /// SUBSCRIBE, SUBACK, UNSUBSCRIBE or UNSUBACK with an empty payload.
    PayloadMissing,
    /// Subscription options: a reserved bit is set.
    OptionsReserved,
    /// Subscription options: QoS 3.
    OptionsQos,
    /// Subscription options: retain handling 3.
    OptionsRetainHandling,
    /// Subscription options: no local on a shared subscription.
    OptionsNoLocalShared,

    /// A property identifier that MQTT 5 does not have.
    PropertyUnknown(u8),
    /// A property that this packet cannot carry.
    PropertyNotAllowed(PropertyId),
    /// A property that may stand once stands twice.
    PropertyDuplicate(PropertyId),
    /// A property with a value out of its range.
    PropertyValue(PropertyId),

    /// A reason code that does not exist or that this packet cannot carry.
    ReasonInvalid(u8),
}

impl DecodeError {
    /// The reason code for the CONNACK or DISCONNECT that answers.
    pub fn reason(&self) -> ReasonCode {
        use DecodeError::*;
        match self {
            VarIntTooLong | VarIntNotMinimal | PacketType | HeaderFlags | Truncated
            | TrailingBytes | NotUtf8 | NullCharacter | OtherPacket => ReasonCode::MalformedPacket,
            PacketTooLarge => ReasonCode::PacketTooLarge,

            ProtocolName | ProtocolLevel(_) => ReasonCode::UnsupportedProtocolVersion,
            ConnectReservedFlag
            | WillQos
            | WillFlagsWithoutWill
            | PasswordWithoutUserName
            | ConnackFlags
            | ConnackReturnCode(_) => ReasonCode::MalformedPacket,
            AuthDataWithoutMethod | AuthMethodMissing | SessionPresentWithError => {
                ReasonCode::ProtocolError
            }

            QosInvalid | DupAtQos0 => ReasonCode::MalformedPacket,
            PacketIdZero | TopicEmpty | ResponseTopic => ReasonCode::ProtocolError,
            TopicWildcard => ReasonCode::TopicNameInvalid,
            TopicAliasZero => ReasonCode::TopicAliasInvalid,

            OptionsReserved => ReasonCode::MalformedPacket,
            PayloadMissing | OptionsQos | OptionsRetainHandling | OptionsNoLocalShared => {
                ReasonCode::ProtocolError
            }

            // MQTT 5, 2.2.2.2: an identifier that is not valid for its packet type is malformed, too.
            PropertyUnknown(_) | PropertyNotAllowed(_) => ReasonCode::MalformedPacket,
            PropertyDuplicate(_) | PropertyValue(_) | ReasonInvalid(_) => ReasonCode::ProtocolError,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use DecodeError::*;
        let text = match self {
            ProtocolLevel(level) => return write!(f, "protocol level {level} is not supported"),
            ConnackReturnCode(code) => return write!(f, "CONNACK return code {code} is undefined"),
            PropertyUnknown(id) => return write!(f, "property identifier {id:#04x} is undefined"),
            PropertyNotAllowed(id) => return write!(f, "{id} is not allowed in this packet"),
            PropertyDuplicate(id) => return write!(f, "{id} is there more than once"),
            PropertyValue(id) => return write!(f, "the value of {id} is out of its range"),
            ReasonInvalid(code) => {
                return write!(f, "reason code {code:#04x} is not allowed in this packet");
            }
            VarIntTooLong => "a variable byte integer is longer than four bytes",
            VarIntNotMinimal => "a variable byte integer is longer than its value needs",
            PacketTooLarge => "the packet is larger than the maximum packet size",
            PacketType => "the packet type is reserved",
            HeaderFlags => "the flags in the fixed header are not those of the packet type",
            Truncated => "a field runs past the end of the packet or of its properties",
            TrailingBytes => "bytes follow the last field of the packet",
            NotUtf8 => "a string is not well-formed UTF-8",
            NullCharacter => "a string holds the null character",
            OtherPacket => "the packet is of another type than expected",
            ProtocolName => "the protocol name is not MQTT",
            ConnectReservedFlag => "the reserved connect flag is set",
            WillQos => "the will QoS is 3",
            WillFlagsWithoutWill => "will QoS or will retain is set without a will",
            PasswordWithoutUserName => "there is a password without a user name",
            AuthDataWithoutMethod => "there is authentication data without a method",
            AuthMethodMissing => "the authentication method is missing",
            ConnackFlags => "a reserved CONNACK flag is set",
            SessionPresentWithError => "session present is set in a refusal",
            QosInvalid => "the QoS is 3",
            DupAtQos0 => "DUP is set at QoS 0",
            PacketIdZero => "the packet identifier is 0",
            TopicEmpty => "the topic name is empty",
            TopicWildcard => "the topic name has a wildcard",
            TopicAliasZero => "the topic alias is 0",
            ResponseTopic => "the response topic is empty or has a wildcard",
            PayloadMissing => "the payload is empty",
            OptionsReserved => "a reserved bit of the subscription options is set",
            OptionsQos => "the QoS in the subscription options is 3",
            OptionsRetainHandling => "retain handling in the subscription options is 3",
            OptionsNoLocalShared => "no local is set on a shared subscription",
        };
        f.write_str(text)
    }
}

impl std::error::Error for DecodeError {}
