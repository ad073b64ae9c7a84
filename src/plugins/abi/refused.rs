//! Numbers of refusals: why a function of the table did nothing, and with what a plugin refuses a client.

use super::layout;
use crate::codec::ReasonCode;
use crate::plugin::EditError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Stale,
    BadArgument,
    BadText,
    BadTopic,
    TooLarge,
    NotHere,
    None,
    Busy,
}

impl Refused {
    pub(super) fn code(self) -> i32 {
        match self {
            Refused::Stale => layout::STALE,
            Refused::BadArgument => layout::BAD_ARGUMENT,
            Refused::BadText => layout::BAD_TEXT,
            Refused::BadTopic => layout::BAD_TOPIC,
            Refused::TooLarge => layout::TOO_LARGE,
            Refused::NotHere => layout::NOT_HERE,
            Refused::None => layout::NONE,
            Refused::Busy => layout::BUSY,
        }
    }

    /// The name in the header of a hook's return value, for the operator.
    pub(super) fn name_of(code: i32) -> &'static str {
        match code {
            layout::FAILED => "RINGMQ_FAILED",
            layout::STALE => "RINGMQ_STALE",
            layout::BAD_ARGUMENT => "RINGMQ_BAD_ARGUMENT",
            layout::BAD_TEXT => "RINGMQ_BAD_TEXT",
            layout::BAD_TOPIC => "RINGMQ_BAD_TOPIC",
            layout::TOO_LARGE => "RINGMQ_TOO_LARGE",
            layout::NOT_HERE => "RINGMQ_NOT_HERE",
            layout::NONE => "RINGMQ_NONE",
            layout::BUSY => "RINGMQ_BUSY",
            _ => "a number that the header does not name",
        }
    }
}

/// What a plugin says to a client by this number, `Err`: it is refused; `None`: the number means nothing here.
pub(super) fn reply(code: i32) -> Option<Result<(), ReasonCode>> {
    if code == layout::ALLOW {
        return Some(Ok(()));
    }
    let reason = u8::try_from(code).ok().and_then(ReasonCode::from_u8)?;
    reason.is_error().then_some(Err(reason))
}

impl From<EditError> for Refused {
    fn from(error: EditError) -> Refused {
        match error {
            EditError::TopicInvalid => Refused::BadTopic,
            EditError::TooLarge => Refused::TooLarge,
            EditError::TextInvalid => Refused::BadText,
        }
    }
}
