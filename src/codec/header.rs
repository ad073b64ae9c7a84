//! The first byte of a packet: its type, and the flags that the type requires.

use super::ProtocolVersion;
use super::error::{DecodeError, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type that the upper half of `first_byte` names. Type 0 does not exist.
    #[inline]
    pub fn of(first_byte: u8) -> Option<PacketType> {
        use PacketType::*;
        Some(match first_byte >> 4 {
            1 => Connect,
            2 => Connack,
            3 => Publish,
            4 => Puback,
            5 => Pubrec,
            6 => Pubrel,
            7 => Pubcomp,
            8 => Subscribe,
            9 => Suback,
            10 => Unsubscribe,
            11 => Unsuback,
            12 => Pingreq,
            13 => Pingresp,
            14 => Disconnect,
            15 => Auth,
            _ => return None,
        })
    }

    /// The first byte of a packet that we send; PUBLISH adds its flags.
    #[inline]
    pub(super) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.flags()
    }

    #[inline]
    const fn flags(self) -> u8 {
        match self {
            // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
            PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe => 0x02,
            _ => 0x00,
        }
    }

    /// Checks that a packet of this type may begin with `first_byte`. PUBLISH does not call this, as it reads its own
    /// flags.
    #[inline]
    pub(super) fn check(self, first_byte: u8, version: ProtocolVersion) -> Result<()> {
        if first_byte == self.first_byte() {
            return Ok(());
        }
        if first_byte >> 4 != self as u8 {
            return Err(DecodeError::OtherPacket);
        }
        // In 3.1 every packet with a QoS has a DUP flag.
        let dup = self.flags() != 0 && version == ProtocolVersion::V31;
        if dup && first_byte & !0x08 == self.first_byte() {
            return Ok(());
        }
        // [MQTT-2.1.3-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
        Err(DecodeError::HeaderFlags)
    }
}
