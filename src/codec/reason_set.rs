//! Which packet may carry which reason codes.

use super::error::{DecodeError, Result};
use super::reason::ReasonCode::{self, *};

/// The codes that one packet type may carry.
#[derive(Clone, Copy, Debug)]
pub struct ReasonSet {
    fine: u64,
    error: u64,
}

impl ReasonSet {
    // [MQTT-3.2.2-8]
    pub const CONNACK: ReasonSet = ReasonSet::of(&[
        Success,
        UnspecifiedError,
        MalformedPacket,
        ProtocolError,
        ImplementationSpecificError,
        UnsupportedProtocolVersion,
        ClientIdentifierNotValid,
        BadUserNameOrPassword,
        NotAuthorized,
        ServerUnavailable,
        ServerBusy,
        Banned,
        BadAuthenticationMethod,
        TopicNameInvalid,
        PacketTooLarge,
        QuotaExceeded,
        PayloadFormatInvalid,
        RetainNotSupported,
        QosNotSupported,
        UseAnotherServer,
        ServerMoved,
        ConnectionRateExceeded,
    ]);
    /// PUBACK and PUBREC. [MQTT-3.4.2-1] [MQTT-3.5.2-1]
    pub const RECEIVED: ReasonSet = ReasonSet::of(&[
        Success,
        NoMatchingSubscribers,
        UnspecifiedError,
        ImplementationSpecificError,
        NotAuthorized,
        TopicNameInvalid,
        PacketIdentifierInUse,
        QuotaExceeded,
        PayloadFormatInvalid,
    ]);
    /// PUBREL and PUBCOMP. [MQTT-3.6.2-1] [MQTT-3.7.2-1]
    pub const RELEASED: ReasonSet = ReasonSet::of(&[Success, PacketIdentifierNotFound]);
    // [MQTT-3.9.3-2]
    pub const SUBACK: ReasonSet = ReasonSet::of(&[
        Success,
        GrantedQoS1,
        GrantedQoS2,
        UnspecifiedError,
        ImplementationSpecificError,
        NotAuthorized,
        TopicFilterInvalid,
        PacketIdentifierInUse,
        QuotaExceeded,
        SharedSubscriptionsNotSupported,
        SubscriptionIdentifiersNotSupported,
        WildcardSubscriptionsNotSupported,
    ]);
    /// SUBACK of 3.1.1. 3.1 has no failure, but servers of that time send 0x80, too.
    pub const SUBACK_V3: ReasonSet =
        ReasonSet::of(&[Success, GrantedQoS1, GrantedQoS2, UnspecifiedError]);
    // [MQTT-3.11.3-2]
    pub const UNSUBACK: ReasonSet = ReasonSet::of(&[
        Success,
        NoSubscriptionExisted,
        UnspecifiedError,
        ImplementationSpecificError,
        NotAuthorized,
        TopicFilterInvalid,
        PacketIdentifierInUse,
    ]);
    /// DISCONNECT in either direction. [MQTT-3.14.2-1]
    pub const DISCONNECT: ReasonSet = ReasonSet::of(&[
        Success,
        DisconnectWithWill,
        UnspecifiedError,
        MalformedPacket,
        ProtocolError,
        ImplementationSpecificError,
        NotAuthorized,
        ServerBusy,
        ServerShuttingDown,
        BadAuthenticationMethod,
        KeepAliveTimeout,
        SessionTakenOver,
        TopicFilterInvalid,
        TopicNameInvalid,
        ReceiveMaximumExceeded,
        TopicAliasInvalid,
        PacketTooLarge,
        MessageRateTooHigh,
        QuotaExceeded,
        AdministrativeAction,
        PayloadFormatInvalid,
        RetainNotSupported,
        QosNotSupported,
        UseAnotherServer,
        ServerMoved,
        SharedSubscriptionsNotSupported,
        ConnectionRateExceeded,
        MaximumConnectTime,
        SubscriptionIdentifiersNotSupported,
        WildcardSubscriptionsNotSupported,
    ]);
    // [MQTT-3.15.2-1]
    pub const AUTH: ReasonSet = ReasonSet::of(&[Success, ContinueAuthentication, ReAuthenticate]);

    const fn of(codes: &[ReasonCode]) -> ReasonSet {
        let mut set = ReasonSet { fine: 0, error: 0 };
        let mut rest = codes;
        while let [code, after @ ..] = rest {
            let bit = 1 << (*code as u8 & 0x3F);
            if code.is_error() {
                set.error |= bit;
            } else {
                set.fine |= bit;
            }
            rest = after;
        }
        set
    }

    pub const fn contains(self, code: ReasonCode) -> bool {
        let half = if code.is_error() { self.error } else { self.fine };
        half & (1 << (code as u8 & 0x3F)) != 0
    }

    /// The code that `byte` stands for, if this packet may carry it.
    pub(super) fn read(self, byte: u8) -> Result<ReasonCode> {
        match ReasonCode::from_u8(byte) {
            Some(code) if self.contains(code) => Ok(code),
            _ => Err(DecodeError::ReasonInvalid(byte)),
        }
    }
}
